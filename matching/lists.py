"""Lists (IVFFlat) of the vectors of large sides, which find what the graph leaves out of reach.

Lists are trained on the vectors that are there, so an index made beforehand would be of no use: a
job makes it once a side is large, and anew when the side has doubled. The new one stands before the
old one goes.
"""

from collections.abc import Callable
from typing import NamedTuple

from django.db import connection
from psycopg import sql

from config.sqlfiles import queries
from matching import vectors

ROWS_PER_LIST = 1_000  # as pgvector's documentation has it, up to a million rows
_NAME = "idx_items_embedding_ivfflat_{kind}_{lists}"
_VECTOR_BYTES = 800


class _Index(NamedTuple):
    name: str
    kind: str
    lists: int
    is_valid: bool


def train(progress: Callable[[], None] = lambda: None) -> list[str]:
    """Make the lists that are due, and drop what they replace; the names of those made.

    Not inside a transaction. Killed, it leaves an invalid index, which the next run drops. Raises
    DatabaseError, also where a transaction stays open for longer than `lock_timeout`.
    """
    made = []
    standing = _drop_invalid(_standing())
    for kind, lists in _wanted().items():
        progress()
        old = [index for index in standing if index.kind == kind]
        if any(index.lists * 2 > lists for index in old):
            continue
        name = _NAME.format(kind=kind, lists=lists)
        _execute(
            "CREATE INDEX CONCURRENTLY {} ON item_embeddings"
            " USING ivfflat (text_embedding halfvec_ip_ops) WITH (lists = {}) WHERE kind = {}",
            sql.Identifier(name), sql.Literal(lists), sql.Literal(kind),
        )  # fmt: skip
        made.append(name)
        for index in old:
            _drop(index)
    return made


def _wanted() -> dict[str, int]:
    """How many lists each large side should have."""
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["vectors_by_kind"])
        sides = dict(cursor.fetchall())
        cursor.execute("SELECT pg_size_bytes(current_setting('maintenance_work_mem'))")
        memory = cursor.fetchone()[0]
    return {
        kind: _fitting(rows // ROWS_PER_LIST, memory)
        for kind, rows in sides.items()
        if rows >= vectors.LARGE_SIDE
    }


def _fitting(lists: int, memory: int) -> int:
    """As many of `lists` as k-means can make in `memory` bytes (maintenance_work_mem)."""
    while lists > 1 and _training_bytes(lists) > memory:
        lists = lists * 9 // 10
    return max(1, lists)


def _training_bytes(lists: int) -> int:
    """What pgvector's k-means (Elkan) takes: samples, their bounds to each centre, centres."""
    samples = max(10_000, 50 * lists)
    return samples * (_VECTOR_BYTES + 4 * lists) + 4 * lists * (_VECTOR_BYTES + lists)


def _standing() -> list[_Index]:
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["vector_lists"])
        return [_Index(*row) for row in cursor.fetchall()]


def _drop_invalid(standing: list[_Index]) -> list[_Index]:
    for index in standing:
        if not index.is_valid:
            _drop(index)
    return [index for index in standing if index.is_valid]


def _drop(index: _Index) -> None:
    _execute("DROP INDEX CONCURRENTLY IF EXISTS {}", sql.Identifier(index.name))


def _execute(statement: str, *parts: sql.Composable) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(*parts))
