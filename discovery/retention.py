"""What expires in discovery, besides whole days of drops and notifications (`partitions.py`)."""

from datetime import timedelta

from django.utils import timezone

from config.retention import Rule, days_before, register

SILENCE = timedelta(days=7)
CLOSURES_KEPT = timedelta(days=2)  # longer than any cooldown


# With its slots, calendars and closures: a day that is over everywhere on earth.
register(
    Rule(
        name="discovery_buckets",
        table="discovery_buckets",
        condition="day < %(before)s",
        parameters=lambda: {"before": (timezone.now() - timedelta(days=1)).date()},
        primary_key=("bucket_id",),
        batch=20,
    )
)
# What no poll has confirmed for days, of a source that fell silent: with its bucket, which is made
# anew and begins with a baseline.
register(
    Rule(
        name="silent_buckets",
        table="discovery_buckets",
        condition="open_slots > 0 AND last_success_at < %(before)s",
        parameters=lambda: {"before": timezone.now() - SILENCE},
        primary_key=("bucket_id",),
        batch=20,
    )
)
register(
    Rule(
        name="slot_closures",
        table="slot_closures",
        condition="closed_at < %(before)s",
        parameters=lambda: {"before": timezone.now() - CLOSURES_KEPT},
        primary_key=("bucket_id", "slot_id"),
    )
)
# Unseen, and nothing names them: no open slot, no drop that is kept, no watch.
register(
    Rule(
        name="venues",
        table="venues",
        condition="last_seen_at < %(before)s"
        " AND NOT EXISTS (SELECT FROM availability_state AS a WHERE a.venue_id = venues.venue_id)"
        " AND NOT EXISTS (SELECT FROM drop_events AS d WHERE d.venue_id = venues.venue_id)"
        " AND NOT EXISTS"
        " (SELECT FROM discovery_watch_venues AS w WHERE w.venue_id = venues.venue_id)",
        parameters=days_before("DISCOVERY_VENUES_RETENTION_DAYS"),
        primary_key=("venue_id",),
    )
)
register(
    Rule(
        name="discovery_scans",
        table="discovery_scans",
        condition="recorded_at < %(before)s",
        parameters=days_before("DISCOVERY_SCANS_RETENTION_DAYS"),
    )
)
