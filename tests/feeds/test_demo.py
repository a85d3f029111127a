"""The demo of feeds, the jobs, the metrics."""

import pytest

from config import jobs, metrics
from counters import queries as counts
from feeds import demo, timeline
from feeds.models import Comment, Like, Post, Profile

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_demo_is_the_same_again(settings):
    assert demo.is_empty()
    rows = demo.load(size="small", seed=1)
    assert rows > 500
    assert not demo.is_empty()
    assert demo.load(size="small", seed=1) == 0
    assert Profile.objects.count() == demo.PEOPLE["small"]
    assert Post.objects.count() > 200
    assert Like.objects.exists()
    assert Comment.objects.exists()
    assert counts.waiting() == 0
    star = Profile.objects.order_by("-followers_count")[0]
    assert star.followers_count > 20
    assert timeline.read(viewer=star, limit=10).posts


def test_the_jobs_run():
    for name in (
        "fold_counters",
        "mend_counters",
        "reconcile_counters",
        "refresh_feeds",
        "decide_delivery",
        "drop_idle_feeds",
        "mend_feeds",
        "reconcile_feeds",
    ):
        assert jobs.run_job(name, trigger="test").state == "succeeded"


def test_metrics_are_exposed():
    demo.load(size="small", seed=1)
    text = metrics.exposition().decode()
    assert 'metrics_errors{part="none"} 0.0' in text
    for name in (
        'counter_backlog{counter="posts.likes_count"} 0.0',
        'counter_deferred{counter="posts.likes_count"} 0.0',
        'counter_fold_lag_seconds{counter="posts.views_count"} 0.0',
        "counter_stream_entries 0.0",
        "counter_dead_letters 0.0",
        "feed_fanouts_waiting 0.0",
        "feed_timelines_unbuilt",
        "post_index_backlog 0.0",
        'post_index_total{outcome="written"}',
    ):
        assert name in text, name
