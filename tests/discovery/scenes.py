"""A source with something in every state, for the tests of the staff screens and metrics."""

from datetime import timedelta

from django.contrib.auth import get_user_model
from django.utils import timezone

from config import partitions
from discovery import actions, feed
from discovery.models import (
    Availability,
    Bucket,
    DropEvent,
    FeedSegment,
    Scan,
    SlotStats,
    Source,
    UserNotification,
    Venue,
    VenueStats,
    Watch,
    WatchVenue,
)

SECRET = "whsec-0123456789abcdef"
TARGET = "https://bot:pa55word@hooks.example.org/services/T0000/B1111/x9y8z7?key=topsecret"


def make_source(name: str = "tables", **fields) -> Source:
    """A source with the buckets of its window."""
    source = Source.objects.create(name=name, **fields)
    actions.ensure_buckets()
    return source


def fill_window(source: Source) -> None:
    """Every second bucket with open slots; some failing, some never checked."""
    now = timezone.now()
    buckets = list(Bucket.objects.filter(source=source).order_by("day", "time_slot"))
    for at, bucket in enumerate(buckets):
        bucket.open_slots = (at % 2) * (at + 1) ** 2
        bucket.checked_at = bucket.last_success_at = now - timedelta(minutes=at)
        bucket.changed_at = now - timedelta(hours=at)
        if at % 9 == 4:
            bucket.consecutive_failures = 2
        if at % 9 == 8:
            bucket.last_success_at = now - timedelta(days=3)  # silent: frozen
        if at % 13 == 12:
            bucket.checked_at = bucket.changed_at = bucket.last_success_at = None
            bucket.open_slots = 0
    Bucket.objects.bulk_update(
        buckets,
        ["open_slots", "checked_at", "last_success_at", "changed_at", "consecutive_failures"],
    )


def scan(source: Source, **fields) -> Scan:
    """One scan of a source."""
    given = {"polled_at": timezone.now(), "outcome": "recorded", "slots": 12, "milliseconds": 3.2}
    return Scan.objects.create(source=source, **given | fields)


def make_venue(source: Source, key: str = "v1", **fields) -> Venue:
    """A venue, seen just now."""
    return Venue.objects.create(source=source, key=key, last_seen_at=timezone.now(), **fields)


def drop(venue: Venue, slot: str, *, age: timedelta, length: timedelta | None, **fields):
    """A drop `age` ago, open for `length`; None: its end was not seen."""
    opened = timezone.now() - age
    bucket = Bucket.objects.filter(source=venue.source).first()
    partitions.ensure("drop_events", opened, opened)
    return DropEvent.objects.create(
        event_type=fields.pop("event_type", "opened"),
        source=venue.source,
        venue=venue,
        bucket_id=bucket.pk if bucket else 0,
        slot_id=slot,
        opened_at=opened,
        opened_minute=opened.replace(second=0, microsecond=0),
        closed_at=None if length is None else opened + length,
        local_time="19:30",
        published_at=fields.pop("published_at", opened),
        **fields,
    )


def hold_open(event: DropEvent) -> None:
    """The slot of a drop is open still."""
    Availability.objects.create(
        bucket_id=event.bucket_id,
        slot_id=event.slot_id,
        venue_id=event.venue_id,
        calendar="",
        opened_at=event.opened_at,
        drop_id=event.pk,
        drop_minute=event.opened_minute,
    )


def count(venue: Venue, drops: int = 40) -> None:
    """Statistics of a venue and of two of its times."""
    hours = [0] * 24
    hours[9], hours[17], hours[18] = drops // 4, drops // 2, drops - drops // 4 - drops // 2
    shared = {"drops": drops, "closings": drops, "open_seconds": drops * 720.0, "hours": hours}
    VenueStats.objects.create(venue=venue, last_opened_at=timezone.now(), **shared)
    for local_time in ("18:00", "19:30"):
        SlotStats.objects.create(venue=venue, local_time=local_time, **shared)


def person(name: str = "ann"):
    """Somebody who watches."""
    return get_user_model().objects.get_or_create(username=name)[0]


def watch(user, **fields) -> Watch:
    """A watch that tells by webhook, with credentials everywhere."""
    given = {"channel": "webhook", "target": TARGET, "secret": SECRET, "name": "Friday dinner"}
    return Watch.objects.create(user=user, **given | fields)


def name_venues(of: Watch, *venues: Venue) -> None:
    """A watch of these venues."""
    Watch.objects.filter(pk=of.pk).update(has_venues=True)
    for venue in venues:
        WatchVenue.objects.create(watch=of, venue=venue)


def notification(of: Watch, event: DropEvent, state: str = "pending", **fields):
    """Word of a drop for a watch."""
    partitions.ensure("user_notifications", event.opened_minute, event.opened_minute)
    return UserNotification.objects.create(
        watch=of,
        user=of.user,
        drop_id=event.pk,
        drop_minute=event.opened_minute,
        state=state,
        **fields,
    )


def build_feed() -> None:
    """A feed that is 90 seconds old."""
    feed.rebuild()
    FeedSegment.objects.update(built_at=timezone.now() - timedelta(seconds=90))
