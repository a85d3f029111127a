"""What feeds do by themselves: deliver, build, index; decide who is pulled; drop what is idle."""

from datetime import timedelta

from django.conf import settings

from config import daemons, readmodels
from config.jobs import Run, job
from feeds import fanout

daemons.register(daemons.Daemon("feed worker", "feed_worker", lambda: settings.FEEDS_WORKERS))


@job(
    name="refresh_feeds",
    every=timedelta(minutes=1),
    timeout=timedelta(minutes=5),
    description="Deliver, build and index what waits; the feed workers do it at once.",
)
def refresh_feeds(run: Run) -> int:
    """The rows are the steps of delivery and the events indexed."""
    return readmodels.refresh_app("feeds", run)


@job(
    name="decide_delivery",
    every=timedelta(hours=1),
    timeout=timedelta(minutes=10),
    description="Decide from measured rates whose posts are pulled instead of delivered.",
)
def decide_delivery(run: Run) -> int:
    """The rows are the authors for whom that has changed."""
    return fanout.decide_delivery()


@job(
    name="drop_idle_feeds",
    cron="35 2 * * *",
    timeout=timedelta(minutes=30),
    description="Drop the timelines of those who have not read for FEEDS_IDLE_DAYS.",
)
def drop_idle_feeds(run: Run) -> int:
    """The rows are the timelines dropped."""

    def go_on() -> bool:
        run.check()
        return True

    return fanout.drop_idle(go_on=go_on)


@job(
    name="reconcile_feeds",
    timeout=timedelta(hours=2),
    description="Compare kept timelines and the search index with the posts; mend nothing.",
)
def reconcile_feeds(run: Run) -> int:
    """The rows are the differences found."""
    return readmodels.reconcile_app("feeds", run)


@job(
    name="mend_feeds",
    cron="50 3 * * *",
    timeout=timedelta(hours=2),
    description="Compare kept timelines and the search index with the posts, and mend them.",
)
def mend_feeds(run: Run) -> int:
    """The rows are the differences mended."""
    return readmodels.reconcile_app("feeds", run, fix=True)
