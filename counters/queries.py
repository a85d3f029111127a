"""Reads of counters, each in one statement: column and waiting belong to one snapshot."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from config.sqlfiles import queries
from counters import declared, statements
from counters.declared import Counter
from counters.models import CounterState, DeadLetter

BACKLOG_LOOKED_AT = 100_000


@dataclass(frozen=True)
class Overview:
    """How one counter stands. `mode` "" and no comparison: it counts events of the stream."""

    name: str
    title: str
    mode: str
    switched_at: datetime | None
    waiting: int
    oldest_seconds: float | None
    reconciled_at: datetime | None
    compared: int | None
    wrong: int | None
    divergence: int | None


def exact(name: str, ids: Collection[int]) -> dict[int, int]:
    """The exact values of a counter, by target; targets that do not exist are left out.

    Raises UnknownCounter.
    """
    counter = declared.get(name)
    with connection.cursor() as cursor:
        cursor.execute(statements.exact(counter), {"ids": list(ids)})
        return dict(cursor.fetchall())


def overview() -> list[Overview]:
    """Every declared counter, by name."""
    states = CounterState.objects.in_bulk()
    waiting = {key: rest for key, *rest in _backlog()}
    rows = []
    for counter in declared.all().values():
        count, oldest = waiting.get(counter.key, (0, None))
        state = states.get(counter.key) if isinstance(counter, Counter) else None
        rows.append(
            Overview(
                name=counter.name,
                title=counter.title,
                mode=state.mode if state else "",
                switched_at=state.switched_at if state else None,
                waiting=count,
                oldest_seconds=oldest,
                reconciled_at=state.reconciled_at if state else None,
                compared=state.compared if state else None,
                wrong=state.wrong if state else None,
                divergence=state.divergence if state else None,
            )
        )
    return rows


def waiting() -> int:
    """How many deltas wait to be folded, up to BACKLOG_LOOKED_AT."""
    return sum(count for _, count, _ in _backlog())


def dead_letters() -> int:
    """How many dead letters lie there, up to BACKLOG_LOOKED_AT."""
    return DeadLetter.objects.all()[:BACKLOG_LOOKED_AT].count()


def _backlog() -> list[tuple[int, int, float]]:
    with connection.cursor() as cursor:
        cursor.execute(queries("counters")["backlog"], {"most": BACKLOG_LOOKED_AT})
        return cursor.fetchall()
