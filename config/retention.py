"""Retention: small batches by primary key, a time budget, resumable; whole partitions where it can.

A domain declares in `<app>/retention.py` which rows expire. Partitioned tables need no rule
here: what `config.partitions` declares with `keep` is dropped by the same call. What must be in
the archive first and is not stays, and the rule counts as incomplete.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.utils import timezone
from django.utils.module_loading import autodiscover_modules
from psycopg import sql

from config import partitions

BATCH_ROWS = 5_000
DEFAULT_BUDGET = timedelta(minutes=5)

logger = logging.getLogger("spyglass.retention")


class UnknownRule(KeyError):
    """No retention rule or partitioned table of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Rule:
    """Rows of `table` that expire.

    `condition` is SQL over the table's columns with named parameters, `parameters()` gives their
    values at run time, or None where this rule is switched off. `primary_key`: its columns.
    `batch`: rows of a transaction, fewer where each takes many others along.
    """

    name: str
    table: str
    condition: str
    parameters: Callable[[], dict | None]
    primary_key: tuple[str, ...] = ("id",)
    batch: int = BATCH_ROWS


def days_before(setting: str) -> Callable[[], dict | None]:
    """Parameters of a rule: `before`, as many days ago as the setting says; none where it is 0."""

    def parameters() -> dict | None:
        days = getattr(settings, setting)
        return {"before": timezone.now() - timedelta(days=days)} if days else None

    return parameters


@dataclass(frozen=True)
class Pruned:
    """What one rule did. `rows` counts rows, or partitions where `partitions` is true.

    `complete` is False where the time budget ended first: the next run goes on.
    """

    name: str
    rows: int
    complete: bool = True
    partitions: bool = False


_rules: dict[str, Rule] = {}


def register(rule: Rule) -> Rule:
    """Declare a retention rule. Called at import of an app's `retention.py`."""
    _rules[rule.name] = rule
    return rule


def all() -> dict[str, Rule]:
    """Every declared rule by name, in the order in which they must run."""
    autodiscover_modules("retention", "housekeeping")
    return dict(_rules)


def names() -> list[str]:
    """What `prune` accepts: rule names and partitioned tables."""
    return [*all(), *partitions.all()]


def prune(
    chosen: Iterable[str] | None = None,
    *,
    budget: timedelta = DEFAULT_BUDGET,
    dry_run: bool = False,
    progress: Callable[[str, int], None] = lambda name, rows: None,
) -> list[Pruned]:
    """Remove what has expired, rule by rule, and stop at `budget`.

    Each batch is a transaction of its own. With `dry_run` it only counts. Raises UnknownRule.
    Must run outside a transaction.
    """
    wanted = list(chosen or names())
    for name in wanted:
        if name not in names():
            raise UnknownRule(f"no retention rule {name!r}; known: {', '.join(names())}")
    deadline = time.monotonic() + budget.total_seconds()
    rules, tables = all(), partitions.all()
    report = [_prune_rows(rules[n], deadline, dry_run, progress) for n in wanted if n in rules]
    report += [_prune_partitions(n, deadline, dry_run, progress) for n in wanted if n in tables]
    return report


def _prune_rows(rule: Rule, deadline: float, dry_run: bool, progress) -> Pruned:
    parameters = rule.parameters()
    if parameters is None:
        return Pruned(rule.name, 0)
    table = sql.Identifier(rule.table)
    condition = sql.SQL(rule.condition)
    with connection.cursor() as cursor:
        if dry_run:
            count = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(table, condition)
            cursor.execute(count, parameters)
            return Pruned(rule.name, cursor.fetchone()[0])
        # The batch is settled first: joined to it, a plan could look for it again for each row.
        batch = sql.SQL(
            "WITH batch AS MATERIALIZED ("
            "SELECT {key} FROM {table} WHERE {condition} LIMIT {limit} FOR UPDATE SKIP LOCKED)"
            " DELETE FROM {table} USING batch WHERE ({own}) = ({theirs})"
        ).format(
            table=table,
            key=sql.SQL(", ").join(map(sql.Identifier, rule.primary_key)),
            own=sql.SQL(", ").join(sql.Identifier(rule.table, one) for one in rule.primary_key),
            theirs=sql.SQL(", ").join(sql.Identifier("batch", one) for one in rule.primary_key),
            condition=condition,
            limit=sql.Literal(rule.batch),
        )
        removed = 0
        while time.monotonic() < deadline:
            cursor.execute(batch, parameters)
            removed += cursor.rowcount
            progress(rule.name, removed)
            if cursor.rowcount < rule.batch:
                return Pruned(rule.name, removed)
    return Pruned(rule.name, removed, complete=False)


def _prune_partitions(table: str, deadline: float, dry_run: bool, progress) -> Pruned:
    due = partitions.expired(table)
    if dry_run:
        return Pruned(table, len(due), partitions=True)
    dropped, complete = len(partitions.drop_leftovers(table)), True
    for part in due:
        if time.monotonic() >= deadline:
            return Pruned(table, dropped, complete=False, partitions=True)
        try:
            partitions.drop(table, part)
        except partitions.NotArchived as reason:
            logger.warning("%s", reason)
            complete = False
            continue
        dropped += 1
        progress(table, dropped)
    return Pruned(table, dropped, complete=complete, partitions=True)
