"""Reads of watches: plain data for the API and the admin. No writes, no HTTP."""

from typing import Any

from config.sqlfiles import Statements

_sql = Statements("discovery")


def own_watch(*, watch_id: int, user_id: int) -> dict[str, Any] | None:
    """A person's watch with the ids of its venues; None for another's."""
    rows = _sql.dicts("own_watches", user=user_id, watch=watch_id, before=None, limit=1)
    return _watch(rows[0]) if rows else None


def own_watches(
    *, user_id: int, limit: int, before: int | None = None
) -> tuple[list[dict[str, Any]], int | None]:
    """A person's watches, newest first, behind the id `before`; and the last id if more follow."""
    rows = _sql.dicts("own_watches", user=user_id, watch=None, before=before, limit=limit + 1)
    page = rows[:limit]
    return [_watch(row) for row in page], page[-1]["id"] if len(rows) > limit else None


def notifications(
    *, watch_id: int, limit: int, before: int | None = None
) -> tuple[list[dict[str, Any]], int | None]:
    """What a watch told, the newest drop first, behind the drop `before`; and the last drop if more
    follow. `drop` is None once it is pruned."""
    rows = _sql.dicts("watch_notifications", watch=watch_id, before=before, limit=limit + 1)
    page = rows[:limit]
    last = page[-1]["position"] if len(rows) > limit else None
    return [_notification(row) for row in page], last


def _watch(row: dict[str, Any]) -> dict[str, Any]:
    clocks = {name: row[name] or None for name in ("time_from", "time_to")}
    quiet = {name: row[name] and f"{row[name]:%H:%M}" for name in ("quiet_from", "quiet_to")}
    return row | clocks | quiet


def _notification(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("id", "state", "created_at", "told_at", "attempts", "error", "message_id")
    drop = None
    if row["drop_id"] is not None:
        of_drop = (
            "event_type", "source", "slot_id", "starts_at", "local_time", "party_min", "party_max",
            "opened_at", "closed_at",
        )  # fmt: skip
        venue = {"id": row["venue_id"]} | {name: row[name] for name in ("key", "name", "city")}
        drop = {"id": row["drop_id"]} | {name: row[name] for name in of_drop} | {"venue": venue}
    return {name: row[name] for name in kept} | {
        "already_gone": row["already_gone"],
        "drop": drop,
    }
