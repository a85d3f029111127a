"""Feed workers that are killed: every post arrives once, and readers never miss one."""

import random
import signal
import time

import pytest
from django.core.management import call_command
from django.db import connection

from config import readmodels
from feeds import actions, fanout, timeline
from feeds.models import Fanout, FeedState, Follow, Post, Profile, UserFeed
from tests.feeds.people import profile
from tests.processes import until

pytestmark = pytest.mark.django_db(transaction=True)

FOLLOWERS = 300


def follow_all(author: Profile) -> list[Profile]:
    followers = [profile(f"fan-{number}") for number in range(FOLLOWERS)]
    Follow.objects.bulk_create(Follow(follower=fan, followee=author) for fan in followers)
    return followers


def await_quiet() -> None:
    until(lambda: not Fanout.objects.exists(), "the end of deliveries")
    until(lambda: not FeedState.objects.filter(built_at=None).exists(), "the last timeline")


def is_indexed(post: Post) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM post_documents WHERE post_id = %s", [post.pk])
        return cursor.fetchone() is not None


def test_killed_again_and_again(spawn, settings):
    settings.FEEDS_MODE = "push"
    author = profile("author")
    followers = follow_all(author)
    chance = random.Random(3)
    posts = [actions.create_post(author=author, text="x").pk for _ in range(5)]
    for fan in followers[:200]:
        timeline.read(viewer=fan, limit=5)  # so that they have a timeline
    worker = spawn(["feed_worker"], FEEDS_MODE="push")
    for _ in range(6):
        posts += [actions.create_post(author=author, text="x").pk for _ in range(10)]
        reader = chance.choice(followers)
        page = timeline.read(viewer=reader, limit=100)
        assert [post["id"] for post in page.posts] == posts[::-1]
        time.sleep(chance.uniform(0.2, 1.2))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        # What the dead one had claimed is due when its lease ends; here at once.
        Fanout.objects.update(due_at="2020-01-01T00:00:00Z")
        worker = spawn(["feed_worker"], FEEDS_MODE="push")
    await_quiet()
    for fan in chance.sample(followers[:200], 20):
        page = timeline.read(viewer=fan, limit=100)
        assert page.how == "kept"
        assert [post["id"] for post in page.posts] == posts[::-1]
    assert UserFeed.objects.filter(user_id=followers[0].pk).count() == len(posts)
    [model] = readmodels.select(["user_feeds"])
    assert readmodels.reconcile(model).count == 0
    worker.terminate()
    assert worker.wait(30) == 0


def test_a_worker_delivers_within_moments(spawn, settings):
    settings.FEEDS_MODE = "push"
    author = profile("author")
    [fan, *_] = follow_all(author)
    worker = spawn(["feed_worker"], FEEDS_MODE="push")
    timeline.read(viewer=fan, limit=5)
    await_quiet()
    post = actions.create_post(author=author, text="x")
    until(UserFeed.objects.filter(user_id=fan.pk, post_id=post.pk).exists, "it", seconds=10)
    until(lambda: is_indexed(post), "its document", seconds=20)
    worker.terminate()
    assert worker.wait(30) == 0


def test_an_account_that_goes_in_pieces_goes(settings):
    """Killed half way, the deletion goes on when it is asked for again."""
    author, fan = profile("author"), profile("fan")
    post = actions.create_post(author=author, text="x")
    other = actions.create_post(author=fan, text="y")
    actions.comment(post_id=other.pk, author=author, text="z")
    actions.react(post_id=other.pk, user=author, reaction=actions.LIKE)
    Post.objects.filter(pk=post.pk).delete()  # as far as it came
    timeline.read(viewer=author, limit=1)
    fanout.drain()
    call_command("delete_account", author.user.username)
    assert not UserFeed.objects.filter(user_id=author.pk).exists()
    assert not Profile.objects.filter(pk=author.pk).exists()
    other.refresh_from_db()
    assert (other.likes_count, other.comments_count) == (0, 0)
