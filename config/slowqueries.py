"""What statements cost, by pg_stat_statements: the dearest ones, and how they would be planned."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from django.db import DatabaseError, connection, transaction
from psycopg.sql import SQL

from config.logs import first_line
from config.sqlfiles import queries

ORDERS: dict[str, Callable[["Statement"], float]] = {
    "total": lambda one: one.total_ms,
    "mean": lambda one: one.mean_ms,
    "io": lambda one: one.blocks_read,
    "calls": lambda one: one.calls,
}
_PLANNED = re.compile(
    r"\s*(?:/\*.*?\*/\s*|--[^\n]*\n\s*)*(?:SELECT|INSERT|UPDATE|DELETE|WITH|MERGE)\b",
    re.IGNORECASE | re.DOTALL,
)


class NoStatistics(RuntimeError):
    """pg_stat_statements cannot be read; the text says why and what to do."""


@dataclass(frozen=True)
class Statement:
    """What one statement has cost. `blocks_read`: of 8 kB, that were not in memory."""

    id: int
    calls: int
    total_ms: float
    mean_ms: float
    rows: int
    blocks_read: int
    text: str


def dearest(*, by: str, limit: int) -> list[Statement]:
    """The statements of this database that cost most. `by`: a key of ORDERS.

    Raises NoStatistics.
    """
    return sorted(_all(), key=ORDERS[by], reverse=True)[:limit]


def explain(text: str) -> str:
    """The plan for any values of its parameters; why there is none, where it cannot be had.

    Nothing is executed.
    """
    if not _PLANNED.match(text):
        return "has no plan"
    try:
        return "\n".join(line for (line,) in _explain(text, "TEXT"))
    except DatabaseError as error:
        return f"cannot be planned without its values: {first_line(error)}"


def plan(text: str) -> dict[str, Any] | None:
    """The same as data; None where it cannot be had."""
    if not _PLANNED.match(text):
        return None
    try:
        [[found]] = _explain(text, "JSON")
    except DatabaseError:
        return None
    return (orjson.loads(found) if isinstance(found, str) else found)[0]["Plan"]


def reset() -> None:
    """Begin to count anew. Raises NoStatistics."""
    _ask(queries("config")["reset_statement_statistics"])


def _all() -> list[Statement]:
    return [Statement(*row) for row in _ask(queries("config")["statement_statistics"])]


def _ask(statement: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["has_statement_statistics"])
        if not cursor.fetchone()[0]:
            raise NoStatistics(
                "pg_stat_statements is not installed in this database: a superuser runs CREATE "
                "EXTENSION pg_stat_statements."
            )
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
    except DatabaseError as error:
        raise NoStatistics(
            f"pg_stat_statements cannot be read: {first_line(error)}. It needs "
            "shared_preload_libraries = 'pg_stat_statements' and a role with pg_read_all_stats."
        ) from error


def _explain(text: str, form: str) -> list[tuple]:
    with transaction.atomic(), connection.cursor() as cursor:
        # Without parameters, so that a % in the statement is left as it is.
        cursor.execute(SQL("EXPLAIN (GENERIC_PLAN, FORMAT {}) {}").format(SQL(form), SQL(text)))
        return cursor.fetchall()
