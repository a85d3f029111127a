"""Discovery on the admin's first page: sources, the feed, deliveries, and what grows."""

from collections.abc import Iterable

from django.urls import reverse

from config.admin.base import span
from config.partitions import estimated_rows
from config.vitals import Question, Vital, register
from discovery import queries

DELIVERY_LATE_SECONDS = 300
DROPS_LATE = 1_000


@register
def sources() -> Iterable[Vital]:
    """Sources that are not fresh, and the age of what pollers read."""
    found = queries.freshness()
    states = [one["state"] for one in found]
    troubled = [name for name in ("frozen", "failing") if name in states]
    yield Vital(
        key="discovery.sources",
        question=Question.STALE,
        title="Sources",
        number=sum(states.count(name) for name in troubled),
        value=f"{states.count('fresh'):,} of {len(states):,} fresh" if states else "none yet",
        note=", ".join(f"{states.count(name):,} {name}" for name in troubled),
        link=reverse("admin:discovery_source_changelist"),
        help="See why, or pause them",
        level="bad" if "frozen" in troubled else "warn" if troubled else "ok",
        permission="discovery.view_source",
    )
    age = queries.feed_age()
    unpublished = queries.unpublished()
    is_late = unpublished > DROPS_LATE
    yield Vital(
        key="discovery.unpublished",
        question=Question.STUCK,
        title="Drops nobody sees yet",
        number=unpublished,
        value=f"{unpublished:,}",
        note=f"the feed is {span(age)} old" if age is not None else "",
        link=reverse("admin:config_jobrun_changelist"),
        help="Look at the jobs of discovery",
        level="bad" if is_late else "ok",
        permission="config.view_jobrun",
    )


@register
def deliveries() -> Iterable[Vital]:
    """Notifications that wait, and those that were given up."""
    found = queries.delivery_gauges()
    late = found["overdue_seconds"] > DELIVERY_LATE_SECONDS
    link = reverse("admin:discovery_usernotification_changelist")
    yield Vital(
        key="discovery.deliveries",
        question=Question.STUCK,
        title="Deliveries",
        number=found["waiting"],
        value=f"{found['waiting']:,} waiting",
        note=f"overdue for {span(found['overdue_seconds'])}" if late else "",
        link=f"{link}?state__exact=pending",
        help="Look at what waits",
        level="bad" if late else "ok",
        permission="discovery.view_usernotification",
    )
    yield Vital(
        key="discovery.dead_letters",
        question=Question.STUCK,
        title="Deliveries given up",
        number=found["dead"],
        value=f"{found['dead']:,}",
        link=f"{link}?state__exact=dead",
        help="Retry them",
        level="warn" if found["dead"] else "ok",
        permission="discovery.view_usernotification",
    )


@register
def size() -> Iterable[Vital]:
    """Drops that are kept."""
    drops = estimated_rows("drop_events")
    yield Vital(
        key="discovery.drops",
        question=Question.GROWS,
        title="Drops",
        number=drops,
        value=f"about {drops:,}",
        link=reverse("admin:discovery_dropevent_changelist"),
        permission="discovery.view_dropevent",
    )
