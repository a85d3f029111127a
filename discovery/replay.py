"""Recordings of polls, replayed: what a source showed, from a file, as if it were polled now.

Two kinds of recording are known by their columns. `calendars`: `source_id, location_id, polled_at,
free_slots` with the free times separated by `|`; each row is one venue's calendar that answered.
`counts`: `polled_at, place_id, free`; a place with something free is one open slot, and a place
without a row has not answered. A whole recording is held in memory while it is put in the order of
time: about 250 bytes a row, and 120 for each free time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.utils import timezone

from config.files import Layout, Rejection, Source, SourceError
from discovery import actions
from discovery.models import Source as PolledSource
from discovery.polls import InvalidPoll, Poll, Slot, VenueDetails, clean_name, is_key

CALENDARS = Layout(("source_id", "location_id", "polled_at", "free_slots"), ("polled_at",))
COUNTS = Layout(("place_id", "polled_at", "free"), ("place_id", "polled_at", "free"))
_ANY = Layout(("polled_at",))
SEPARATOR = "|"
VENUES = Layout(
    (
        "source_id", "key", "name", "city", "latitude", "longitude", "url", "capacity",
    ),
    ("key",),
    {
        "location_id": "key", "location_name": "name", "place_id": "key", "place_name": "name",
        "city_name": "city", "place_url": "url", "num_all": "capacity",
    },
)  # fmt: skip


@dataclass
class Totals:
    """What a replay did so far. `rejected`: rows that could not be read, with the first reasons."""

    polls: int = 0
    polls_in_all: int = 0
    at: datetime | None = None
    opened: int = 0
    closed: int = 0
    spared: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, report: actions.Report) -> None:
        """Take in one poll."""
        self.polls += 1
        self.at = report.polled_at
        self.opened += len(report.opened)
        self.closed += len(report.closed)
        self.spared += report.counts["spared"]
        self.outcomes[report.outcome] = self.outcomes.get(report.outcome, 0) + 1


class _Row(NamedTuple):
    polled_at: datetime
    source: str
    venue: str
    slots: tuple[Slot, ...]


def replay(
    *,
    path: str,
    zone: ZoneInfo,
    source: str = "",
    venues: str = "",
    speed: float = 0.0,
    until_now: bool = False,
    limit: int | None = None,
    progress: Callable[[Totals], None] = lambda totals: None,
    record: Callable[[Poll], actions.Report] | None = None,
) -> Totals:
    """Replay a recording; returns what it did. Killed anywhere, replaying it again completes it.

    `zone`: of times without an offset. `source`: its name, for recordings that say none, and the
    prefix of those that do. `speed`: 1 as it happened, 60 a minute a second, 0 as fast as can be.
    `until_now`: shifted by whole days, so that it ends today. `limit`: so many polls. Raises
    SourceError, SourcePaused.
    """
    totals = Totals()
    rows, standing = _rows(path, zone, source, totals)
    if not rows:
        raise SourceError(f"{path} has no poll that can be read: {'; '.join(totals.reasons)}")
    rows.sort(key=itemgetter(0, 1))
    shift = timedelta(days=(timezone.now() - rows[-1].polled_at).days) if until_now else None
    details = _details(venues, source) if venues else {}
    _prepare({row.source for row in rows}, zone, standing=standing)
    polls = [list(group) for _, group in groupby(rows, key=itemgetter(0, 1))][:limit]
    totals.polls_in_all = len(polls)
    record = record or actions.record_source_poll
    begun, first = time.monotonic(), polls[0][0].polled_at
    for group in polls:
        if speed:
            due = begun + (group[0].polled_at - first).total_seconds() / speed
            time.sleep(max(0.0, due - time.monotonic()))
        poll = _poll(group, details.pop(group[0].source, ()))
        try:
            totals.add(record(_shifted(poll, shift) if shift else poll))
        except InvalidPoll as error:
            raise SourceError(f"{path}, poll of {poll.polled_at}: {error}") from error
        progress(totals)
    return totals


def kind_of(path: str) -> Layout:
    """Which kind of recording a file is. Raises SourceError."""
    with Source(path, _ANY) as opened:
        names = opened.columns
    if {"location_id", "free_slots", "source_id"} <= set(names):
        return CALENDARS
    if {"place_id", "free"} <= set(names):
        return COUNTS
    raise SourceError(
        f"{path} is no recording: it has the columns {', '.join(names) or 'none'}, not"
        " source_id, location_id, polled_at, free_slots nor place_id, polled_at, free"
    )


def _rows(path: str, zone: ZoneInfo, source: str, totals: Totals) -> tuple[list[_Row], bool]:
    layout = kind_of(path)
    read = _calendar_row if layout is CALENDARS else _count_row
    if layout is COUNTS and not source:
        raise SourceError(f"{path} does not say of which source it is: name one")
    rows = []
    with Source(path, layout) as opened:
        for block in opened.blocks():
            for line, _, values in block:
                row = values if isinstance(values, Rejection) else read(values, zone, source)
                if isinstance(row, Rejection):
                    totals.rejected += 1
                    if len(totals.reasons) < 20:
                        totals.reasons.append(f"line {line:,}: {row.reason} {row.detail}".strip())
                else:
                    rows.append(row)
    return rows, layout is COUNTS


def _calendar_row(values: tuple, zone: ZoneInfo, prefix: str) -> _Row | Rejection:
    source_id, venue, polled_at, free = (str(value or "").strip() for value in values)
    moment = _moment(polled_at, zone)
    if moment is None or not source_id or not is_key(venue):
        return Rejection("unreadable", "polled_at or location_id", f"{polled_at} {venue}"[:60])
    slots = []
    for start in dict.fromkeys(filter(None, free.split(SEPARATOR))):
        starts_at = _moment(start, zone)
        if starts_at is None or not is_key(start):
            return Rejection("unreadable", "free_slots", start[:60])
        slots.append(Slot(f"{venue}{SEPARATOR}{start}", venue, starts_at))
    return _Row(moment, f"{prefix}{source_id}", venue, tuple(slots))


def _count_row(values: tuple, zone: ZoneInfo, source: str) -> _Row | Rejection:
    venue, polled_at, free = (str(value or "").strip() for value in values)
    moment = _moment(polled_at, zone)
    try:
        count = int(free)
    except ValueError:
        return Rejection("unreadable", "free", free[:60])
    if moment is None or not is_key(venue):
        return Rejection("unreadable", "polled_at or place_id", f"{polled_at} {venue}"[:60])
    slot = Slot(venue, venue, payload={"free": count})
    return _Row(moment, source, venue, (slot,) if count > 0 else ())


def _moment(text: str, zone: ZoneInfo) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


def _prepare(names: set[str], zone: ZoneInfo, *, standing: bool) -> None:
    """The sources of a recording, made where they are new."""
    for name in sorted(names):
        try:
            clean_name(name)
        except InvalidPoll as error:
            raise SourceError(f"{name}: {error}") from error
        known = actions.ensure_source(
            name=name,
            provider=PolledSource.Provider.PUSH,
            timezone=zone.key,
            window_days=0 if standing else None,
        )
        if (known.window_days == 0) != standing:
            raise SourceError(f"{name} stands with another window of days: name another source")


def _poll(group: list[_Row], details: tuple[VenueDetails, ...]) -> Poll:
    # A calendar that stands twice at one moment: the last row counts, as for who polls.
    by_venue = {row.venue: row for row in group}
    return Poll(
        source=group[0].source,
        polled_at=group[0].polled_at,
        slots=[slot for row in by_venue.values() for slot in row.slots],
        calendars=list(by_venue),
        venues=details,
    )


def _shifted(poll: Poll, shift: timedelta) -> Poll:
    slots = [
        replace(slot, starts_at=slot.starts_at + shift) if slot.starts_at else slot
        for slot in poll.slots
    ]
    return replace(poll, polled_at=poll.polled_at + shift, slots=slots)


def _details(path: str, source: str) -> dict[str, tuple[VenueDetails, ...]]:
    """What a file says of venues, by source. Raises SourceError."""
    found: dict[str, list[VenueDetails]] = {}
    with Source(path, VENUES) as opened:
        for block in opened.blocks():
            for _, _, values in block:
                if isinstance(values, Rejection):
                    continue
                row = dict(zip(VENUES.fields, values, strict=True))
                name = f"{source}{row['source_id']}" if "location_id" in opened.columns else source
                found.setdefault(name, []).append(_venue(row))
    return {name: tuple(each) for name, each in found.items()}


def _venue(row: Mapping[str, Any]) -> VenueDetails:
    def number(name: str, read: Callable) -> Any:
        try:
            return read(row[name]) if row[name] not in (None, "") else None
        except ValueError:
            return None

    latitude, longitude = number("latitude", float), number("longitude", float)
    placed = latitude is not None and longitude is not None
    return VenueDetails(
        key=str(row["key"]).strip(),
        name=str(row["name"] or "").strip()[:300],
        city=str(row["city"] or "").strip()[:300],
        latitude=latitude if placed else None,
        longitude=longitude if placed else None,
        url=str(row["url"] or "").strip()[:2_000],
        capacity=number("capacity", lambda text: max(0, int(float(text)))),
    )
