"""Demo data of feeds: people who follow each other, post, like and comment.

The same for the same seed. Loading it again adds only what the days that have passed since bring.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

from django.contrib.auth import get_user_model
from django.utils import timezone

from config import jobs
from feeds import actions, timeline
from feeds.models import Comment, Follow, Like, Post, Profile

PEOPLE = {"small": 40, "medium": 400}
DAYS = 30
POSTS_A_DAY = 0.4  # of one person, on average
_NAMES = (
    "anna", "bela", "chiara", "dmitri", "elif", "farid", "greta", "hana", "ivo", "jana", "karim",
    "lena", "milo", "nadia", "otto", "petra", "quentin", "rosa", "sami", "tilda",
)  # fmt: skip
_SURNAMES = (
    "weiss",
    "moreau",
    "rossi",
    "novak",
    "larsen",
    "okafor",
    "tanaka",
    "silva",
    "khan",
    "byrne",
)
_WHAT = (
    "First light over {place}.", "A walk through {place}, and {thing} at the end of it.",
    "Does anybody know where to repair {thing} in {place}?", "Found {thing} near {place}.",
    "Three days without {thing}. It gets easier.", "The market in {place} has {thing} again.",
    "Rain in {place}; {thing} and a book.", "New in the workshop: {thing}.",
)  # fmt: skip
_PLACES = (
    "the harbour",
    "Lyon",
    "the old town",
    "Kreuzberg",
    "the allotments",
    "Porto",
    "the station",
)
_THINGS = (
    "an old bicycle", "fresh apricots", "a red umbrella", "good coffee", "a fountain pen",
    "a typewriter", "sourdough", "a camera", "tomato plants",
)  # fmt: skip
_SAID = (
    "Lovely.",
    "Where is that?",
    "I know that one!",
    "Thank you for this.",
    "Me too.",
    "How so?",
)


def is_empty() -> bool:
    """Whether nobody has posted yet."""
    return not Post.objects.exists()


def load(*, size: str, seed: int, progress: Callable[[str], None] = lambda text: None) -> int:
    """Make people and what they did up to yesterday; how many rows are new.

    `size`: a key of PEOPLE. Raises `config.runs.JobFailed` where a job fails.
    """
    people = _people(PEOPLE[size])
    rows = _follows(people, random.Random(f"{seed} follows"))  # noqa: S311 -- no secret
    today = timezone.now().astimezone(UTC).date()
    for back in range(DAYS, 0, -1):
        day = today - timedelta(days=back)
        rows += _day(people, day, random.Random(f"{seed} {day}"))  # noqa: S311 -- no secret
    for person in people[::2]:  # who read now and then, and so have a timeline that is kept
        timeline.read(viewer=person, limit=1)
    progress(f"{rows:,} rows of {len(people):,} people")
    for name in ("fold_counters", "refresh_feeds"):
        progress(f"running {name}")
        jobs.run_job(name, trigger="command")
    return rows


def _people(count: int) -> list[Profile]:
    """They cannot log in with a password."""
    people = []
    for number in range(count):
        first = _NAMES[number % len(_NAMES)]
        last = _SURNAMES[number // len(_NAMES) % len(_SURNAMES)]
        round_ = number // (len(_NAMES) * len(_SURNAMES))
        name = f"{first}-{last}{round_ or ''}"
        user, is_new = get_user_model().objects.get_or_create(
            username=name, defaults={"first_name": first.title(), "last_name": last.title()}
        )
        if is_new:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        people.append(actions.ensure_profile(user))
    return people


def _follows(people: list[Profile], chance: random.Random) -> int:
    """The first of them are followed by most, the last by few."""
    pairs = [
        Follow(follower=follower, followee=followee)
        for follower in people
        for rank, followee in enumerate(people)
        if follower != followee and chance.random() < 0.9 / (1 + rank / 8)
    ]
    before = Follow.objects.count()
    Follow.objects.bulk_create(pairs, ignore_conflicts=True)
    return Follow.objects.count() - before


def _day(people: list[Profile], day, chance: random.Random) -> int:
    """What people did on one day; nothing where that is there already."""
    start = datetime.combine(day, time(6), UTC)
    ids = [person.pk for person in people]
    posted = Post.objects.filter(
        author_id__in=ids, created_at__gte=start, created_at__lt=start + timedelta(days=1)
    )
    if posted.exists():
        return 0
    rows = 0
    for author in people:
        if chance.random() >= POSTS_A_DAY:
            continue
        at = start + timedelta(seconds=chance.randrange(16 * 3600))
        text = chance.choice(_WHAT).format(
            place=chance.choice(_PLACES), thing=chance.choice(_THINGS)
        )
        post = actions.create_post(author=author, text=text, created_at=at)
        fans = chance.sample(people, min(len(people), chance.randrange(12)))
        Like.objects.bulk_create(
            [Like(post=post, user=fan, created_at=at + timedelta(minutes=5)) for fan in fans],
            ignore_conflicts=True,
        )
        said = [
            Comment(post=post, author=fan, text=chance.choice(_SAID), created_at=at)
            for fan in fans[: chance.randrange(4)]
        ]
        Comment.objects.bulk_create(said)
        rows += 1 + len(fans) + len(said)
    return rows
