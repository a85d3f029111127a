"""Reads of discovery: plain data for the API, the admin and the feed. No writes, no HTTP.

Times are aware. Every list is capped by a setting or by the caller.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from django.conf import settings
from django.db import DataError, connection, transaction

from config import prepared
from config.sqlfiles import Statements, queries
from discovery.models import Availability, DropEvent, Scan

_sql = Statements("discovery")

SOURCES = 200  # listed at most
BUCKETS = 5_000
BEFORE_ALL = datetime(2000, 1, 1, tzinfo=UTC)


def just_opened(*, limit: int) -> list[dict[str, Any]]:
    """The drops of the last JUST_OPENED_MINUTES, newest first."""
    rows = _hot("just_opened", minutes=settings.JUST_OPENED_MINUTES, limit=limit, **_thresholds())
    return [_drop(row) | {"state": _state(row)} for row in rows]


def still_open(*, limit: int) -> list[dict[str, Any]]:
    """What dropped before that and is open still, newest first; `unsure`: not in the last poll."""
    rows = _hot("still_open", minutes=settings.JUST_OPENED_MINUTES, limit=limit, **_thresholds())
    return [
        _drop(row) | {"state": _state(row), "unsure": row["missing_since"] is not None}
        for row in rows
    ]


def ranked_board(*, limit: int) -> list[dict[str, Any]]:
    """The venues with open drops, by a score of how many, how fresh and how rare they are."""
    rows = _hot(
        "ranked_board",
        looked_at=settings.STILL_OPEN_EVENTS_LIMIT,
        limit=limit,
        **_thresholds(),
    )
    kept = ("source", "slots", "newest", "drops_ever")
    return [
        {"venue": _venue(row), "score": round(row["score"], 4), "state": _state(row)}
        | {name: row[name] for name in kept}
        for row in rows
    ]


def new_drops(*, since: datetime | None, limit: int) -> tuple[list[dict[str, Any]], datetime]:
    """The drops published after `since`, oldest first, and the `since` to ask with next.

    Without `since`: none, and where to begin.
    """
    if since is None:
        [row] = prepared.fetch(queries("discovery")["last_published"], {})
        return [], row[0] or BEFORE_ALL
    rows = _hot("new_drops", since=since, limit=limit)
    at = rows[-1]["published_at"] if rows else since
    return [_drop(row) | {"published_at": row["published_at"]} for row in rows], at


def freshness() -> list[dict[str, Any]]:
    """How each source is: fresh, failing, frozen (its slots are unknown), paused or new."""
    return _hot("freshness", limit=SOURCES, **_thresholds())


def bucket_health(*, source: str | None = None) -> list[dict[str, Any]]:
    """The buckets from today on, with their state, as `freshness` has it."""
    return _sql.dicts("bucket_health", source=source, limit=BUCKETS, **_thresholds())


def last_scans() -> list[dict[str, Any]]:
    """Each source with its newest scan and what its buckets hold."""
    return _sql.dicts("last_scans", limit=SOURCES)


def unpublished() -> int:
    """How many drops nobody could see yet."""
    [row] = _sql.dicts("count_unpublished")
    return row["count"]


def segment(name: str) -> bytes | None:
    """A rendered answer of the feed; None where none was built yet."""
    rows = prepared.fetch(queries("discovery")["read_segment"], {"segment": name})
    return bytes(rows[0][0]) if rows else None


def _thresholds() -> dict[str, Any]:
    return {
        "failures": settings.DISCOVERY_OUTAGE_FAILURES,
        "silence": settings.DISCOVERY_SILENCE_HOURS,
    }


def _hot(name: str, **parameters: Any) -> list[dict[str, Any]]:
    return prepared.fetch_dicts(queries("discovery")[name], parameters)


def _drop(row: dict[str, Any]) -> dict[str, Any]:
    kept = (
        "id", "event_type", "source", "slot_id", "starts_at", "local_time", "party_min",
        "party_max", "opened_at", "closed_at",
    )  # fmt: skip
    payload = row["payload"]
    return {name: row[name] for name in kept} | {
        "venue": _venue(row),
        "payload": {} if payload is None else orjson.loads(payload),
    }


def _state(row: dict[str, Any]) -> str:
    """Of a source that is frozen nobody knows what is open."""
    if row.get("closed_at") is not None:
        return "closed"
    return "unknown" if row["source_state"] == "frozen" else "open"


def _venue(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["venue_id"], "key": row["key"], "name": row["name"], "city": row["city"]}


def source_overview(*, ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Sources with id, state, failures, last success and open slots; 200 at most, by name."""
    asked = None if ids is None else list(ids)
    return _sql.dicts("source_overview", ids=asked, limit=SOURCES, **_thresholds())


def newest_scans(*, source_id: int, limit: int) -> list[Scan]:
    """The newest scans of a source, newest first."""
    return list(Scan.objects.filter(source_id=source_id).order_by("-recorded_at", "-pk")[:limit])


def venue_drops(*, venue_id: int, limit: int) -> list[dict[str, Any]]:
    """The newest drops of a venue, newest first; `is_open`: the slot is open still."""
    return _sql.dicts("venue_drops", venue=venue_id, limit=limit)


def open_drop_ids(drops: Sequence[DropEvent]) -> set[int]:
    """Which of these drops are open still. By primary key; for a page of them."""
    found = Availability.objects.filter(
        bucket_id__in={drop.bucket_id for drop in drops}, slot_id__in={d.slot_id for d in drops}
    )
    return set(found.values_list("drop_id", flat=True)) - {None}


def delivery_gauges() -> dict[str, Any]:
    """Notifications `waiting` and `dead` (100,000 at most are counted), `overdue_seconds`."""
    [row] = _sql.dicts("delivery_gauges")
    return row


def feed_age() -> float | None:
    """Seconds since the feed was built; None where it never was."""
    [row] = prepared.fetch(queries("discovery")["feed_age"], {})
    return row[0]


def knows_timezone(name: str) -> bool:
    """Whether PostgreSQL has this time zone, too: its statements reckon in it."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT now() AT TIME ZONE %s", [name])
    except DataError:
        return False
    return True
