"""Counters on the admin's first page: what waits to be counted, and what is counted wrong."""

from collections.abc import Iterable

from django.urls import reverse

from config.admin.base import span
from config.vitals import Question, Vital, register
from counters import queries, stream

LATE_SECONDS = 30


@register
def counts() -> Iterable[Vital]:
    """What waits to be counted, and what is counted wrong."""
    counters = queries.overview()
    yield from _waiting(counters)
    yield _drift(counters)


def _waiting(counters: list[queries.Overview]) -> Iterable[Vital]:
    deltas = sum(one.waiting for one in counters)
    oldest = max((one.oldest_seconds or 0.0 for one in counters), default=0.0)
    link = reverse("admin:counters_counterstate_changelist")
    yield Vital(
        key="counters.deltas",
        question=Question.STUCK,
        title="Counts to fold",
        number=deltas,
        value=f"{deltas:,} waiting",
        note=f"the oldest for {span(oldest)}" if deltas else "",
        link=link,
        help="Look at the counters",
        level="warn" if oldest > LATE_SECONDS else "ok",
        permission="counters.view_counterstate",
    )
    lag = stream.lag()
    late = lag is not None and lag["seconds"] > LATE_SECONDS
    yield Vital(
        key="counters.stream",
        question=Question.STUCK,
        title="Events of the stream",
        number=None if lag is None else lag["entries"],
        value="Valkey is away" if lag is None else f"{lag['entries']:,} batches waiting",
        note=f"the oldest for {span(lag['seconds'])}" if late else "",
        link=link,
        help="Look at the counters",
        level="bad" if lag is None else "warn" if late else "ok",
        permission="counters.view_counterstate",
    )
    dead = queries.dead_letters()
    yield Vital(
        key="counters.dead_letters",
        question=Question.STUCK,
        title="Events that cannot be counted",
        number=dead,
        value=f"{dead:,}",
        link=reverse("admin:counters_deadletter_changelist"),
        help="Retry them",
        level="warn" if dead else "ok",
        permission="counters.view_deadletter",
    )


def _drift(counters: list[queries.Overview]) -> Vital:
    compared = [one for one in counters if one.divergence is not None]
    wrong = sum(one.divergence for one in compared)
    return Vital(
        key="counters.divergence",
        question=Question.DRIFTS,
        title="Counters",
        number=wrong if compared else None,
        value=f"wrong by {wrong:,}" if wrong else "exact" if compared else "not compared yet",
        note=", ".join(one.name for one in compared if one.divergence),
        link=reverse("admin:counters_counterstate_changelist"),
        help="Mend them",
        level="bad" if wrong else "ok" if compared else "quiet",
        permission="counters.view_counterstate",
    )
