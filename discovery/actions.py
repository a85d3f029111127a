"""Writes of discovery: polls, what follows from them, and sources.

A poll is recorded bucket by bucket, each in one statement that commits by itself: interrupted, the
same poll sent again records the rest and repeats nothing. What it opened is published afterwards,
in a transaction of its own, which also finds whom to tell; a process that dies between leaves that
to the next tick.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone
from psycopg.errors import CheckViolation

from config import generations, partitions, prepared, readmodels, tally
from config.sqlfiles import Statements, queries
from config.text import storable
from discovery.models import Source
from discovery.polls import (
    ERROR_LENGTH,
    WHOLE,
    BucketKey,
    InvalidPoll,
    Poll,
    Slot,
    VenueDetails,
    local_day,
    place,
    window,
    zone_of,
)

_sql = Statements("discovery")

logger = logging.getLogger("spyglass.discovery")

DROPS = "drop_events"  # the generation that publishing raises
PUBLISHED_AT_ONCE = 500
PAST_DAYS = 500  # partitions of drops that polls of the past may make
SILENT = timedelta(days=7)  # after which a calendar of a standing bucket is forgotten
_COUNTED = ("baseline", "unchanged", "missing", "quarantined", "spared", "left_out")


class SourcePaused(Exception):
    """Staff paused the source: its polls are refused."""


class TooManySources(Exception):
    """There are DISCOVERY_SOURCES_LIMIT sources: staff must make the next one."""


class UnknownSource(LookupError):
    """No source of that name."""


@dataclass(frozen=True)
class Recorded:
    """What one poll of one bucket changed. `outcome`: recorded, replayed, late or unknown.

    `opened` and `closed`: slot ids. Of the others how many: entered as the baseline, still open,
    missing but not yet closed, calendars whose emptiness is doubted, returns that are no drop, and
    slots beyond the cap.
    """

    outcome: str
    opened: list[str]
    closed: list[str]
    baseline: int
    unchanged: int
    missing: int
    quarantined: int
    spared: int
    left_out: int
    late_calendars: int
    replayed_calendars: int


@dataclass
class Report:
    """What one poll of a source changed, all buckets together. `outside`: slots of no bucket."""

    source: str
    polled_at: datetime
    outcome: str = "recorded"
    buckets: int = 0
    slots: int = 0
    outside: int = 0
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    published: int = 0
    told: int = 0

    def add(self, found: Recorded) -> None:
        """Take in what one bucket brought."""
        self.opened += found.opened
        self.closed += found.closed
        for name in _COUNTED:
            self.counts[name] += getattr(found, name)


@dataclass(frozen=True)
class Bucketed:
    """The slots of one bucket, side by side with their local times and moments."""

    slots: list[Slot] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    moments: list[datetime | None] = field(default_factory=list)

    def add(self, slot: Slot, local_time: str, moment: datetime | None) -> None:
        """One slot more."""
        self.slots.append(slot)
        self.times.append(local_time)
        self.moments.append(moment)

    def parameters(self) -> dict[str, str]:
        """The columns that `record_poll` takes."""
        slots = self.slots
        payloads = [prepared.json(slot.payload) if slot.payload else "" for slot in slots]
        return {
            "slots": prepared.array([slot.slot_id for slot in slots]),
            "venues": prepared.array([slot.venue for slot in slots]),
            "starts": prepared.array(self.moments),
            "times": prepared.array(self.times),
            "party_min": prepared.array([slot.party_min for slot in slots]),
            "party_max": prepared.array([slot.party_max for slot in slots]),
            "payloads": prepared.array(payloads),
        }


def tick(poll: Poll, *, provider: str = Source.Provider.PUSH) -> Report:
    """Record what a source showed, publish what opened, and rebuild the feed if that changed it.

    Idempotent. Must run outside a transaction. Raises SourcePaused.
    """
    report = record_source_poll(poll, provider=provider)
    if report.opened or report.closed or report.published or report.counts["spared"]:
        try:
            readmodels.refresh(readmodels.all()["feed_cache"])
        except DatabaseError:  # the poll stands; the job refresh_discovery follows in a minute
            logger.exception("the feed was not rebuilt after a poll of %s", report.source)
    return report


def record_source_poll(poll: Poll, *, provider: str = Source.Provider.PUSH) -> Report:
    """Record what a source showed, and publish what opened. Idempotent.

    A source that is not known is made, with this provider. Must run outside a transaction. Raises
    SourcePaused, TooManySources, and InvalidPoll for a poll that does not go with those before it.
    """
    started = time.monotonic()
    source = ensure_source(name=poll.source, provider=provider)
    if source.is_paused:
        raise SourcePaused(f"{source.name} is paused")
    _check_calendars(source, poll)
    report = Report(source.name, poll.polled_at, slots=len(poll.slots))
    outcomes = _record_window(source, poll, report)
    if "unknown" in outcomes:  # a bucket was removed meanwhile: what is recorded is a replay now
        report.outside = 0
        outcomes |= _record_window(source, poll, report)
    report.outcome = next(
        (each for each in ("recorded", "late", "replayed") if each in outcomes), "recorded"
    )
    if poll.venues and report.outcome == "recorded":
        describe_venues(source=source, venues=poll.venues, seen_at=poll.polled_at)
    _note(source, report, (time.monotonic() - started) * 1000)
    report.published, report.told = publish_drops()
    return report


def record_poll(
    *,
    bucket: int,
    polled_at: datetime,
    slots: Bucketed,
    calendars: Sequence[str] = (WHOLE,),
) -> Recorded:
    """One poll of one bucket, in one statement. Raises DatabaseError."""
    parameters = _poll_parameters(polled_at, calendars) | slots.parameters() | {"bucket": bucket}
    statement = queries("discovery")["record_poll"]
    try:
        with transaction.atomic() if connection.in_atomic_block else nullcontext():
            [row] = prepared.fetch(statement, parameters)
    except IntegrityError as error:
        # The day's partition of drops is not there: a recording of the past, or the first of all.
        if not isinstance(error.__cause__, CheckViolation) or error.__cause__.diag.constraint_name:
            raise
        _make_day(polled_at)
        [row] = prepared.fetch(statement, parameters)
    return _recorded(row)


def record_failure(*, source: Source, at: datetime, error: str) -> None:
    """A poll that brought no answer: nothing opens, nothing closes, and the failure is counted.

    Idempotent; one that is older than the last success is not counted. Raises SourcePaused.
    """
    if source.is_paused:
        raise SourcePaused(f"{source.name} is paused")
    with transaction.atomic():
        counted = _sql.count(
            "note_failure",
            source=source.pk,
            polled_at=at,
            error=storable(error, ERROR_LENGTH),
            today=local_day(at, zone_of(source.timezone)),
        )
        if counted:
            tally.add("discovery_polls_total", source=source.name, outcome="failed")


def record_unchanged(*, source: Source, at: datetime) -> None:
    """The source says that nothing changed since (HTTP 304)."""
    with transaction.atomic():
        today = local_day(at, zone_of(source.timezone))
        _sql.count("note_unchanged", source=source.pk, polled_at=at, today=today)
        _note(source, Report(source.name, at, outcome="unchanged"), None)


def ensure_source(*, name: str, **fields: Any) -> Source:
    """The source of this name, made with these fields where it is new. Raises TooManySources."""
    found = Source.objects.filter(name=name).first()
    if found:
        return found
    if Source.objects.count() >= settings.DISCOVERY_SOURCES_LIMIT:
        raise TooManySources(f"there are {settings.DISCOVERY_SOURCES_LIMIT:,} sources already")
    return Source.objects.get_or_create(name=name, defaults=fields)[0]


def begin_anew(*, source_id: int) -> None:
    """Forget what a source showed, because it shows something else from now on: its next poll is a
    baseline. Drops and statistics stay."""
    _sql.count("begin_anew", source=source_id)


def forget_calendars() -> int:
    """Forget calendars of standing buckets that have not answered for a week; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            queries("discovery")["forget_calendars"], {"before": timezone.now() - SILENT}
        )
        return cursor.fetchone()[0]


def ensure_buckets() -> int:
    """Make the missing buckets of every source's window; returns how many."""
    return _sql.count(
        "make_all_buckets",
        days=settings.DISCOVERY_WINDOW_DAYS,
        parts=settings.DISCOVERY_TIME_SLOTS,
    )


def describe_venues(*, source: Source, venues: Sequence[VenueDetails], seen_at: datetime) -> int:
    """Take in what a source says of its venues; returns how many are new or differ."""
    by_key = {venue.key: venue for venue in venues}.values()
    return _sql.count(
        "describe_venues",
        source=source.pk,
        seen_at=seen_at,
        keys=[venue.key for venue in by_key],
        names=[venue.name for venue in by_key],
        cities=[venue.city for venue in by_key],
        latitudes=[venue.latitude for venue in by_key],
        longitudes=[venue.longitude for venue in by_key],
        urls=[venue.url for venue in by_key],
        capacities=[venue.capacity for venue in by_key],
    )


def publish_drops() -> tuple[int, int]:
    """Let pollers see what opened, and note whom to tell: (drops, notifications).

    One process at a time, in a transaction that ends with its lock: so a drop that is published
    later commits later, and a poller that asks for what came after the last one it saw misses none
    and sees none twice.
    """
    drops = told = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(queries("discovery")["lock_publishing"])
            cursor.execute(queries("discovery")["lock_unpublished"], {"limit": PUBLISHED_AT_ONCE})
            locked = cursor.fetchall()
            published = notified = 0
            if locked:
                cursor.execute(
                    queries("discovery")["publish_drops"],
                    {
                        "ids": [key for key, _ in locked],
                        "minutes": [minute for _, minute in locked],
                        "within": settings.DISCOVERY_NOTIFY_WITHIN_MINUTES,
                    },
                )
                published, notified, generation = cursor.fetchone()
                tally.add("discovery_drops_published_total", published)
                tally.add("discovery_notifications_total", notified, state="pending")
                transaction.on_commit(lambda raised=generation: generations.announce(DROPS, raised))
        drops, told = drops + published, told + notified
        if published < PUBLISHED_AT_ONCE:
            return drops, told


def pause_source(*, source_id: int, paused: bool) -> None:
    """Stop or resume a source; its buckets are frozen as they are. Raises UnknownSource."""
    if not Source.objects.filter(pk=source_id).update(
        is_paused=paused, next_poll_at=timezone.now()
    ):
        raise UnknownSource(f"no source {source_id}")


def _check_calendars(source: Source, poll: Poll) -> None:
    """A source is polled whole or by calendar, as its first poll was. Raises InvalidPoll."""
    by_calendar = poll.calendars is not None
    if source.is_by_calendar is None:
        with connection.cursor() as cursor:
            cursor.execute(
                queries("discovery")["note_calendars"],
                {"source": source.pk, "by_calendar": by_calendar},
            )
            source.is_by_calendar = cursor.fetchone()[0]
    if source.is_by_calendar != by_calendar:
        reason = "by calendar: name those that answered" if source.is_by_calendar else "as a whole"
        raise InvalidPoll({"calendars": f"This source is polled {reason}."})


def _record_window(source: Source, poll: Poll, report: Report) -> set[str]:
    """Record a poll in all buckets of its window; the outcomes that there were."""
    buckets, is_open = _window(source, local_day(poll.polled_at, zone_of(source.timezone)))
    by_bucket = _bucketed(poll.slots, source, buckets, report)
    calendars = [WHOLE] if poll.calendars is None else list(poll.calendars)
    report.buckets = len(buckets)
    empty = [one for one in buckets.values() if one not in by_bucket and one not in is_open]
    outcomes = set()
    for found in _record_nothing(empty, poll.polled_at, calendars):
        outcomes.add(found.outcome)
        report.add(found)
    for bucket in buckets.values():
        if bucket in by_bucket or bucket in is_open:
            found = record_poll(
                bucket=bucket,
                polled_at=poll.polled_at,
                slots=by_bucket.get(bucket, Bucketed()),
                calendars=calendars,
            )
            outcomes.add(found.outcome)
            report.add(found)
    return outcomes


def _make_day(polled_at: datetime) -> None:
    """Make the partitions of a day. Raises InvalidPoll where polls of the past have made enough."""
    if len(partitions.existing(DROPS)) >= PAST_DAYS:
        raise InvalidPoll({"polled_at": f"Lies too far back: {PAST_DAYS} days are kept already."})
    # Those of notifications first: who publishes a drop must find its day there.
    for table in ("user_notifications", DROPS):
        partitions.ensure(table, polled_at, polled_at)


def _window(source: Source, first: date) -> tuple[dict[BucketKey, int], set[int]]:
    """The buckets of the source's window from `first` on, in the order in which they are locked;
    and those that have an open slot."""
    days = settings.DISCOVERY_WINDOW_DAYS if source.window_days is None else source.window_days
    wanted = window(first, days)
    asked = {
        "source": source.pk,
        "first": first if days else None,
        "last": first + timedelta(days=max(days, 1) - 1) if days else None,
    }
    found = _buckets(asked)
    if missing := [key for key in wanted if key not in found]:
        _sql.count(
            "make_buckets",
            source=source.pk,
            days=[key.day for key in missing],
            parts=[key.time_slot for key in missing],
        )
        found = _buckets(asked)
    # One that was removed between the two is made by the next poll.
    buckets = {key: found[key][0] for key in wanted if key in found}
    return buckets, {bucket for bucket, slots in found.values() if slots}


def _buckets(asked: Mapping[str, Any]) -> dict[BucketKey, tuple[int, int]]:
    rows = prepared.fetch(queries("discovery")["window_buckets"], asked)
    return {BucketKey(day, part): (bucket_id, slots) for day, part, bucket_id, slots in rows}


def _bucketed(
    slots: Sequence[Slot], source: Source, buckets: Mapping[BucketKey, int], report: Report
) -> dict[int, Bucketed]:
    zone, standing = zone_of(source.timezone), BucketKey(None, "") in buckets
    found: dict[int, Bucketed] = defaultdict(Bucketed)
    for slot in slots:
        key, text, moment = place(slot, zone, standing=standing)
        if key not in buckets:
            report.outside += 1
            continue
        found[buckets[key]].add(slot, text, moment)
    return found


def _record_nothing(
    buckets: Sequence[int], polled_at: datetime, calendars: Sequence[str]
) -> list[Recorded]:
    """A poll in buckets where nothing was and nothing is: all in one statement."""
    if not buckets:
        return []
    asked = {"buckets": prepared.array(buckets)} | _poll_parameters(polled_at, calendars)
    return [_recorded(row) for row in prepared.fetch(queries("discovery")["record_nothing"], asked)]


def _recorded(row: tuple) -> Recorded:
    outcome, opened, closed, *counts = row
    return Recorded(outcome, opened or [], closed or [], *(each or 0 for each in counts))


def _poll_parameters(polled_at: datetime, calendars: Sequence[str]) -> dict[str, Any]:
    return {
        "polled_at": polled_at,
        "calendars": prepared.array(calendars),
        "misses": max(1, settings.DISCOVERY_CLOSE_AFTER_MISSES),
        "cooldown": settings.DISCOVERY_COOLDOWN_SECONDS,
        "confirmations": settings.DISCOVERY_EMPTY_CONFIRMATIONS,
        "cap": settings.DISCOVERY_SLOTS_PER_BUCKET,
    }


def _note(source: Source, report: Report, milliseconds: float | None) -> None:
    counts = report.counts
    with transaction.atomic():
        _sql.count(
            "note_scan",
            source=source.pk,
            polled_at=report.polled_at,
            outcome=report.outcome,
            buckets=report.buckets,
            slots=report.slots,
            opened=len(report.opened),
            closed=len(report.closed),
            spared=counts["spared"],
            left_out=counts["left_out"] + report.outside,
            milliseconds=milliseconds,
        )
        events = {"opened": len(report.opened), "closed": len(report.closed)} | counts
        tally.add_all(
            [
                tally.Count(
                    "discovery_polls_total", {"source": source.name, "outcome": report.outcome}
                ),
                *(
                    tally.Count("discovery_events_total", {"event": name}, count)
                    for name, count in events.items()
                    if count and name != "unchanged"
                ),
            ]
        )
