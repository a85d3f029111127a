"""Feeds inside a process of the project: `python -m bench.feeds_probes NAME '{…}'`."""

import random
import time
from datetime import timedelta

import django

from bench.harness import answer_probe, percentile

django.setup()

from django.conf import settings  # noqa: E402 -- these need the settings
from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from feeds import actions, fanout, timeline  # noqa: E402
from feeds.models import Fanout, FeedState, Follow, Post, Profile, UserFeed  # noqa: E402

PAGE = 20
WARM_SECONDS = 2


def build(*, hub: int, readers: int) -> dict:
    """Keep the timelines of so many people, half of whom follow the hub."""
    chance = random.Random(5)
    fans = list(Follow.objects.filter(followee_id=hub).values_list("follower_id", flat=True))
    others = list(Profile.objects.values_list("pk", flat=True))
    chosen = set(chance.sample(fans, min(len(fans), readers // 2)))
    chosen |= set(chance.sample(others, readers - len(chosen)))
    _open(sorted(chosen))
    return {"built": _build_all()}


def follow(*, author: int, followers: int) -> dict:
    """Have so many people with a timeline follow somebody."""
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")  # nobody waits for this
        cursor.execute(
            "INSERT INTO follows (follower_id, followee_id, is_filled)"
            " SELECT user_id, %s, TRUE FROM profiles WHERE user_id < %s ORDER BY user_id LIMIT %s"
            " ON CONFLICT DO NOTHING",
            [author, author - 1, followers],
        )
        # Who had none before has a timeline that begins here: a hundred rows each, for all of
        # them, would only take time.
        cursor.execute(
            "INSERT INTO feed_states (user_id, floor_at, built_at) SELECT follower_id, now(), now()"
            " FROM follows WHERE followee_id = %s ON CONFLICT DO NOTHING",
            [author],
        )
        cursor.execute("VACUUM (ANALYZE) follows, feed_states, user_feeds, profiles")
    return {}


def reads(*, seconds: float, hub: int, seed: int) -> dict:
    """Pages of people with a timeline, half of whom follow the hub, once it is warm."""
    chance = random.Random(seed)
    kept = FeedState.objects.filter(floor_at__lt=timezone.now() - timedelta(days=2))
    kept = kept.values_list("user_id", flat=True)
    everybody = list(kept)
    fans = Follow.objects.filter(followee_id=hub, follower_id__in=everybody)
    fans = list(fans.values_list("follower_id", flat=True))
    readers = chance.sample(everybody, min(len(everybody), 2_000))
    readers += chance.sample(fans, min(len(fans), 2_000))
    people = list(Profile.objects.in_bulk(readers).values())
    times, begin = [], time.perf_counter()
    while (now := time.perf_counter()) < begin + seconds + WARM_SECONDS:
        viewer = chance.choice(people)
        started = time.perf_counter()
        timeline.read(viewer=viewer, limit=PAGE)
        if now > begin + WARM_SECONDS:
            times.append(time.perf_counter() - started)
    return {"times": times}


def deliver(*, author: int, posts: int, burst: int) -> dict:
    """Seconds from a post to its last row, post by post; then rows a second of many posts."""
    settings.FEEDS_MODE = "push"
    profile = Profile.objects.get(pk=author)
    followers = Follow.objects.filter(followee_id=author).count()
    seconds = []
    for _ in range(posts):
        post = actions.create_post(author=profile, text="A post for all of them.")
        started = time.perf_counter()
        _await_delivery([post.pk])
        seconds.append(round(time.perf_counter() - started, 4))
        found = UserFeed.objects.filter(post_id=post.pk).count()
        assert found == followers, f"{found} of {followers}"
    started = time.perf_counter()
    many = [actions.create_post(author=profile, text="One of many.").pk for _ in range(burst)]
    _await_delivery(many)
    took = time.perf_counter() - started
    return {"seconds": seconds, "rate": followers * burst / took, "followers": followers}


def famous(*, author: int, mode: str) -> dict:
    """Rows that one post writes in a mode, until everybody can see it."""
    settings.FEEDS_MODE = mode
    profile = Profile.objects.get(pk=author)
    before = _written()
    post = actions.create_post(author=profile, text=f"A post in the mode {mode}.")
    fanout.drain(budget_seconds=300)
    settled = _written() - before
    reader = Follow.objects.filter(followee_id=author).order_by("?").first().follower
    page = timeline.read(viewer=reader, limit=PAGE)
    assert post.pk in {one["id"] for one in page.posts}, "a follower does not see it"
    return {"rows": settled, "delivery": post.delivery}


def growth(*, reader: int, few: int, many: int) -> dict:
    """Median ms of a page of one reader with few followees, and then with many."""
    viewer = Profile.objects.get(pk=reader)
    _open([reader])
    found = {}
    for name, count in (("few", few), ("many", many)):
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO follows (follower_id, followee_id, is_filled)"
                " SELECT %s, user_id, TRUE FROM profiles WHERE user_id <> %s"
                " ORDER BY user_id LIMIT %s ON CONFLICT DO NOTHING",
                [reader, reader, count],
            )
            cursor.execute("UPDATE feed_states SET built_at = NULL WHERE user_id = %s", [reader])
        _build_all()
        times = []
        for number in range(300):
            started = time.perf_counter()
            page = timeline.read(viewer=viewer, limit=PAGE)
            if number >= 50:
                times.append(time.perf_counter() - started)
        assert page.how == "kept", page.how
        found[name] = percentile(times, 0.5) * 1000
        found[f"{name}_p99"] = percentile(times, 0.99) * 1000
    return found


def modes(*, people: int) -> dict:
    """How many of some people see something else in one mode than in another, five pages deep."""
    fanout.drain(budget_seconds=120)
    viewers = Profile.objects.filter(
        pk__in=FeedState.objects.order_by("?").values_list("user_id", flat=True)[:people]
    )
    differ = 0
    for viewer in viewers:
        seen = set()
        for mode in ("push", "hybrid", "pull"):
            settings.FEEDS_MODE = mode
            ids, after = [], None
            for _ in range(5):
                page = timeline.read(viewer=viewer, limit=PAGE, after=after)
                ids += [one["id"] for one in page.posts]
                after = page.after
                if after is None:
                    break
            seen.add(tuple(ids))
        differ += len(seen) > 1
    return {"differ": differ, "people": len(viewers)}


def _open(people: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(
            "INSERT INTO feed_states (user_id) SELECT unnest(%s::integer[]) ON CONFLICT DO NOTHING",
            [people],
        )


def _build_all() -> int:
    built = 0
    while count := fanout.build_timelines(limit=500, at_once=500):
        built += count
    return built


def _await_delivery(posts: list[int]) -> None:
    deadline = time.perf_counter() + 120
    while Fanout.objects.filter(post_id__in=posts).exists():
        if time.perf_counter() > deadline:
            raise TimeoutError("the delivery does not end")
        time.sleep(0.005)


def _written() -> int:
    """Rows in the tables that a post is written to."""
    return UserFeed.objects.count() + Post.objects.count()


if __name__ == "__main__":
    answer_probe(build, follow, reads, deliver, famous, growth, modes)
