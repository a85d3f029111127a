"""Discovery's read model: the feed. What is open now is no read model, but the truth."""

from datetime import timedelta

import orjson
from django.conf import settings

from config.readmodels import Progress, ReadModel, Reconciled, Refreshed, register
from discovery import feed
from discovery import queries as reads
from discovery.actions import publish_drops
from discovery.models import DropEvent, FeedSegment

SAMPLES = 20


def _refresh(full: bool, progress: Progress) -> Refreshed:
    """Publishes what nobody could see yet, and builds the feed anew: that costs the same however
    little has changed, some 20 ms."""
    publish_drops()
    return Refreshed(feed.rebuild())


def _reconcile(fix: bool, progress: Progress) -> Reconciled:
    """Compares the drops that are shown as open with those that are.

    What opened or closed after the feed was built is no difference, but a reason to refresh.
    """
    stored = FeedSegment.objects.filter(segment="still_open").first()
    if stored is None:
        found = ["still_open: was never built"]
        checked = 0
    else:
        truth = {each["id"]: each for each in feed.segments()["still_open"]()}
        shown = {each["id"] for each in orjson.loads(bytes(stored.payload))["results"]}
        shut = DropEvent.objects.filter(pk__in=shown - truth.keys(), closed_at__lt=stored.built_at)
        due = stored.built_at - timedelta(minutes=settings.JUST_OPENED_MINUTES)
        missing = [key for key in truth.keys() - shown if truth[key]["opened_at"] < due]
        found = [f"still_open: drop {key} is missing" for key in sorted(missing)]
        found += [f"still_open: drop {one.pk} has closed" for one in shut]
        checked = len(truth)
    if fix and found:
        feed.rebuild()
    return Reconciled(checked, len(found), found[:SAMPLES], fixed=fix)


register(
    ReadModel(
        name=feed.FEED,
        app="discovery",
        description="What pollers read: just opened, still open, the ranked board",
        refresh=_refresh,
        reconcile=_reconcile,
        backlog=reads.unpublished,
        max_age=timedelta(minutes=10),
    )
)
