"""Matching's read models: how rare each word is, the recent items, the public ones.

Words are folded from the changes that triggers append, so that a refresh costs what changed. The
recent items are a window that moves with time: a native materialized view, taken anew.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson
from django.db import connection, transaction

from config.models import ReadModelState
from config.readmodels import Progress, ReadModel, Reconciled, Refreshed, register
from config.rendering import dumps
from config.sqlfiles import Statements, queries
from matching import projection
from matching import queries as reads

_sql = Statements("matching")

FOLD_CHANGES = 50_000  # a transaction, about a second
SAMPLES = 20
MAX_AGE = timedelta(minutes=60)
PUBLIC = "items_public"
OPEN_TRANSACTIONS = timedelta(minutes=1)  # longer than a request or a batch keeps one open


def public_items(*, kinds: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """The newest open items of these kinds, as everybody may see them; newest first.

    Which they are is as old as the last refresh; one that has changed since shows as it is now,
    one that is gone is left out.
    """
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["newest_public"], {"kinds": list(kinds), "limit": limit})
        ids = [item_id for (item_id,) in cursor.fetchall()]
    return projection.read(ids)


def _waiting_terms() -> int:
    return _sql.value("count_term_changes")


def _refresh_terms(full: bool, progress: Progress) -> Refreshed:
    folded = _fold_terms(progress)
    if not full:
        return Refreshed(folded, changed=folded > 0)
    rebuilt = _compare_terms(mend=True)
    folded += _fold_terms(progress) if rebuilt.count else 0
    return Refreshed(rebuilt.checked, changed=folded > 0)


def _fold_terms(progress: Progress) -> int:
    folded, waiting = 0, _waiting_terms()
    while folded < waiting:  # not until nothing waits: beside a busy import that never comes
        with transaction.atomic():
            _sql.count("lock_terms")
            changes = _sql.value("fold_terms", at_most=FOLD_CHANGES)
            _sql.count("drop_empty_terms")
        if not changes:
            break
        folded += changes
        progress(f"folded {folded:,} of {waiting:,} changes of words")
    return folded


def _reconcile_terms(fix: bool, progress: Progress) -> Reconciled:
    found = _compare_terms(mend=fix)
    if fix:
        _fold_terms(progress)
    return found


def _compare_terms(*, mend: bool) -> Reconciled:
    """Count every word of every live item and compare, in one snapshot: nobody need wait."""
    pending = _waiting_terms()
    with transaction.atomic():
        if mend:  # two at once would both add what is missing
            _sql.count("lock_terms")
        _sql.count("create_compared_terms")
        _sql.count("empty_compared_terms")
        _sql.count("compare_terms")
        count = _sql.value("count_compared_terms")
        with connection.cursor() as cursor:
            cursor.execute(queries("matching")["sample_compared_terms"], {"limit": SAMPLES})
            samples = [
                f"{kind} {term!r}: {stored} is counted, should be {truth}"
                for kind, term, stored, truth in cursor.fetchall()
            ]
        if mend:
            _sql.count("mend_terms")
    return Reconciled(_sql.value("count_terms"), count, samples, pending, fixed=mend)


def _refresh_recent(full: bool, progress: Progress) -> Refreshed:
    with transaction.atomic():
        _sql.count("refresh_recent_items")
        _sql.count("raise_generation", name="mv_recent_items")
    return Refreshed(_sql.value("count_recent_items"))


def _reconcile_recent(fix: bool, progress: Progress) -> Reconciled:
    """Without what changed since the refresh took its snapshot, or was not committed by then."""
    state = ReadModelState.objects.filter(name="mv_recent_items").first()
    with connection.cursor() as cursor:
        since = None
        if state and state.refreshed_at:
            took = timedelta(milliseconds=state.duration_ms or 0)
            since = state.refreshed_at - took - OPEN_TRANSACTIONS
        cursor.execute(queries("matching")["compare_recent_items"], {"since": since})
        found = cursor.fetchall()
    if found and fix:
        _refresh_recent(full=True, progress=progress)
    samples = [f"{item_id}: {what}" for item_id, what in found[:SAMPLES]]
    return Reconciled(_sql.value("count_recent_items"), len(found), samples, fixed=fix)


def _refresh_public(full: bool, progress: Progress) -> Refreshed:
    built = projection.rebuild()
    _sql.count("raise_generation", name=PUBLIC)
    return Refreshed(built)


def _reconcile_public(fix: bool, progress: Progress) -> Reconciled:
    """What the hash says of an item against what PostgreSQL says; what it lacks is no fault."""
    ids = projection.hot()
    stored = projection.stored(ids) if ids else {}
    truth = {
        item_id: orjson.loads(dumps(item))
        for item_id, item in reads.public_items(list(stored)).items()
    }
    wrong = [item_id for item_id, item in stored.items() if truth.get(item_id) != item]
    if fix:
        projection.forget(wrong)
    samples = [f"{item_id}: differs from the item" for item_id in wrong[:SAMPLES]]
    return Reconciled(len(stored), len(wrong), samples, fixed=fix)


def _waiting_public() -> int:
    """How many hot items the hash lacks."""
    return max(0, len(projection.hot()) - (projection.size() or 0))


register(
    ReadModel(
        name="item_terms",
        app="matching",
        description="How many live items of a kind hold a word: the rarity that BM25 needs.",
        refresh=_refresh_terms,
        reconcile=_reconcile_terms,
        backlog=_waiting_terms,
        max_age=MAX_AGE,
    )
)
register(
    ReadModel(
        name="mv_recent_items",
        app="matching",
        description="The items of the last 30 days.",
        refresh=_refresh_recent,
        reconcile=_reconcile_recent,
        backlog=lambda: _sql.value("posted_since_recent"),
        max_age=MAX_AGE,
    )
)
register(
    ReadModel(
        name=PUBLIC,
        app="matching",
        description="What everybody may see of the newest items, in Valkey.",
        refresh=_refresh_public,
        reconcile=_reconcile_public,
        backlog=_waiting_public,
        max_age=MAX_AGE,
    )
)
