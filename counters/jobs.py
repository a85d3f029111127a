"""What the counters do by themselves: fold, compare with the truth."""

from datetime import timedelta

from django.conf import settings

from config import daemons, readmodels
from config.jobs import Run, job

daemons.register(
    daemons.Daemon("counter worker", "counter_worker", lambda: settings.COUNTERS_WORKERS)
)


@job(
    name="fold_counters",
    every=timedelta(minutes=1),
    timeout=timedelta(minutes=5),
    description="Add what waits to the columns; the counter workers do it every second.",
)
def fold_counters(run: Run) -> int:
    """The rows are the deltas folded."""
    return readmodels.refresh_app("counters", run)


@job(
    name="reconcile_counters",
    timeout=timedelta(hours=2),
    description="Compare every count with the rows that it counts; mend nothing.",
)
def reconcile_counters(run: Run) -> int:
    """The rows are the counts that are wrong."""
    return readmodels.reconcile_app("counters", run)


@job(
    name="mend_counters",
    cron="20 3 * * *",
    timeout=timedelta(hours=2),
    description="Compare every count with the rows that it counts, and mend what is wrong.",
)
def mend_counters(run: Run) -> int:
    """The rows are the counts that were wrong."""
    return readmodels.reconcile_app("counters", run, fix=True)
