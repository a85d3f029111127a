"""Discovery inside a process of the project: `python -m bench.discovery_probes NAME '{…}'`."""

import random
import time
import tracemalloc
from datetime import datetime, timedelta
from itertools import islice

import django

from bench import recordings as recorded
from bench.drop_oracle import Oracle, Rules
from bench.harness import answer_probe, median, percentile

django.setup()

from django.conf import settings  # noqa: E402 -- these need the settings
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from config import caching, retention  # noqa: E402
from config import partitions as tables  # noqa: E402
from discovery import actions, feed, polls  # noqa: E402
from discovery import queries as reads  # noqa: E402
from discovery.models import Availability, Bucket, DropEvent, Source, Venue, Watch  # noqa: E402

SLOTS = 2_000  # of a bucket
CHANGED = 20  # open anew at each tick, and as many close: 2 % of 2,000
VENUES = 300


def prepare() -> dict:
    """The source, its buckets, its venues and their baseline; and drops that are open."""
    source = actions.ensure_source(name="bench")
    actions.ensure_buckets()
    now = timezone.now() - timedelta(hours=6)
    details = [polls.VenueDetails(f"venue {n}", f"Venue {n}") for n in range(VENUES)]
    actions.describe_venues(source=source, venues=details, seen_at=now)
    _plain()
    for turn in range(3):
        _tick(now + timedelta(minutes=turn), turn)
    feed.rebuild()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")
    return {}


def partitions(*, days: int) -> dict:
    """The partitions of so many days back."""
    now = timezone.now()
    for table in ("drop_events", "user_notifications"):
        tables.ensure(table, now - timedelta(days=days), now)
    return {}


def tick(*, rounds: int, orm_buckets: int) -> dict:
    """A tick of all 28 buckets, and the same through the ORM, slot by slot, for a few of them."""
    _plain()
    _reset_statements()
    seconds = _ticks(rounds)
    return {
        "seconds": median(seconds),
        "worst": max(seconds),
        "statements_per_bucket": _statements("%discovery_record_poll%") / (rounds + 1) / 28,
        "orm_seconds": _through_the_orm(orm_buckets, _read_compare_write) / orm_buckets * 28,
        "orm_bulk_seconds": _through_the_orm(orm_buckets, _in_bulk) / orm_buckets * 28,
        "orm_buckets_measured": orm_buckets,
    }


def ticks(*, rounds: int) -> dict:
    """The median of some ticks, the first of them left out."""
    _plain()
    return {"median": median(_ticks(rounds)[1:])}


def tick_for(*, seconds: float, every: float, buckets: int) -> dict:
    """Ticks of the first buckets alone, published, for a while."""
    _plain()
    times, end = [], time.monotonic() + seconds
    turn = _last_turn()
    while (started := time.monotonic()) < end:
        turn += 1
        polled_at = timezone.now()
        for bucket in _buckets()[:buckets]:
            began = time.perf_counter()
            actions.record_poll(bucket=bucket.pk, polled_at=polled_at, slots=_slots(bucket, turn))
            times.append(time.perf_counter() - began)
        actions.publish_drops()
        time.sleep(max(0, every - (time.monotonic() - started)))
    return {"median": median(times), "worst": max(times), "ticks": len(times)}


def feed_reads(*, samples: int) -> dict:
    """`just-opened` and `still-open` through the application, and built from the tables."""
    paths = [f"/api/v1/chat/watches/{name}" for name in ("just-opened", "still-open")]
    client = Client(headers={"host": "localhost"})
    cached, uncached = [], []
    for number in range(samples):
        started = time.perf_counter()
        answer = client.get(paths[number % 2])
        cached.append(time.perf_counter() - started)
        assert answer.status_code == 200, answer.content
    peak = 0
    for number in range(samples):
        name = ("just_opened", "still_open")[number % 2]
        caching.forget()
        if number >= samples - 10:
            tracemalloc.start()
        started = time.perf_counter()
        body = feed.rendered(feed.segments()[name](), reads.freshness())
        if number >= samples - 10:  # these are watched, and slower for it
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        else:
            uncached.append(time.perf_counter() - started)
    return {
        "cached": percentile(cached[2:], 0.95),
        "uncached": percentile(uncached, 0.95),
        "peak_mb": peak / 1e6,
        "bytes": len(body),
    }


def watches(*, watches: int, samples: int) -> dict:
    """How long it takes to find the watches that one drop fits."""
    chance = random.Random(3)
    user = get_user_model().objects.get_or_create(username="watcher")[0]
    source = Source.objects.get(name="bench")
    keys = list(Venue.objects.values_list("pk", flat=True))
    made = Watch.objects.bulk_create(
        Watch(
            user=user,
            channel="none",
            has_venues=number % 2 == 0,
            source=source if number % 3 else None,
            party_size=chance.choice([None, 2, 4, 8]),
            time_from=chance.choice(["", "18:00"]),
            weekdays=chance.choice([[], [5, 6, 7]]),
        )
        for number in range(watches)
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO discovery_watch_venues VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [(key, one.pk) for one in made if one.has_venues for key in chance.sample(keys, 5)],
        )
        cursor.execute("ANALYZE discovery_watches, discovery_watch_venues")
        times, fitting = [], 0
        for _ in range(samples):
            started = time.perf_counter()
            cursor.execute(
                "SELECT count(*) FROM discovery_fitting_watches("
                "%s, %s, now() + interval '2 days', '19:30', 2::smallint, 4::smallint)",
                [source.pk, chance.choice(keys)],
            )
            fitting += cursor.fetchone()[0]
            times.append(time.perf_counter() - started)
    Watch.objects.filter(user=user).delete()
    return {
        "p50": percentile(times, 0.5),
        "p95": percentile(times, 0.95),
        "fitting": fitting / samples,
    }


def prune() -> dict:
    """The daily removal of what has expired; with the longest retention, so that history stays."""
    settings.DROP_EVENTS_RETENTION_DAYS = 30
    expired = sum(_rows(part.name) for part in tables.expired("drop_events"))
    started = time.perf_counter()
    [done] = retention.prune(["drop_events"])
    return {"seconds": time.perf_counter() - started, "days": done.rows, "expired_rows": expired}


def recordings(*, how: str, share: float) -> dict:
    """The recordings, poll by poll, against the oracle: events that differ, and alerts spared."""
    cautious = how == "cautious"
    special = {
        "misses_to_close": 2 if cautious else 1,
        "cooldown": timedelta(minutes=40) if cautious else timedelta(0),
        "confirmations": 1 if cautious else 0,
    }
    settings.DISCOVERY_CLOSE_AFTER_MISSES = special["misses_to_close"]
    settings.DISCOVERY_COOLDOWN_SECONDS = int(special["cooldown"].total_seconds())
    settings.DISCOVERY_EMPTY_CONFIRMATIONS = special["confirmations"]
    found = {}
    for name, days, lines in (
        ("vaccine_slots", 14, recorded.calendars("vaccine_slots")),
        ("office_slots", 14, recorded.calendars("office_slots")),
        ("parking", 0, recorded.counts("parking")),
    ):
        rules = Rules(**special, window_days=days, zone=recorded.BERLIN)
        found[name] = _replay(rules, lines, share)
    return found


def _replay(rules: Rules, lines, share: float) -> dict:
    lines = list(lines)
    oracles: dict[str, Oracle] = {}
    totals = {"polls": 0, "opened": 0, "closed": 0, "differences": 0, "spared": 0}
    started = time.perf_counter()
    for source, polled_at, answered in islice(lines, max(20, round(len(lines) * share))):
        if source not in oracles:
            oracles[source] = Oracle(rules)
            window = None if rules.window_days else 0
            actions.ensure_source(name=source, timezone=rules.zone.key, window_days=window)
        slots = [
            polls.Slot(slot, venue, start)
            for venue, shown in answered.items()
            for slot, start in shown.items()
        ]
        report = actions.record_source_poll(
            polls.Poll(source, polled_at, slots, calendars=list(answered))
        )
        opened, closed = oracles[source].poll(polled_at, answered)
        totals["polls"] += 1
        totals["opened"] += len(report.opened)
        totals["closed"] += len(report.closed)
        totals["spared"] += report.counts["spared"]
        totals["differences"] += len(opened ^ set(report.opened)) + len(closed ^ set(report.closed))
    totals["polls_per_second"] = round(totals["polls"] / (time.perf_counter() - started), 1)
    return totals


def _plain() -> None:
    """What vanishes closes, so that each tick has as many changes."""
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    settings.DISCOVERY_COOLDOWN_SECONDS = 0


def _buckets() -> list[Bucket]:
    return list(Bucket.objects.filter(source__name="bench").order_by("pk")[:28])


def _slots(bucket: Bucket, turn: int) -> actions.Bucketed:
    """2,000 slots, of which each turn shows 20 that the one before did not, and lacks as many."""
    moment = datetime.combine(
        bucket.day, datetime.min.time(), tzinfo=timezone.get_current_timezone()
    )
    found = actions.Bucketed()
    for number in range(turn * CHANGED, turn * CHANGED + SLOTS):
        venue = f"venue {number % VENUES}"
        found.add(polls.Slot(f"{bucket.pk} {number}", venue, moment, 2, 4), "19:30", moment)
    return found


def _last_turn() -> int:
    """What the last tick of another process showed: this one goes on from there."""
    slots = Availability.objects.filter(bucket=_buckets()[0]).values_list("slot_id", flat=True)
    return min(int(slot.split(" ")[1]) for slot in slots) // CHANGED


def _tick(polled_at: datetime, turn: int) -> None:
    for bucket in _buckets():
        actions.record_poll(bucket=bucket.pk, polled_at=polled_at, slots=_slots(bucket, turn))
    actions.publish_drops()


def _ticks(rounds: int) -> list[float]:
    """Seconds of each: 28 statements, and the publishing. Making up the slots is not in it."""
    first, seconds = _last_turn() + 1, []
    for turn in range(first, first + rounds + 1):
        polled_at = timezone.now()
        shown = [(bucket.pk, _slots(bucket, turn)) for bucket in _buckets()]
        started = time.perf_counter()
        for bucket, slots in shown:
            actions.record_poll(bucket=bucket, polled_at=polled_at, slots=slots)
        actions.publish_drops()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]  # the first connects, and has its plans made


def _through_the_orm(buckets: int, write) -> float:
    """The same tick by Django's ORM, on buckets of their own; seconds."""
    source = actions.ensure_source(name=f"orm-{write.__name__.strip('_').replace('_', '-')}")
    actions.ensure_buckets()
    venue = Venue.objects.create(source=source, key="venue", last_seen_at=timezone.now())
    seconds = 0.0
    for bucket in Bucket.objects.filter(source=source).order_by("pk")[:buckets]:
        for turn in (0, 1):
            shown = {slot.slot_id: slot for slot in _slots(bucket, turn).slots}
            started = time.perf_counter()
            with transaction.atomic():
                write(bucket, venue, shown, timezone.now())
            seconds += (time.perf_counter() - started) * turn
    return seconds


def _read_compare_write(bucket: Bucket, venue: Venue, shown: dict, now: datetime) -> None:
    """As it is written first: each slot is read, compared, written."""
    for slot in shown.values():
        known = Availability.objects.filter(bucket=bucket, slot_id=slot.slot_id).first()
        if known is None:
            _enter(bucket, venue, slot, now)
        elif known.misses:
            known.misses = 0
            known.save()
    for known in Availability.objects.filter(bucket=bucket):
        if known.slot_id not in shown:
            Availability.objects.filter(bucket=bucket, slot_id=known.slot_id).delete()
    bucket.checked_at = now
    bucket.save()


def _in_bulk(bucket: Bucket, venue: Venue, shown: dict, now: datetime) -> None:
    """As careful as the ORM can be: all slots in one query, what differs in a few."""
    known = {one.slot_id: one for one in Availability.objects.filter(bucket=bucket)}
    fresh = [slot for slot in shown.values() if slot.slot_id not in known]
    drops = DropEvent.objects.bulk_create(_event(bucket, venue, slot, now) for slot in fresh)
    Availability.objects.bulk_create(
        _state(bucket, venue, slot, now, drop) for slot, drop in zip(fresh, drops, strict=True)
    )
    Availability.objects.filter(bucket=bucket, slot_id__in=known.keys() - shown.keys()).delete()
    bucket.checked_at = now
    bucket.save()


def _enter(bucket: Bucket, venue: Venue, slot: polls.Slot, now: datetime) -> None:
    drop = _event(bucket, venue, slot, now)
    drop.save(force_insert=True)
    _state(bucket, venue, slot, now, drop).save(force_insert=True)


def _event(bucket: Bucket, venue: Venue, slot: polls.Slot, now: datetime) -> DropEvent:
    return DropEvent(
        event_type="opened",
        source_id=bucket.source_id,
        bucket_id=bucket.pk,
        slot_id=slot.slot_id,
        venue=venue,
        opened_at=now,
        opened_minute=now.replace(second=0, microsecond=0),
        starts_at=slot.starts_at,
    )


def _state(
    bucket: Bucket, venue: Venue, slot: polls.Slot, now: datetime, drop: DropEvent
) -> Availability:
    return Availability(
        bucket=bucket,
        slot_id=slot.slot_id,
        venue=venue,
        calendar="",
        opened_at=now,
        drop_id=drop.pk,
        drop_minute=drop.opened_minute,
    )


def _rows(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT count(*) FROM "{table}"')
        return cursor.fetchone()[0]


def _reset_statements() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_statements_reset()")


def _statements(like: str) -> int:
    """How often statements of clients like this ran since the reset."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements"
            " WHERE toplevel AND query LIKE %s",
            [like],
        )
        return int(cursor.fetchone()[0])


if __name__ == "__main__":
    answer_probe(prepare, partitions, tick, ticks, tick_for, feed_reads, watches, prune, recordings)
