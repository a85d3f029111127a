"""What discovery does by itself: make the window, publish, rebuild the feed."""

from datetime import timedelta

from django.conf import settings

from config import daemons, readmodels
from config.jobs import Run, job
from discovery import actions

daemons.register(
    daemons.Daemon("discovery poller", "discovery_poller", lambda: settings.DISCOVERY_POLLERS)
)
daemons.register(
    daemons.Daemon("discovery notifier", "discovery_notifier", lambda: settings.DISCOVERY_NOTIFIERS)
)


@job(
    name="refresh_discovery",
    every=timedelta(minutes=1),
    timeout=timedelta(minutes=5),
    description="Publish what a dead process left unpublished; rebuild the feed where it is old.",
)
def refresh_discovery(run: Run) -> int:
    """The rows are the items of the feed that was built."""
    return readmodels.refresh_app("discovery", run)


@job(
    name="slide_window",
    every=timedelta(minutes=15),
    timeout=timedelta(minutes=5),
    description="Make the buckets of the coming days, for every source; forget silent calendars.",
)
def slide_window(run: Run) -> int:
    """The rows are the buckets made."""
    made = actions.ensure_buckets()
    run.detail["calendars_forgotten"] = actions.forget_calendars()
    return made


@job(
    name="reconcile_discovery",
    cron="50 4 * * *",
    timeout=timedelta(minutes=10),
    description="Compare the feed with what is open; mend nothing.",
)
def reconcile_discovery(run: Run) -> int:
    """The rows are the differences found."""
    return readmodels.reconcile_app("discovery", run)


@job(
    name="mend_discovery",
    timeout=timedelta(minutes=10),
    description="Compare the feed with what is open, and mend what differs.",
)
def mend_discovery(run: Run) -> int:
    """On demand only: staff start it where `reconcile_discovery` found differences."""
    return readmodels.reconcile_app("discovery", run, fix=True)
