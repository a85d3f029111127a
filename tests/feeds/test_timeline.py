"""Timelines: the three modes agree, whatever happens, in whatever order, at whatever moment."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import readmodels
from feeds import actions, fanout, timeline
from feeds.models import Fanout, FeedState, Follow, Post, Profile, UserFeed
from tests.feeds.people import profile

pytestmark = pytest.mark.django_db

PEOPLE = 5


def expected(viewer: Profile) -> list[int]:
    """The whole timeline, by a plain loop over everything there is."""
    from feeds.models import Block, Mute

    followed = set(Follow.objects.filter(follower=viewer).values_list("followee_id", flat=True))
    hidden = set(Mute.objects.filter(user=viewer).values_list("target_id", flat=True))
    hidden |= set(Block.objects.filter(user=viewer).values_list("target_id", flat=True))
    hidden |= set(Block.objects.filter(target=viewer).values_list("user_id", flat=True))
    seen = [
        post
        for post in Post.objects.filter(is_deleted=False)
        if post.author_id == viewer.pk
        or (post.author_id in followed - hidden and post.visibility != Post.Visibility.PRIVATE)
    ]
    return [post.pk for post in sorted(seen, key=lambda p: (p.created_at, p.pk), reverse=True)]


def read_all(viewer: Profile, *, limit: int = 3) -> list[int]:
    """Every page of a timeline, one after the other."""
    viewer.refresh_from_db()
    ids, after = [], None
    while True:
        page = timeline.read(viewer=viewer, limit=limit, after=after)
        ids += [post["id"] for post in page.posts]
        if page.after is None:
            return ids
        assert len(page.posts) == limit
        after = page.after


def run(statement: str, *parameters) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


class World:
    """What the steps of a test act upon."""

    def __init__(self) -> None:
        run("DELETE FROM user_feeds")
        run("DELETE FROM auth_user")
        self.people = [profile(f"person-{number}") for number in range(PEOPLE)]
        self.posts: list[Post] = []
        # Ahead of now: what is dated back is found in cached windows only once these end.
        self.clock = datetime.now(UTC) + timedelta(hours=1)

    def post(self, author: int, back: int) -> None:
        self.clock += timedelta(minutes=1)
        at = self.clock - timedelta(minutes=back * 7)
        author = Profile.objects.get(pk=self.people[author].pk)
        self.posts.append(actions.create_post(author=author, text="x", created_at=at))

    def change(self, post: int, how: str) -> None:
        if not self.posts:
            return
        chosen = self.posts[post % len(self.posts)]
        chosen.refresh_from_db()
        if chosen.is_deleted:
            return
        if how == "delete":
            actions.delete_post(post_id=chosen.pk, author=chosen.author)
        else:
            actions.edit_post(post_id=chosen.pk, author=chosen.author, visibility=how)

    def relate(self, one: int, other: int, how: str) -> None:
        user = Profile.objects.get(pk=self.people[one].pk)
        # Oneself, or somebody who is blocked.
        with suppress(actions.Invalid, actions.Missing):
            getattr(actions, how)(user=user, target_id=self.people[other].pk)

    def do(self, step: tuple, settings) -> None:
        """One step, as STEP makes them."""
        what, *given = step
        match what:
            case "post" | "change" | "relate":
                getattr(self, what)(*given)
            case "read":
                assert read_all(self.people[given[0]]) == expected(self.people[given[0]])
            case "pulled":
                run(
                    "UPDATE profiles SET is_pulled = NOT is_pulled WHERE user_id = %s",
                    self.people[given[0]].pk,
                )
            case "mode":
                settings.FEEDS_MODE = given[0]
            case _:
                WORK[what](self)


def deliver_one_chunk() -> None:
    """One chunk of two followers: what a worker does before it is killed."""
    fanout.deliver_next(rows=2, go_on=lambda: False)
    run("UPDATE feed_fanouts SET due_at = now()")


def drop_all(world: World) -> None:
    """As if nobody had read for long."""
    run("UPDATE feed_states SET last_read_at = now() - interval '100 days'")
    fanout.drop_idle()


WORK = {
    "chunk": lambda world: deliver_one_chunk(),
    "build": lambda world: fanout.build_timelines(limit=1),
    "fill": lambda world: fanout.fill_follows(limit=1),
    "idle": drop_all,
    "trim": lambda world: fanout.trim([person.pk for person in world.people]),
    "drain": lambda world: fanout.drain(),
}
STEP = st.one_of(
    st.tuples(st.just("post"), st.integers(0, PEOPLE - 1), st.integers(0, 2)),
    st.tuples(
        st.just("change"),
        st.integers(0, 50),
        st.sampled_from(["delete", "private", "public", "followers"]),
    ),
    st.tuples(
        st.just("relate"),
        st.integers(0, PEOPLE - 1),
        st.integers(0, PEOPLE - 1),
        st.sampled_from(["follow"] * 6 + ["unfollow", "mute", "unmute", "block", "unblock"]),
    ),
    st.tuples(st.just("read"), st.integers(0, PEOPLE - 1)),
    st.tuples(st.sampled_from(sorted(WORK))),
    st.tuples(st.just("pulled"), st.integers(0, PEOPLE - 1)),
    st.tuples(st.just("mode"), st.sampled_from(["pull", "push", "hybrid"])),
)


@given(st.lists(STEP, min_size=5, max_size=60))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_three_modes_agree(settings, steps):
    """At every moment: deliveries and builds go on step by step, between all that people do."""
    settings.FEEDS_CAP = 4
    settings.FEEDS_CACHE_SECONDS = 60
    settings.FEEDS_MODE = "hybrid"
    world = World()
    for step in steps:
        world.do(step, settings)
    for mode in ("push", "hybrid", "pull"):
        settings.FEEDS_MODE = mode
        for viewer in world.people:
            assert read_all(viewer) == expected(viewer), mode
            assert read_all(viewer, limit=100) == expected(viewer), mode
    settings.FEEDS_MODE = "hybrid"
    fanout.drain()
    for viewer in world.people:
        assert read_all(viewer) == expected(viewer)
    [model] = readmodels.select(["user_feeds"])
    assert readmodels.reconcile(model).count == 0


def test_a_newcomer_reads_at_once_and_has_a_timeline_soon(settings):
    settings.FEEDS_MODE = "push"
    ann, bob = profile("ann"), profile("bob")
    post = actions.create_post(author=bob, text="hello")
    actions.follow(user=ann, target_id=bob.pk)
    page = timeline.read(viewer=ann, limit=10)
    assert ([one["id"] for one in page.posts], page.how) == ([post.pk], "computed")
    assert FeedState.objects.get(user=ann).built_at is None
    fanout.drain()
    page = timeline.read(viewer=ann, limit=10)
    assert ([one["id"] for one in page.posts], page.how) == ([post.pk], "kept")
    assert UserFeed.objects.filter(user_id=ann.pk).count() == 1
    assert not Fanout.objects.exists()


def test_active_followers_come_first(settings):
    settings.FEEDS_MODE = "push"
    ann, bob, author = profile("ann"), profile("bob"), profile("author")
    for reader in (ann, bob):
        actions.follow(user=reader, target_id=author.pk)
        timeline.read(viewer=reader, limit=1)
    fanout.drain()
    run(
        "UPDATE feed_states SET last_read_at = now() - interval '3 days' WHERE user_id = %s", ann.pk
    )
    post = actions.create_post(author=author, text="x")
    fanout.deliver_next(go_on=lambda: False)
    assert list(UserFeed.objects.values_list("user_id", "post_id")) == [(bob.pk, post.pk)]


def test_posts_of_the_famous_are_not_delivered(settings):
    settings.FEEDS_PULL_FOLLOWERS = 2
    star, fans = profile("star"), [profile("ann"), profile("bob")]
    for fan in fans:
        actions.follow(user=fan, target_id=star.pk)
        timeline.read(viewer=fan, limit=1)
    fanout.drain()
    star.refresh_from_db()
    post = actions.create_post(author=star, text="x")
    assert post.delivery == Post.Delivery.PULL
    assert not Fanout.objects.exists()
    assert read_all(fans[0]) == [post.pk]


def test_who_posts_more_than_is_read_is_pulled(settings):
    settings.FEEDS_PULL_CONSIDERED = 1
    author, fan = profile("author"), profile("ann")
    actions.follow(user=fan, target_id=author.pk)
    timeline.read(viewer=fan, limit=1)
    assert fanout.decide_delivery() == 0
    Post.objects.bulk_create(Post(author=author, text="x") for _ in range(50))
    assert fanout.decide_delivery() == 1
    author.refresh_from_db()
    assert author.is_pulled
    Post.objects.all().delete()
    assert fanout.decide_delivery() == 1


def test_a_failing_delivery_is_tried_again(settings, monkeypatch):
    settings.FEEDS_MODE = "push"
    ann, bob = profile("ann"), profile("bob")
    actions.follow(user=ann, target_id=bob.pk)
    timeline.read(viewer=ann, limit=1)
    fanout.drain()
    post = actions.create_post(author=bob, text="x")
    trim = monkeypatch.setattr(fanout, "_trim_some", None)
    assert fanout.deliver_next()
    one = Fanout.objects.get()
    assert "TypeError" in one.error
    assert one.due_at > datetime.now(UTC)
    assert read_all(ann) == [post.pk]
    monkeypatch.undo()
    assert trim is None
    run("UPDATE feed_fanouts SET due_at = now()")
    settings.FEEDS_MODE = "push"
    fanout.drain()
    assert not Fanout.objects.exists()


def test_timelines_are_capped(settings, monkeypatch):
    monkeypatch.setattr(fanout, "TRIM_EVERY", 10)
    settings.FEEDS_MODE, settings.FEEDS_CAP = "push", 10
    ann, bob = profile("ann"), profile("bob")
    actions.follow(user=ann, target_id=bob.pk)
    timeline.read(viewer=ann, limit=1)
    fanout.drain()
    for _ in range(300):
        actions.create_post(author=bob, text="x")
    fanout.drain()
    assert UserFeed.objects.count() < 300
    fanout.trim([ann.pk])
    assert UserFeed.objects.count() == 10
    assert read_all(ann, limit=100) == expected(ann)


def test_reconciliation_finds_what_is_missing(settings):
    settings.FEEDS_MODE = "push"
    ann, bob = profile("ann"), profile("bob")
    actions.follow(user=ann, target_id=bob.pk)
    timeline.read(viewer=ann, limit=1)
    fanout.drain()
    post = Post.objects.create(author=bob, text="by hand, so nobody delivers it")
    [model] = readmodels.select(["user_feeds"])
    found = readmodels.reconcile(model)
    assert (found.count, found.samples) == (
        1,
        [f"user_feeds: post {post.pk} is missing for {ann.pk}"],
    )
    assert readmodels.reconcile(model, fix=True).fixed
    assert readmodels.reconcile(model).count == 0
    assert read_all(ann) == [post.pk]
    run("DELETE FROM user_feeds")
    readmodels.refresh(model, full=True)
    assert readmodels.reconcile(model).count == 0
