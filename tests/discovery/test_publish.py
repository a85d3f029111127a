"""What pollers see: every drop once, whatever commits when, and also after a crash."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from config import readmodels
from discovery import actions, feed, polls, queries
from discovery.models import Bucket, DropEvent, FeedSegment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def buckets(settings):
    """Two buckets of a source, each with a baseline."""
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    actions.ensure_source(name="tables")
    actions.ensure_buckets()
    found = list(Bucket.objects.order_by("pk")[:2])
    for bucket in found:
        show(bucket, 0, "a")
    return found


BEGUN = timezone.now()


@pytest.fixture(autouse=True)
def _now(monkeypatch):
    """Polls of a test begin half an hour before it, however long the tests have been running."""
    begun = timezone.now().replace(microsecond=0) - timedelta(minutes=30)
    monkeypatch.setitem(globals(), "BEGUN", begun)


def show(bucket, minute, *slots):
    """A poll of a bucket; each bucket has a venue of its own."""
    shown = actions.Bucketed()
    for slot in slots:
        shown.add(polls.Slot(slot, f"v{bucket.pk}"), "", None)
    return actions.record_poll(
        bucket=bucket.pk, polled_at=BEGUN + timedelta(minutes=minute), slots=shown
    )


def follow(since):
    """What a poller sees that asks until there is nothing new."""
    seen = []
    while True:
        drops, at = queries.new_drops(since=since, limit=2)
        seen += [drop["slot_id"] for drop in drops]
        if at == since:
            return seen, at
        since = at


def test_a_drop_is_seen_once_it_is_published(buckets):
    begin = timezone.now()
    show(buckets[0], 1, "a", "b")
    assert follow(begin) == ([], begin)
    assert actions.publish_drops() == (1, 0)
    seen, at = follow(begin)
    assert seen == ["b"]
    assert follow(at) == ([], at)
    assert actions.publish_drops() == (0, 0)


def test_a_drop_that_commits_late_is_not_missed(buckets):
    """The transaction that began first commits last: its drop is published later, and seen then."""
    begin = timezone.now()
    entered, commit, done = threading.Event(), threading.Event(), threading.Event()

    def slow():
        try:
            with transaction.atomic():
                show(buckets[0], 1, "a", "slow")
                entered.set()
                commit.wait(10)
        finally:
            connection.close()
            done.set()

    thread = threading.Thread(target=slow)
    thread.start()
    assert entered.wait(10)
    show(buckets[1], 1, "a", "quick")
    actions.publish_drops()
    seen, at = follow(begin)
    assert seen == ["quick"]
    commit.set()
    assert done.wait(10)
    thread.join()
    actions.publish_drops()
    assert follow(at)[0] == ["slow"]


def test_pages_go_on_without_gap_or_repeat(buckets):
    begin = timezone.now()
    names = [f"slot {number:02}" for number in range(25)]
    show(buckets[0], 1, "a", *names)
    actions.publish_drops()
    seen, _ = follow(begin)
    assert sorted(seen) == names


def test_many_publishers_and_pollers_agree(buckets):
    begin = timezone.now()
    stop = threading.Event()
    found: dict[int, tuple] = {}

    def publish():
        try:
            while not stop.is_set():
                actions.publish_drops()
        finally:
            connection.close()

    def poll(number):
        seen, since = [], begin
        try:
            while not stop.is_set():
                more, since = follow(since)
                seen += more
        finally:
            found[number] = seen, since
            connection.close()

    threads = [threading.Thread(target=publish) for _ in range(2)]
    pollers = [threading.Thread(target=poll, args=[number]) for number in range(3)]
    for each in (*threads, *pollers):
        each.start()
    expected = set()
    for turn in range(1, 40):
        for bucket in buckets:
            name = f"{bucket.pk} {turn}"
            show(bucket, turn / 2, "a", name)
            expected.add(name)
    actions.publish_drops()
    stop.set()
    for each in (*threads, *pollers):
        each.join(30)
    actions.publish_drops()
    for number, (seen, since) in found.items():
        more, last = follow(since)  # what came after it had stopped
        assert sorted(seen + more) == sorted(expected), number
        assert last == DropEvent.objects.latest("published_at").published_at


def test_what_a_dead_process_left_is_published_by_the_job(buckets):
    show(buckets[0], 1, "a", "b")
    assert queries.unpublished() == 1
    readmodels.refresh(readmodels.all()["feed_cache"])
    assert queries.unpublished() == 0
    assert follow(BEGUN)[0] == ["b"]


class TestFeed:
    def test_just_opened_becomes_still_open(self, buckets, settings):
        show(buckets[0], 29, "a", "b")
        actions.publish_drops()
        assert [one["slot_id"] for one in queries.just_opened(limit=10)] == ["b"]
        assert queries.still_open(limit=10) == []
        settings.JUST_OPENED_MINUTES = 0
        assert queries.just_opened(limit=10) == []
        assert [one["slot_id"] for one in queries.still_open(limit=10)] == ["b"]

    def test_caps_are_kept(self, buckets, settings):
        settings.FEED_JUST_OPENED_LIMIT = 3
        show(buckets[0], 29, "a", *map(str, range(9)))
        actions.publish_drops()
        feed.rebuild()
        assert FeedSegment.objects.get(segment="just_opened").items == 3

    def test_the_board_ranks_the_rare_and_fresh_first(self, buckets):
        show(buckets[0], 1, "a", "old")
        shown = actions.Bucketed()
        shown.add(polls.Slot("a", "v"), "", None)
        shown.add(polls.Slot("old", f"v{buckets[0].pk}"), "", None)
        shown.add(polls.Slot("fresh", "w"), "", None)
        actions.record_poll(
            bucket=buckets[0].pk, polled_at=BEGUN + timedelta(minutes=29), slots=shown
        )
        actions.publish_drops()
        board = queries.ranked_board(limit=10)
        assert [one["venue"]["key"] for one in board] == ["w", f"v{buckets[0].pk}"]

    def test_a_closed_drop_says_so(self, buckets):
        show(buckets[0], 28, "a", "b")
        show(buckets[0], 29, "a")
        actions.publish_drops()
        [drop] = queries.just_opened(limit=10)
        assert drop["closed_at"] == BEGUN + timedelta(minutes=29)

    def test_reconcile_finds_what_was_tampered_with(self, buckets, settings):
        model = readmodels.all()["feed_cache"]
        settings.JUST_OPENED_MINUTES = 0
        show(buckets[0], 1, "a", "b")
        readmodels.refresh(model)
        assert readmodels.reconcile(model).count == 0
        FeedSegment.objects.filter(segment="still_open").update(payload=b'{"results": []}')
        assert readmodels.reconcile(model).count == 1
        readmodels.reconcile(model, fix=True)
        assert readmodels.reconcile(model).count == 0
