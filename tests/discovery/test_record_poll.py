"""What one poll after the other does: the rules of docs/discovery.md, one by one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from discovery import actions, polls
from discovery.models import (
    Availability,
    Bucket,
    Calendar,
    DropEvent,
    Scan,
    SlotStats,
    Source,
    Venue,
    VenueStats,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def show(settings):
    """`show(minute, "a", "b", calendars=…)` is a poll of a source; slots are of the venue `v`, or
    of the one before a colon (`w:a`)."""
    begun = timezone.now().replace(microsecond=0, second=0) - timedelta(hours=3)
    tomorrow = begun + timedelta(days=1)

    def poll(minute, *slots, source="tables", calendars=None, venues=(), **fields):
        named = [slot.rpartition(":") for slot in slots]
        return actions.record_source_poll(
            polls.Poll(
                source=source,
                polled_at=begun + timedelta(minutes=minute),
                slots=[
                    polls.Slot(slot, venue or "v", tomorrow, **fields) for venue, _, slot in named
                ],
                calendars=calendars,
                venues=venues,
            )
        )

    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    settings.DISCOVERY_COOLDOWN_SECONDS = 0
    settings.DISCOVERY_EMPTY_CONFIRMATIONS = 0
    poll.begun = begun
    return poll


def open_slots():
    return set(Availability.objects.values_list("slot_id", flat=True))


def drops():
    return list(DropEvent.objects.order_by("id").values_list("slot_id", flat=True))


def test_the_first_poll_is_the_baseline(show):
    report = show(0, "a", "b")
    assert (report.opened, report.closed, report.counts["baseline"]) == ([], [], 2)
    assert open_slots() == {"a", "b"}
    assert drops() == []


def test_what_is_new_opens_and_what_is_gone_closes(show):
    show(0, "a", "b")
    report = show(1, "b", "c")
    assert (report.opened, report.closed, report.counts["unchanged"]) == (["c"], ["a"], 1)
    assert open_slots() == {"b", "c"}
    assert drops() == ["c"]


def test_a_replay_changes_nothing(show):
    show(0, "a")
    show(1, "a", "b")
    report = show(1, "a", "b", "c")
    assert report.outcome == "replayed"
    assert (report.opened, drops()) == ([], ["b"])


def test_a_late_poll_is_rejected_and_counted(show):
    show(0, "a")
    show(5, "a", "b")
    report = show(3, "x")
    assert (report.outcome, report.opened, report.closed) == ("late", [], [])
    assert open_slots() == {"a", "b"}
    assert Scan.objects.filter(outcome="late").count() == 1


def test_a_slot_closes_after_so_many_misses(show, settings):
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 3
    show(0, "a", "b")
    show(1, "a", "b", "c")
    assert show(2, "a").closed == []
    assert show(3, "a").closed == []
    report = show(4, "a")
    assert report.closed == ["b", "c"]
    closed_at = DropEvent.objects.get(slot_id="c").closed_at
    assert closed_at == show.begun + timedelta(minutes=2)  # when it was missing first


def test_a_slot_that_comes_back_in_time_was_never_gone(show, settings):
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 2
    show(0, "a", "b")
    show(1, "a")
    report = show(2, "a", "b")
    assert (report.opened, report.closed, report.counts["spared"]) == ([], [], 1)
    assert show(3, "a").closed == []  # misses count from the beginning again


def test_a_flicker_inside_the_cooldown_is_no_drop(show, settings):
    settings.DISCOVERY_COOLDOWN_SECONDS = 600
    show(0, "a")
    show(1, "a", "b")
    show(2, "a")
    report = show(5, "a", "b")
    assert (report.opened, report.counts["spared"]) == ([], 1)
    event = DropEvent.objects.get()
    assert event.closed_at is None  # the same opening goes on
    assert Availability.objects.get(slot_id="b").drop_id == event.pk
    assert Availability.objects.get(slot_id="b").opened_at == event.opened_at


def test_after_the_cooldown_it_opens_again(show, settings):
    settings.DISCOVERY_COOLDOWN_SECONDS = 600
    show(0, "a")
    show(1, "a", "b")
    show(2, "a")
    assert show(12, "a", "b").opened == ["b"]
    assert list(DropEvent.objects.order_by("id").values_list("event_type", flat=True)) == [
        "opened",
        "reopened",
    ]


def test_a_slot_drops_once_a_minute(show):
    show(0, "a")
    show(1, "a", "b")
    show(1.2, "a")
    report = show(1.4, "a", "b")
    assert report.opened == []
    assert drops() == ["b"]
    assert DropEvent.objects.get().closed_at is None


def test_an_empty_poll_after_a_full_one_is_doubted(show, settings):
    settings.DISCOVERY_EMPTY_CONFIRMATIONS = 2
    show(0, "a", "b")
    for minute in (1, 2):
        report = show(minute)
        assert (report.closed, report.counts["quarantined"]) == ([], 1)
    assert show(3).closed == ["a", "b"]


def test_a_doubt_ends_with_a_slot(show, settings):
    settings.DISCOVERY_EMPTY_CONFIRMATIONS = 1
    show(0, "a", "b")
    show(1)
    assert show(2, "b").closed == ["a"]
    assert show(3).counts["quarantined"] == 1


def test_a_failed_poll_closes_nothing_and_freezes(show, settings):
    settings.DISCOVERY_OUTAGE_FAILURES = 2
    show(0, "a")
    show(1, "a", "b")
    source = Source.objects.get()
    for minute in (2, 3):
        at = show.begun + timedelta(minutes=minute)
        actions.record_failure(source=source, at=at, error="HTTP 502")
    source.refresh_from_db()
    assert (source.consecutive_failures, source.last_error) == (2, "HTTP 502")
    assert open_slots() == {"a", "b"}
    assert set(Bucket.objects.values_list("consecutive_failures", flat=True)) == {2}
    assert show(4, "b").closed == ["a"]
    source.refresh_from_db()
    assert source.consecutive_failures == 0
    assert set(Bucket.objects.values_list("consecutive_failures", flat=True)) == {0}


def test_a_failed_poll_counts_once_and_not_when_it_is_old(show):
    show(5, "a")
    source = Source.objects.get()
    for minute in (6, 6, 3):
        at = show.begun + timedelta(minutes=minute)
        actions.record_failure(source=source, at=at, error="HTTP 502")
    source.refresh_from_db()
    assert source.consecutive_failures == 1


def test_there_are_only_so_many_sources(show, settings):
    settings.DISCOVERY_SOURCES_LIMIT = 1
    show(0, "a")
    with pytest.raises(actions.TooManySources):
        show(0, "a", source="another")


def test_polls_of_the_past_make_only_so_many_days(show, monkeypatch):
    monkeypatch.setattr(actions, "PAST_DAYS", 3)
    show(0, "a")
    long_ago = show.begun - timedelta(days=400)

    def old(minute, *slots):
        day = long_ago + timedelta(days=1)
        actions.record_source_poll(
            polls.Poll(
                "old",
                long_ago + timedelta(minutes=minute),
                [polls.Slot(slot, "v", day) for slot in slots],
            )
        )

    old(0, "a")
    with pytest.raises(polls.InvalidPoll, match="too far back"):
        old(1, "a", "b")


class TestCalendars:
    def test_a_calendar_that_did_not_answer_is_left_alone(self, show):
        show(0, "v:a", "w:b", calendars=["v", "w"])
        report = show(1, calendars=["v"])
        assert report.closed == ["a"]
        assert open_slots() == {"b"}

    def test_each_calendar_has_its_own_baseline_and_time(self, show):
        show(5, "v:a", calendars=["v"])
        report = show(1, "w:b", calendars=["w"])  # older, but the first of w
        assert (report.outcome, report.counts["baseline"]) == ("recorded", 1)
        assert show(2, "w:b", "w:c", calendars=["w"]).opened == ["c"]
        assert show(3, "v:x", calendars=["v"]).outcome == "late"

    def test_an_empty_calendar_is_doubted_alone(self, show, settings):
        settings.DISCOVERY_EMPTY_CONFIRMATIONS = 1
        show(0, "v:a", "w:b", "w:c", calendars=["v", "w"])
        report = show(1, "w:b", calendars=["v", "w"])
        assert (report.closed, report.counts["quarantined"]) == (["c"], 1)

    def test_a_source_is_polled_by_calendar_or_not(self, show):
        show(0, "v:a", calendars=["v"])
        with pytest.raises(polls.InvalidPoll, match="calendars"):
            show(1, "v:a")
        actions.begin_anew(source_id=Source.objects.get().pk)
        assert show(2, "v:a").counts["baseline"] == 1
        with pytest.raises(polls.InvalidPoll, match="calendars"):
            show(3, "v:a", calendars=["v"])

    def test_a_slot_that_moves_to_another_calendar_breaks_nothing(self, show):
        show(0, "v:a", calendars=["v", "w"])
        show(1, "w:a", calendars=["w"])  # v has it still, for all we know
        report = show(2, "w:a", calendars=["v", "w"])
        assert (report.opened, report.closed, open_slots()) == ([], [], {"a"})
        assert show(3, calendars=["v", "w"]).closed == ["a"]

    def test_a_calendar_of_a_standing_bucket_that_falls_silent_is_forgotten(self, show):
        actions.ensure_source(name="bikes", window_days=0)
        show(0, "v:a", "w:b", source="bikes", calendars=["v", "w"])
        Calendar.objects.filter(calendar="w").update(polled_at=timezone.now() - timedelta(days=8))
        assert actions.forget_calendars() == 1
        assert open_slots() == {"a"}
        assert Bucket.objects.get().open_slots == 1

    def test_a_venue_that_answers_is_seen_though_it_has_nothing(self, show):
        show(0, "v:a", calendars=["v", "w"])
        show(120, "v:a", calendars=["v", "w"])
        seen = Venue.objects.get(key="w").last_seen_at
        assert seen == show.begun + timedelta(minutes=120)

    def test_slots_of_a_late_calendar_are_not_taken(self, show):
        show(5, "v:a", calendars=["v"])
        show(2, "w:b", calendars=["w"])
        report = show(3, "v:x", "w:b", "w:y", calendars=["v", "w"])
        assert report.opened == ["y"]
        assert open_slots() == {"a", "b", "y"}


def test_more_slots_than_the_cap_are_left_out_and_counted(show, settings):
    settings.DISCOVERY_SLOTS_PER_BUCKET = 3
    show(0, "b", "c")
    report = show(1, "a", "b", "c", "d", "e")
    assert (report.opened, report.counts["left_out"]) == (["a"], 2)
    # Two places are free again; d and e were there before, for all anybody knows.
    report = show(2, "b", "d", "e")
    assert (report.closed, report.opened, report.counts["baseline"]) == (["a", "c"], [], 2)
    assert show(3, "b", "d", "f").opened == ["f"]


def test_slots_of_no_day_in_the_window_are_outside(show, settings):
    settings.DISCOVERY_WINDOW_DAYS = 1
    report = show(0, "a")
    assert (report.outside, open_slots()) == (1, set())


def test_the_window_slides_with_the_poll(show):
    show(0, "a")
    assert Bucket.objects.count() == 28
    show(24 * 60 + 1, "a")
    assert Bucket.objects.count() == 30


def test_a_standing_source_has_one_bucket(show):
    actions.ensure_source(name="bikes", window_days=0)
    show(0, "a", source="bikes", calendars=["v"])
    assert Bucket.objects.get().day is None


def test_the_count_of_open_slots_is_that_of_the_rows(show):
    show(0, "a", "b")
    show(1, "b", "c", "d")
    counted = {one.pk: one.open_slots for one in Bucket.objects.all()}
    for key, count in counted.items():
        assert Availability.objects.filter(bucket_id=key).count() == count


def test_statistics_survive_and_do_not_count_twice(show, settings):
    settings.DISCOVERY_COOLDOWN_SECONDS = 300
    show(0, "a")
    show(1, "a", "b")
    show(11, "a")  # open for 10 minutes
    show(12, "a", "b")  # a flicker: it goes on
    show(21, "a")  # 20 minutes in all
    for stats in (VenueStats.objects.get(), SlotStats.objects.get()):
        assert (stats.drops, stats.closings, stats.open_seconds) == (1, 1, 1200)
        assert sum(stats.hours) == 1
    DropEvent.objects.all().delete()
    assert VenueStats.objects.get().drops == 1


def test_venues_are_described_and_seen(show):
    details = [polls.VenueDetails("v", "Trattoria", "Bonn", 50.7, 7.1, capacity=40)]
    show(0, "a", venues=details)
    venue = Venue.objects.get()
    assert (venue.name, venue.city, venue.capacity) == ("Trattoria", "Bonn", 40)
    show(120, "a")
    venue.refresh_from_db()
    assert venue.last_seen_at == show.begun + timedelta(minutes=120)


def test_a_paused_source_is_refused(show):
    show(0, "a")
    actions.pause_source(source_id=Source.objects.get().pk, paused=True)
    with pytest.raises(actions.SourcePaused):
        show(1, "b")
    assert open_slots() == {"a"}


def test_two_workers_with_the_same_poll_record_it_once(show):
    show(0, "a")
    gate = threading.Barrier(4)

    def one(_):
        try:
            gate.wait(10)
            return show(1, "a", "b", "c").opened
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert sorted(slot for opened in found for slot in opened) == ["b", "c"]
    assert sorted(drops()) == ["b", "c"]


def test_workers_with_different_polls_lose_nothing(show):
    show(0, "a")
    gate = threading.Barrier(4)

    def one(minute):
        try:
            gate.wait(10)
            return show(minute, "a", f"slot {minute}").outcome
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(one, range(1, 5)))
    # Whoever came first was recorded; each bucket took polls in the order of time alone.
    assert set(outcomes) <= {"recorded", "late"}
    assert set(Calendar.objects.values_list("polled_at", flat=True)) == {
        show.begun + timedelta(minutes=4)
    }
    assert open_slots() == {"a", "slot 4"}
    assert "slot 4" in drops()


def test_an_interrupted_poll_is_completed_by_the_same_poll(show, monkeypatch):
    """Killed between two buckets: some have it, the others get it, none gets it twice."""
    real = actions.record_poll
    slots = [
        polls.Slot(f"{day} {hour}", "v", show.begun + timedelta(days=day, hours=hour))
        for day in (1, 2, 3)
        for hour in (0, 6, 12, 18)
    ]
    first = polls.Poll("tables", show.begun, slots[:1])
    second = polls.Poll("tables", show.begun + timedelta(minutes=1), slots)
    actions.record_source_poll(first)
    calls = []

    def dies(**given):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(given["bucket"])
        return real(**given)

    monkeypatch.setattr(actions, "record_poll", dies)
    with pytest.raises(KeyboardInterrupt):
        actions.record_source_poll(second)
    monkeypatch.setattr(actions, "record_poll", real)
    assert 0 < len(drops()) < 11
    actions.record_source_poll(second)
    assert sorted(drops()) == sorted(slot.slot_id for slot in slots[1:])
    assert not DropEvent.objects.filter(published_at=None).exists()


def test_a_poll_cannot_be_recorded_in_a_transaction_that_fails(show):
    """Nothing of a bucket stays where its statement did not commit."""
    show(0, "a")
    bucket = Bucket.objects.order_by("day", "time_slot").first()
    slots = actions.Bucketed()
    slots.add(polls.Slot("x", "v"), "", None)
    try:
        with transaction.atomic():
            actions.record_poll(
                bucket=bucket.pk, polled_at=show.begun + timedelta(minutes=1), slots=slots
            )
            raise KeyError
    except KeyError:
        assert drops() == []
        assert open_slots() == {"a"}
