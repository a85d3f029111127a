"""Counters kept by triggers: exact after whatever is written, in both modes, while modes change."""

from contextlib import suppress

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counters import actions, declared, queries
from counters.declared import Counter, StreamCounter
from counters.models import CounterState, Delta
from feeds.models import Comment, Follow, Like, Post, Profile
from tests.feeds.people import profile

pytestmark = pytest.mark.django_db

LIKES, COMMENTS = "posts.likes_count", "posts.comments_count"
MODES = ("inline", "deferred")


def run(statement: str, *parameters) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def truth(name: str) -> dict[int, int]:
    """Counted anew, by a statement that knows nothing of counters."""
    statements = {
        LIKES: "SELECT p.id, (SELECT count(*) FROM likes WHERE post_id = p.id) FROM posts AS p",
        COMMENTS: "SELECT p.id, (SELECT count(*) FROM comments WHERE post_id = p.id"
        " AND NOT is_deleted) FROM posts AS p",
        "profiles.posts_count": "SELECT user_id, (SELECT count(*) FROM posts"
        " WHERE author_id = user_id AND NOT is_deleted) FROM profiles",
        "profiles.followers_count": "SELECT user_id, (SELECT count(*) FROM follows"
        " WHERE followee_id = user_id) FROM profiles",
        "profiles.following_count": "SELECT user_id, (SELECT count(*) FROM follows"
        " WHERE follower_id = user_id) FROM profiles",
    }
    with connection.cursor() as cursor:
        cursor.execute(statements[name])
        return dict(cursor.fetchall())


NAMES = (
    LIKES,
    COMMENTS,
    "profiles.posts_count",
    "profiles.followers_count",
    "profiles.following_count",
)


def assert_exact() -> None:
    for name in NAMES:
        right = truth(name)
        assert queries.exact(name, list(right)) == right, name


@pytest.fixture
def people() -> list:
    return [profile(f"person-{number}") for number in range(4)]


@pytest.fixture
def posts(people) -> list[int]:
    return [Post.objects.create(author=people[number % 2], text="x").pk for number in range(3)]


def kept() -> list[Counter]:
    return [one for one in declared.all().values() if isinstance(one, Counter)]


def keep(mode: str) -> None:
    for counter in kept():
        actions.set_mode(name=counter.name, mode=mode)


# What a statement does, by people and posts that it is about. Each is SQL as somebody may write it.
STEPS = (
    "INSERT INTO likes (post_id, user_id) VALUES (%(post)s, %(person)s) ON CONFLICT DO NOTHING",
    "INSERT INTO likes (post_id, user_id) SELECT id, %(person)s FROM posts ON CONFLICT DO NOTHING",
    "DELETE FROM likes WHERE post_id = %(post)s AND user_id = %(person)s",
    "DELETE FROM likes WHERE user_id = %(person)s",
    """UPDATE likes SET post_id = %(post)s WHERE post_id = %(other)s AND user_id = %(person)s
        AND NOT EXISTS (SELECT FROM likes WHERE post_id = %(post)s AND user_id = %(person)s)""",
    "INSERT INTO comments (post_id, author_id, text) VALUES (%(post)s, %(person)s, 'x')",
    "UPDATE comments SET post_id = %(post)s WHERE post_id = %(other)s",
    "UPDATE comments SET is_deleted = NOT is_deleted WHERE post_id = %(post)s",
    "UPDATE comments SET text = 'y', post_id = %(post)s, is_deleted = author_id = %(person)s",
    "DELETE FROM comments WHERE author_id = %(person)s",
    "UPDATE posts SET author_id = %(person)s WHERE id = %(post)s",
    "UPDATE posts SET is_deleted = NOT is_deleted WHERE id = %(post)s",
    """INSERT INTO follows (follower_id, followee_id) SELECT %(person)s, user_id FROM profiles
        WHERE user_id <> %(person)s ON CONFLICT DO NOTHING""",
    "DELETE FROM follows WHERE followee_id = %(person)s",
    "DELETE FROM posts WHERE id = %(post)s",
    "DELETE FROM auth_user WHERE id = %(person)s",
    "TRUNCATE likes",
    "fold",
    "inline",
    "deferred",
)


@given(
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)),
        min_size=5,
        max_size=40,
    )
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_exact_after_any_statements(steps):
    run("DELETE FROM auth_user")
    keep("inline")
    people = [profile(f"person-{number}").pk for number in range(4)]
    posts = [Post.objects.create(author_id=people[number % 2], text="x").pk for number in range(3)]
    for step, post, other, person in steps:
        about = {"post": posts[post], "other": posts[other], "person": people[person]}
        match step:
            case "fold":
                actions.fold()
            case "inline" | "deferred":
                keep(step)
            case _:
                # Somebody who is gone cannot like.
                with suppress(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute(step, about)
        assert_exact()
    actions.fold()
    assert not Delta.objects.exists()
    assert_exact()
    for counter in kept():
        found = actions.compare(counter=counter)
        assert (found.wrong, found.divergence) == (0, 0), found


@pytest.mark.parametrize("mode", MODES)
def test_many_targets_in_one_statement(mode, people):
    """More than are planned for as a few."""
    keep(mode)
    Post.objects.bulk_create(Post(author=people[0], text="x") for _ in range(500))
    run("INSERT INTO likes (post_id, user_id) SELECT id, %s FROM posts", people[1].pk)
    assert_exact()
    actions.fold()
    assert set(Post.objects.values_list("likes_count", flat=True)) == {1}
    run("DELETE FROM likes")
    assert_exact()


@pytest.mark.parametrize("mode", MODES)
def test_truncate_counts(mode, people, posts):
    keep(mode)
    run("INSERT INTO likes (post_id, user_id) SELECT id, %s FROM posts", people[1].pk)
    run("TRUNCATE likes")
    assert_exact()


def test_the_modes_write_where_they_should(people, posts):
    keep("inline")
    Like.objects.create(post_id=posts[0], user=people[0])
    assert Post.objects.get(pk=posts[0]).likes_count == 1
    assert not Delta.objects.filter(counter_key=declared.get(LIKES).key).exists()
    keep("deferred")
    Like.objects.create(post_id=posts[0], user=people[1])
    assert Post.objects.get(pk=posts[0]).likes_count == 1
    assert queries.exact(LIKES, posts[:1]) == {posts[0]: 2}
    actions.fold()
    assert Post.objects.get(pk=posts[0]).likes_count == 2


def test_switching_changes_no_count(people, posts):
    keep("deferred")
    Like.objects.create(post_id=posts[0], user=people[0])
    keep("inline")
    # The like still waits: taking it back must not bring the column below zero.
    Like.objects.filter(post_id=posts[0]).delete()
    assert Post.objects.get(pk=posts[0]).likes_count == 0
    assert queries.exact(LIKES, posts[:1]) == {posts[0]: 0}
    actions.fold()
    assert Post.objects.get(pk=posts[0]).likes_count == 0
    assert not Delta.objects.filter(counter_key=declared.get(LIKES).key).exists()


def test_unknown_modes_and_counters_are_refused():
    with pytest.raises(declared.UnknownCounter):
        actions.set_mode(name="posts.nothing", mode="inline")
    with pytest.raises(actions.NotSwitched, match="no mode"):
        actions.set_mode(name="posts.views_count", mode="inline")
    with pytest.raises(actions.NotSwitched, match="known: inline, deferred"):
        actions.set_mode(name=LIKES, mode="sometimes")


def test_settings_decide_at_the_start(settings):
    settings.COUNTERS_MODE, settings.COUNTERS_MODES = "deferred", {LIKES: "inline"}
    changed = actions.sync_counters()
    assert f"{COMMENTS}: inline -> deferred" in changed
    assert CounterState.objects.get(name=LIKES).mode == "inline"
    assert not actions.sync_counters()
    CounterState.objects.create(counter_key=1, name="posts.gone_count")
    assert actions.sync_counters() == ["posts.gone_count: gone"]


def test_comparison_finds_and_mends(people, posts):
    Like.objects.create(post_id=posts[0], user=people[0])
    Like.objects.create(post_id=posts[1], user=people[0])
    run("UPDATE posts SET likes_count = 7 WHERE id = %s", posts[0])
    run("UPDATE posts SET likes_count = 0 WHERE id = %s", posts[1])
    counter = declared.get(LIKES)
    found = actions.compare(counter=counter, rows=1)
    assert (found.targets, found.wrong, found.divergence) == (3, 2, 7)
    assert found.samples == [
        f"{LIKES} of {posts[0]}: 7, right is 1",
        f"{LIKES} of {posts[1]}: 0, right is 1",
    ]
    state = CounterState.objects.get(name=LIKES)
    assert (state.wrong, state.divergence) == (2, 7)
    assert actions.compare(counter=counter, mend=True).wrong == 2
    assert_exact()
    actions.fold()
    assert_exact()
    assert actions.compare(counter=counter).wrong == 0
    assert CounterState.objects.get(name=LIKES).divergence == 0


def test_waiting_deltas_are_no_difference(people, posts):
    keep("deferred")
    Like.objects.create(post_id=posts[0], user=people[0])
    found = actions.compare(counter=declared.get(LIKES))
    assert (found.wrong, found.waiting) == (0, 1)


def test_a_counter_below_zero_waits(people, posts):
    """A column that somebody has set too low takes no delta that would break its constraint."""
    Like.objects.create(post_id=posts[0], user=people[0])
    run("UPDATE posts SET likes_count = 0 WHERE id = %s", posts[0])
    Like.objects.filter(post_id=posts[0]).delete()
    assert actions.fold() == 1  # and it waits again
    assert Post.objects.get(pk=posts[0]).likes_count == 0
    actions.compare(counter=declared.get(LIKES), mend=True)
    assert_exact()
    actions.fold()
    assert not Delta.objects.filter(counter_key=declared.get(LIKES).key).exists()


def test_deltas_of_the_gone_are_dropped(people, posts):
    keep("deferred")
    Like.objects.create(post_id=posts[0], user=people[0])
    run("DELETE FROM posts WHERE id = %s", posts[0])
    Delta.objects.create(counter_key=4711, target_id=1, delta=1)  # of a newer version's counter
    actions.fold()
    assert list(Delta.objects.values_list("counter_key", flat=True)) == [4711]


def test_declarations_that_cannot_count_are_refused():
    with pytest.raises(ValueError, match=r"is not table\.column"):
        Counter("posts.nothing", source=Like, target=Post, title="Nothing")
    with pytest.raises(ValueError, match="declared twice"):
        Counter(LIKES, source=Comment, target=Post, title="Other")
    with pytest.raises(ValueError, match="2 foreign keys"):
        Counter("profiles.timeline_version", source=Follow, target=Profile, title="x")
    with pytest.raises(ValueError, match="count one event"):
        StreamCounter("posts.author_id", event="post_view", target=Post, title="x")


def test_the_command_shows_and_switches(capsys):
    call_command("counters")
    assert LIKES in capsys.readouterr().out
    call_command("counters", LIKES, mode="deferred")
    said = capsys.readouterr().out
    assert "is kept deferred now" in said
    assert f"{LIKES}=deferred" in said
    with pytest.raises(CommandError, match="no counter"):
        call_command("counters", "posts.nothing", mode="inline")
    with pytest.raises(CommandError, match="Name the counter"):
        call_command("counters", mode="inline")
