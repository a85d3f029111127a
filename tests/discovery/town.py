"""A source whose slots a test opens and closes, by real polls."""

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from discovery import actions
from discovery.models import DropEvent, Source, UserNotification, Venue, Watch
from discovery.polls import Poll, Slot, VenueDetails


class Town:
    """`town.open("a")` opens a slot and says its drop; `town.close("a")` closes it.

    Its standing bucket takes slots of any time. Polls are a second apart, from five minutes ago on.
    """

    def __init__(self, name: str = "tables", zone: str = "UTC") -> None:
        self.source = Source.objects.create(name=name, window_days=0, timezone=zone)
        self.at = timezone.now() - timedelta(minutes=5)
        self.slots: dict[str, Slot] = {"base": Slot("base", "bistro")}
        self.poll()
        self.venue = Venue.objects.get(source=self.source, key="bistro")
        details = VenueDetails("bistro", "Bistro Nord", "Berlin", url="https://bistro.example/")
        actions.describe_venues(source=self.source, venues=[details], seen_at=self.at)

    def poll(self, at: datetime | None = None) -> actions.Report:
        """Poll the source as it is."""
        self.at = at or self.at + timedelta(seconds=1)
        return actions.record_source_poll(
            Poll(self.source.name, self.at, list(self.slots.values()))
        )

    def open(self, *slot_ids: str, venue: str = "bistro", **fields: Any) -> DropEvent:
        """Open slots in one poll; the drop of the first."""
        for slot_id in slot_ids:
            self.slots[slot_id] = Slot(slot_id, venue, **fields)
        self.poll()
        return DropEvent.objects.filter(source=self.source, slot_id=slot_ids[0]).latest("id")

    def close(self, *slot_ids: str) -> None:
        for slot_id in slot_ids:
            del self.slots[slot_id]
        self.poll()


def watch(user, **fields: Any) -> Watch:
    """A watch as it stands in the table, of whatever target."""
    given = {"channel": "none", "cooldown_seconds": 0, "max_per_hour": 100}
    return Watch.objects.create(user=user, **given | fields)


def states(of: Watch | None = None) -> list[str]:
    """The states of notifications, oldest first."""
    rows = UserNotification.objects.order_by("id")
    rows = rows.filter(watch_id=of.pk) if of else rows
    return list(rows.values_list("state", flat=True))
