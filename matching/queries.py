"""Reads of matching: plain data for the API and the admin. No writes, no HTTP.

Times are aware, distances in metres, places in degrees. What others may see of an item is
`PUBLIC_FIELDS`: no owner, and a place no finer than a geohash of six characters (about 1.2 km by
0.6 km).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from psycopg import sql

from config.sqlfiles import dicts, queries
from matching.kinds import is_seeker
from matching.models import Item, Match

LISTED_STATES = (Match.State.SUGGESTED, Match.State.CONFIRMED)
BADGE_CAP = 1_000  # badges count up to here
BADGE_ITEMS = 200  # the newest open items whose matches badges count
CELL_ITEMS = 200  # drawn in a cell view

PUBLIC_FIELDS = (
    "id", "kind", "status", "category", "title", "description", "attributes", "country", "city",
    "cell", "happened_on", "created_at",
)  # fmt: skip
OWN_FIELDS = (
    "id", "kind", "status", "category", "title", "description", "attributes", "country", "city",
    "latitude", "longitude", "geohash", "happened_on", "created_at", "updated_at", "expires_at",
)  # fmt: skip
_EXPRESSIONS = {"cell": sql.SQL("left(i.geohash, 6) AS cell")}


@dataclass(frozen=True)
class Page:
    """Rows in order; `after` is the position of the last one where more follow it."""

    rows: list[dict[str, Any]]
    after: tuple[Any, int] | None


def own_item(*, item_id: int, owner_id: int) -> dict[str, Any] | None:
    """An item as its owner sees it; None for another's and a deleted one."""
    rows = dicts(
        _composed("own_item", columns=_columns(OWN_FIELDS)), {"item": item_id, "owner": owner_id}
    )
    return _item(rows[0]) if rows else None


def own_items(
    *,
    owner_id: int,
    status: str | None = None,
    kind: str | None = None,
    limit: int,
    after: tuple[datetime, int] | None = None,
) -> Page:
    """An owner's items, newest first, behind the position `after` (created_at, id)."""
    rows = dicts(
        _composed("own_items", columns=_columns(OWN_FIELDS)),
        {
            "owner": owner_id,
            "statuses": [status] if status else list(Item.Status.values),
            "kind": kind,
            "limit": limit + 1,
        }
        | _after("after_at", after),
    )
    return _page([_item(row) for row in rows], limit, "created_at", "id")


def public_items(
    ids: Sequence[int], *, status: str = Item.Status.OPEN
) -> dict[int, dict[str, Any]]:
    """What everybody may see of these items, by id; deleted and other ones are missing."""
    rows = dicts(
        _composed("public_items", columns=_columns(PUBLIC_FIELDS)),
        {"items": list(ids), "status": status},
    )
    return {row["id"]: _item(row) for row in rows}


def item_matches(
    *,
    item_id: int,
    kind: str,
    states: Iterable[str] = LISTED_STATES,
    limit: int,
    after: tuple[Decimal, int] | None = None,
) -> Page:
    """The matches of an item of this kind, best first, behind the position (score, id)."""
    mine, theirs = ("seeker", "offer") if is_seeker(kind) else ("offer", "seeker")
    statement = _composed(
        "item_matches",
        columns=_columns(PUBLIC_FIELDS),
        mine=sql.Identifier(f"{mine}_id"),
        theirs=sql.Identifier(f"{theirs}_id"),
        my_confirmation=sql.Identifier(f"{mine}_confirmed_at"),
        their_confirmation=sql.Identifier(f"{theirs}_confirmed_at"),
    )
    rows = dicts(
        statement,
        {"item": item_id, "states": list(states), "limit": limit + 1}
        | _after("after_score", after),
    )
    return _page([_match(row) for row in rows], limit, "score", "id")


def own_match(*, match_id: int, owner_id: int) -> dict[str, Any] | None:
    """A match of which this person owns a side, seen from there; None for anybody else's."""
    rows = dicts(
        _composed("own_match", columns=_columns(PUBLIC_FIELDS)),
        {"match": match_id, "owner": owner_id},
    )
    return _match(rows[0]) if rows else None


def own_match_job(*, task_id: UUID, owner_id: int) -> dict[str, Any] | None:
    """A job of this owner; None for another's and one that is gone.

    `ahead`: how many jobs come before it, None unless it waits; `result` as the worker left it.
    """
    rows = dicts(queries("matching")["own_match_job"], {"task": task_id, "owner": owner_id})
    if not rows:
        return None
    return rows[0] | {"result": _json(rows[0]["result"])}


def badges(*, user_id: int) -> dict[str, int]:
    """A person's counts, each up to BADGE_CAP."""
    [row] = dicts(
        queries("matching")["badges"],
        {
            "user": user_id,
            "items": BADGE_CAP,
            "items_looked_at": BADGE_ITEMS,
            "matches": BADGE_CAP,
            "notifications": BADGE_CAP,
        },
    )
    return row


def notifications(
    *,
    user_id: int,
    unread: bool = False,
    limit: int,
    after: tuple[datetime, int] | None = None,
) -> Page:
    """What a person was told, newest first, behind the position (created_at, id)."""
    rows = dicts(
        queries("matching")["notifications"],
        {"user": user_id, "unread": unread, "limit": limit + 1} | _after("after_at", after),
    )
    return _page([_notification(row) for row in rows], limit, "created_at", "id")


def items_in_cells(*, cells: Sequence[str], except_item: int) -> list[dict[str, Any]]:
    """The newest live items of these cells (6 characters each), CELL_ITEMS at most."""
    return dicts(
        queries("matching")["items_in_cells"],
        {"cells": list(cells), "item": except_item, "limit": CELL_ITEMS},
    )


def queue_state() -> dict[str, Any]:
    """What waits by priority, what runs, what is stuck, and why the newest failures failed."""
    statements = queries("matching")
    [at_work] = dicts(statements["queue_at_work"], {})
    return {
        "waiting": dicts(statements["queue_by_priority"], {}),
        "running": at_work["running"],
        "stuck": at_work["stuck"],
        "failures": dicts(statements["failure_reasons"], {}),
    }


def _composed(name: str, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(queries("matching")[name]).format(**parts)


def _columns(fields: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(
        _EXPRESSIONS.get(field, sql.Identifier("i", field)) for field in fields
    )


def _after(name: str, position: tuple[Any, int] | None) -> dict[str, Any]:
    key, row_id = position or (None, None)
    return {name: key, "after_id": row_id}


def _page(rows: list[dict[str, Any]], limit: int, key: str, row_id: str) -> Page:
    more, rows = len(rows) > limit, rows[:limit]
    return Page(rows, (rows[-1][key], rows[-1][row_id]) if more else None)


def _json(text: str | None) -> Any:
    """What Django hands over of a jsonb column in a raw cursor: its text."""
    return None if text is None else orjson.loads(text)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"attributes": _json(row["attributes"])}


def _match(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["match_id"],
        "pair": row["pair"],
        "state": row["state"],
        "score": row["score"],
        "components": _json(row["components"]),
        "degraded": row["degraded"],
        "confirmed_at": row["confirmed_at"],
        "other_confirmed_at": row["other_confirmed_at"],
        "found_at": row["found_at"],
        "scored_at": row["scored_at"],
        "item": _item({field: row[field] for field in PUBLIC_FIELDS}),
    }


def _notification(row: dict[str, Any]) -> dict[str, Any]:
    def item(side: str) -> dict[str, Any] | None:
        if row[f"{side}_id"] is None:
            return None
        return {"id": row[f"{side}_id"], "title": row[f"{side}_title"]}

    kept = ("id", "subject", "created_at", "read_at")
    return {name: row[name] for name in kept} | {"item": item("item"), "other": item("other")}
