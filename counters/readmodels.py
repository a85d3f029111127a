"""The counters as a read model: columns that triggers and the fold keep equal to their sources."""

from datetime import timedelta

from config.readmodels import Progress, ReadModel, Reconciled, Refreshed, register
from counters import actions, declared, queries
from counters.declared import Counter


def _refresh(full: bool, progress: Progress) -> Refreshed:
    """Folds what waits; `full` counts everything anew, while writers go on."""
    rows = actions.fold()
    if full:
        rows += _reconcile(True, progress).count
        rows += actions.fold()
    return Refreshed(rows, changed=bool(rows))


def _reconcile(fix: bool, progress: Progress) -> Reconciled:
    checked = count = pending = 0
    samples: list[str] = []
    for counter in declared.all().values():
        if not isinstance(counter, Counter):
            continue  # its events leave no rows to compare with
        found = actions.compare(counter=counter, mend=fix, progress=progress)
        checked += found.targets
        count += found.wrong
        pending += found.waiting
        samples += found.samples
    return Reconciled(checked, count, samples[: actions.SAMPLES], pending, fixed=fix)


register(
    ReadModel(
        name="counters",
        app="counters",
        description="The counts in the columns of what they count for",
        refresh=_refresh,
        reconcile=_reconcile,
        backlog=queries.waiting,
        max_age=timedelta(minutes=10),
        refresh_job="fold_counters",
    )
)
