"""Which indexes are of no use, and which are missing. Says what to run, and runs nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from config import slowqueries
from config.slowqueries import NoStatistics
from config.sqlfiles import Statements

_sql = Statements("config")

LEAST_BYTES = 1024 * 1024  # a smaller index is not worth a word
LEAST_SCANS = 50
LEAST_ROWS = 10_000
STATEMENTS = 200  # looked at for what reads a table whole
_COMPARED = re.compile(r"\(?(\w+) (=|<|>|<=|>=|~~|IN) ")


@dataclass(frozen=True)
class Advice:
    """`kind`: unused, duplicate, redundant, invalid, foreign key or sequential scan. `run`: the
    statements, in order; none where somebody has to think first."""

    kind: str
    table: str
    what: str
    run: list[str]


@dataclass(frozen=True)
class _Index:
    name: str
    table: str
    is_partitioned: bool
    is_unique: bool
    is_valid: bool
    is_constraint: bool
    method: str
    keys: int
    parts: list[str]
    included: list[str]
    predicate: str
    scans: int
    bytes: int


def advise() -> list[Advice]:
    """All advice for this database's own tables. Raises DatabaseError."""
    indexes = [_Index(*row) for row in _sql.rows("all_indexes")]
    return [
        *_invalid(indexes),
        *_superfluous(indexes),
        *_unused(indexes),
        *_foreign_keys(),
        *_sequential_scans(),
    ]


def since() -> datetime:
    """Since when the use of indexes is counted here. A standby counts its own."""
    [[moment]] = _sql.rows("statistics_since")
    return moment


def _invalid(indexes: list[_Index]) -> Iterator[Advice]:
    for one in indexes:
        if not one.is_valid:
            yield Advice(
                "invalid", one.table, f"{one.name} is what a failed build left", [_drop(one)]
            )


def _superfluous(indexes: list[_Index]) -> Iterator[Advice]:
    """Of two with the same keys the second, and those that another begins with."""
    valid = [one for one in indexes if one.is_valid]
    for one in valid:
        if one.is_unique or one.is_constraint:
            continue
        for other in valid:
            if other is one or not _covers(other, one):
                continue
            same = other.parts == one.parts and set(other.included) == set(one.included)
            if same and not other.is_unique and other.name > one.name:
                continue  # of the two, the later name goes
            kind = "duplicate" if same else "redundant"
            yield Advice(kind, one.table, f"{one.name}: {other.name} does the same", [_drop(one)])
            break


def _covers(other: _Index, one: _Index) -> bool:
    """Whether `other` serves each search that `one` serves."""
    if (other.table, other.method, other.predicate) != (one.table, one.method, one.predicate):
        return False
    if one.method != "btree":
        return other.parts == one.parts
    return other.parts[: one.keys] == one.parts and set(one.included) <= {
        *other.included,
        *(part.rsplit(" ", 3)[0] for part in other.parts),
    }


def _unused(indexes: list[_Index]) -> Iterator[Advice]:
    for one in indexes:
        if one.scans == 0 and one.is_valid and one.bytes >= LEAST_BYTES:
            if one.is_unique or one.is_constraint:
                continue
            size = one.bytes / 2**20
            yield Advice(
                "unused", one.table, f"{one.name}, {size:,.0f} MB, was never used", [_drop(one)]
            )


def _drop(one: _Index) -> str:
    if one.is_partitioned:  # CONCURRENTLY is not possible there
        return f"SET lock_timeout = '3s'; DROP INDEX {one.name};"
    return f"DROP INDEX CONCURRENTLY {one.name};"


def _foreign_keys() -> Iterator[Advice]:
    for name, table, is_partitioned, columns, refers_to, rows in _sql.rows(
        "foreign_keys_without_index"
    ):
        yield Advice(
            "foreign key",
            table,
            f"{name}: a delete in {refers_to} reads all of {table} (about {rows:,} rows)",
            _create(table, columns, is_partitioned=is_partitioned),
        )


def _sequential_scans() -> Iterator[Advice]:
    tables = _sql.rows("tables_read_whole", scans=LEAST_SCANS, rows=LEAST_ROWS)
    compared = _compared_columns({table for table, _, _ in tables}) if tables else {}
    for table, scans, rows_each in tables:
        columns = compared.get(table, [])
        why = (
            f" for {', '.join(columns)}" if columns else "; `slow_queries --explain` shows by what"
        )
        yield Advice(
            "sequential scan",
            table,
            f"{table} was read whole {scans:,} times, {rows_each:,} rows each{why}",
            _create(table, columns, is_partitioned=False) if columns else [],
        )


def _compared_columns(tables: set[str]) -> dict[str, list[str]]:
    """By what the statements that read these tables whole filter them."""
    found: dict[str, list[str]] = {}
    try:
        statements = slowqueries.dearest(by="total", limit=STATEMENTS)
    except NoStatistics:
        return found
    for statement in statements:
        if not any(table in statement.text for table in tables):
            continue
        for node in _nodes(slowqueries.plan(statement.text)):
            table = node.get("Relation Name")
            if node["Node Type"] == "Seq Scan" and table in tables and table not in found:
                columns = _columns(node.get("Filter", ""))
                if columns:
                    found[table] = columns[:3]
    return found


def _columns(condition: str) -> list[str]:
    """What a plan's filter compares: for an index, what is equal before what is a range."""
    found = sorted(_COMPARED.findall(condition), key=lambda one: one[1] not in ("=", "IN"))
    return list(dict.fromkeys(name for name, _ in found))


def _nodes(plan: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if plan:
        yield plan
        for below in plan.get("Plans", ()):
            yield from _nodes(below)


def _create(table: str, columns: list[str], *, is_partitioned: bool) -> list[str]:
    listed = ", ".join(columns)
    name = f"{table}_{'_'.join(columns)}_idx"[:63]
    if not is_partitioned:
        return [f"CREATE INDEX CONCURRENTLY {name} ON {table} ({listed});"]
    return [
        f"CREATE INDEX {name} ON ONLY {table} ({listed});",
        f"-- for each partition P: CREATE INDEX CONCURRENTLY P_{name} ON P ({listed});",
        f"-- then: ALTER INDEX {name} ATTACH PARTITION P_{name};",
    ]
