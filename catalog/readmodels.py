"""The catalog's read models: lines with their price points, cards, categories.

The SQL stands in `sql/0003_fold.sql`. Here is how much of it one transaction does, and what is
told to people.
"""

import json
from collections.abc import Callable
from datetime import timedelta

from django.db import connection, transaction
from psycopg import sql

from config.partitions import estimated_rows
from config.readmodels import Progress, ReadModel, Reconciled, Refreshed, register
from config.sqlfiles import Statements, queries

_sql = Statements("catalog")

FOLD_ROWS = 50_000  # changes a transaction: about a second, and what a kill costs at most
SLICE_SNAPSHOTS = 1_000_000  # snapshots computed at a time by --full and reconcile
SAMPLES = 20
MAX_AGE = timedelta(minutes=60)  # the requirements ask for a freshness of 15 to 60 minutes


def backlog() -> int:
    """How many snapshots wait to be folded."""
    return _sql.value("count_changes")


def _refresh_lines(full: bool, progress: Progress) -> Refreshed:
    folded, waiting = 0, backlog()
    while folded < waiting:  # not until nothing waits: beside a busy ingest that never comes
        with connection.cursor() as cursor:
            cursor.execute(queries("catalog")["fold_changes"], {"at_most": FOLD_ROWS})
            changes, _, _ = cursor.fetchone()
        if not changes:
            break
        folded += changes
        progress(f"folded {folded:,} of {waiting:,} snapshots")
    if not full:
        return Refreshed(folded, changed=folded > 0)
    rebuilt = _compare_lines(mend=True, progress=progress)
    return Refreshed(rebuilt.checked, changed=folded + rebuilt.count > 0)


def _reconcile_lines(fix: bool, progress: Progress) -> Reconciled:
    return _compare_lines(mend=fix, progress=progress)


def _compare_lines(*, mend: bool, progress: Progress) -> Reconciled:
    """Compute every line from its history, slice by slice, and compare; mend what differs.

    The fold is locked out during a slice, writers never are: what they add is in the change log,
    and left out on both sides.
    """
    slices = max(1, -(-estimated_rows("product_price_snapshots") // SLICE_SNAPSHOTS))
    checked = count = pending = 0
    samples: list[str] = []
    for number in range(slices):
        with transaction.atomic():
            _sql.count("lock_fold")
            _sql.count("load_history", slices=slices, slice=number)
            pending = max(pending, backlog())
            _sql.count("compute_lines")
            found = _sql.value("compare_lines")
            checked += _sql.value("count_scope")
            if found:
                samples += _samples()
            if found and mend:
                _sql.count("mend_lines")
                _sql.count("spoil_cards")
        count += found
        progress(f"compared {checked:,} lines, {count:,} differences")
    return Reconciled(checked, count, samples[:SAMPLES], pending, fixed=mend)


def _samples() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(queries("catalog")["sample_differences"], {"limit": SAMPLES})
        return [_difference(*row) for row in cursor.fetchall()]


def _difference(key: str, stored: str | None, truth: str | None) -> str:
    """One difference in words, of two rows as JSON: only the columns that differ."""
    if stored is None or truth is None:
        return f"{key}: {'missing' if stored is None else 'should not be there'}"
    found = json.loads(stored)
    parts = [
        f"{column} is {found[column]}, should be {value}"
        for column, value in json.loads(truth).items()
        if found[column] != value
    ]
    return f"{key}: {'; '.join(parts)}"


def _refresh_cards(full: bool, progress: Progress) -> Refreshed:
    return _refresh_table("project_cards", "catalog_slug_summary", full)


def _refresh_categories(full: bool, progress: Progress) -> Refreshed:
    return _refresh_table("count_categories", "catalog_category_counts", full)


def _refresh_table(statement: str, table: str, full: bool) -> Refreshed:
    changed = _sql.value(statement, force=full)
    return Refreshed(_count(table) if changed else 0, changed=changed)


def _count(table: str) -> int:
    with connection.cursor() as cursor:
        count = sql.SQL(queries("catalog")["count_table"]).format(table=sql.Identifier(table))
        cursor.execute(count)
        return cursor.fetchone()[0]


def _reconciler(table: str, behind: str, compare: str, refresh: str) -> Callable:
    """Compares a table or view with its definition, where nothing is known to wait for it."""

    def reconcile(fix: bool, progress: Progress) -> Reconciled:
        with transaction.atomic():
            _sql.count("lock_fold")
            pending = _sql.value(behind)
            if pending and not fix:
                return Reconciled(checked=0, count=0, pending=pending)
            with connection.cursor() as cursor:
                cursor.execute(queries("catalog")[compare])
                found = cursor.fetchall()
            if found and fix:
                _sql.value(refresh, force=True)
        samples = [f"{key}: {what}" for key, what in found[:SAMPLES]]
        return Reconciled(_count(table), len(found), samples, fixed=fix)

    return reconcile


register(
    ReadModel(
        name="catalog_slug_seller_summary",
        app="catalog",
        description="One row per product, seller and currency, and its price points per day.",
        refresh=_refresh_lines,
        reconcile=_reconcile_lines,
        backlog=backlog,
        max_age=MAX_AGE,
    )
)
register(
    ReadModel(
        name="catalog_slug_summary",
        app="catalog",
        description="One card per product, led by the seller that staff prefer.",
        refresh=_refresh_cards,
        reconcile=_reconciler(
            "catalog_slug_summary", "cards_behind", "compare_cards", "project_cards"
        ),
        backlog=lambda: _sql.value("cards_behind"),
        max_age=MAX_AGE,
    )
)
register(
    ReadModel(
        name="catalog_categories",
        app="catalog",
        description="How many products each category has.",
        refresh=_refresh_categories,
        reconcile=_reconciler(
            "catalog_category_counts", "categories_behind", "compare_categories", "count_categories"
        ),
        backlog=lambda: _sql.value("categories_behind"),
        max_age=MAX_AGE,
    )
)
