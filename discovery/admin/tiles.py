"""Discovery on the admin's first page."""

from django.urls import reverse

from config.admin import dashboard
from config.admin.base import span
from discovery import queries

OVERDUE_SECONDS = 300  # from then on deliveries are late


@dashboard.register
def tiles():
    """Sources that are not fresh, and deliveries that wait or were given up."""
    sources = queries.freshness()
    states = [one["state"] for one in sources]
    troubled = [name for name in ("frozen", "failing") if name in states]
    yield dashboard.Tile(
        title="Sources",
        value=f"{states.count('fresh'):,} of {len(states):,} fresh" if states else "none yet",
        note=", ".join(f"{states.count(name):,} {name}" for name in troubled) or "none in trouble",
        link=reverse("admin:discovery_source_changelist"),
        level="bad" if "frozen" in troubled else "warn" if troubled else "ok",
        permission="discovery.view_source",
    )
    found = queries.delivery_gauges()
    late = found["overdue_seconds"] > OVERDUE_SECONDS
    dead = f"dead letters: {found['dead']:,}" if found["dead"] else "no dead letters"
    yield dashboard.Tile(
        title="Deliveries",
        value=f"{found['waiting']:,} waiting",
        note=f"{dead}, overdue for {span(found['overdue_seconds'])}" if late else dead,
        link=reverse("admin:discovery_usernotification_changelist")
        + ("?state__exact=dead" if found["dead"] else ""),
        level="bad" if late else "warn" if found["dead"] else "ok",
        permission="discovery.view_usernotification",
    )
