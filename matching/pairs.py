"""Matches as rows: one for each pair, whichever side looked, and never one that was dismissed.

The table is partitioned by month, so no unique index can see to that: writers lock the pair.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import connection
from psycopg import sql
from psycopg.types.json import Jsonb

from config.sqlfiles import queries
from matching.kinds import is_seeker, pair_of

if TYPE_CHECKING:
    from matching.scoring import Scored

STANDING = 100  # suggestions of an item that one look scores again
DISMISSED = 1_000  # pairs of an item that a look leaves out; older ones are left out at the end


@dataclass(frozen=True)
class Stored:
    """What a look changed. `owners`: whose items are in pairs that it touched."""

    matches: int
    new: int
    owners: frozenset[int]


class NotLive(Exception):
    """The item that was looked for is not open any more, or deleted."""


class Changed(Exception):
    """An item is not any more what was scored."""


def lock_pairs(pairs: Iterable[tuple[int, int]]) -> None:
    """Lock these (seeker, offer) pairs until the transaction ends, in an order all agree on.

    Locks of the transaction, so that it works through PgBouncer. Take them before locks on rows.
    """
    seekers, offers = zip(*pairs, strict=True) if pairs else ((), ())
    with connection.cursor() as cursor:
        cursor.execute(
            queries("matching")["lock_pairs"], {"seekers": list(seekers), "offers": list(offers)}
        )


def counterparts(*, item_id: int, kind: str) -> tuple[list[int], list[int]]:
    """The other items of an item's pairs: the dismissed ones, newest first, and the suggested ones,
    best first; DISMISSED and STANDING of them at most."""
    parameters = {"item": item_id, "dismissed": DISMISSED, "standing": STANDING}
    with connection.cursor() as cursor:
        cursor.execute(_from("counterparts", kind), parameters)
        dismissed, standing = cursor.fetchone()
    return dismissed, standing


def store(
    *,
    item_id: int,
    kind: str,
    hits: Sequence["Scored"],
    gone: Sequence[int],
    versions: Mapping[int, datetime],
    degraded: str,
) -> Stored:
    """Store what a look for `item_id` found; needs a transaction.

    `hits`: the counterparts that match. `gone`: those whose suggestion is to expire. `versions`:
    when each of them, and the item itself, had changed last when it was scored. Pairs that were
    dismissed, confirmed, or whose other item is not live any more, are left as they are. Raises
    NotLive, Changed.
    """
    seeks = is_seeker(kind)
    others = [hit.item_id for hit in hits]
    mine = [item_id] * len(others)
    seekers, offers = (mine, others) if seeks else (others, mine)
    lock_pairs(list(zip(seekers, offers, strict=True)))
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["lock_live"], {"items": [item_id, *others, *gone]})
        live = {each: (owner, at) for each, owner, at in cursor.fetchall()}
        if item_id not in live:
            raise NotLive(f"item {item_id} is not open")
        # Stored now, it would stay: the look that the change has queued may be over already.
        if moved := [each for each, (_, at) in live.items() if versions.get(each, at) != at]:
            raise Changed(f"item {moved[0]} has changed since it was scored")
        cursor.execute(_from("lock_matches", kind), {"item": item_id, "others": [*others, *gone]})
        cursor.execute(
            queries("matching")["store_matches"],
            {
                "pair": pair_of(kind),
                "seekers": seekers,
                "offers": offers,
                "scores": [hit.score for hit in hits],
                "components": [
                    Jsonb([component.as_dict() for component in hit.components]) for hit in hits
                ],
                "live": list(live),
                "degraded": degraded,
            },
        )
        matches, new = cursor.fetchone()
        if gone:
            cursor.execute(_from("expire_pairs", kind), {"item": item_id, "others": list(gone)})
    return Stored(matches, new, frozenset(owner for owner, _ in live.values()))


def _from(name: str, kind: str) -> sql.Composed:
    """The statement `name` as seen from an item of this kind."""
    mine, theirs = ("seeker_id", "offer_id") if is_seeker(kind) else ("offer_id", "seeker_id")
    return sql.SQL(queries("matching")[name]).format(
        mine=sql.Identifier(mine), theirs=sql.Identifier(theirs)
    )
