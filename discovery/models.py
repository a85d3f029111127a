"""Tables of discovery.

Partitions, collations and the function that records a poll are beyond Django's migrations: the
files in `sql/` make them, which migrations run beside the models' state.
"""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Source(models.Model):
    """Something that is polled: a calendar, a network of stations, a list of tables.

    Made by staff, by the first poll that is pushed under a name, or by a replay. The state of
    polling stands in the row; one process at a time polls a source, by lease.
    """

    class Provider(models.TextChoices):
        PUSH = "push", "polls are sent to the API"
        GBFS = "gbfs", "GBFS (shared bikes, scooters)"
        JSON = "json", "JSON by a mapping"
        DEMO = "demo", "made up, for a look around"

    name = models.TextField(unique=True)
    title = models.TextField(default="", blank=True)
    provider = models.TextField(choices=Provider, default=Provider.PUSH)
    config = models.JSONField(default=dict, blank=True)
    timezone = models.TextField(default="UTC")
    is_by_calendar = models.BooleanField(null=True)
    window_days = models.SmallIntegerField(
        null=True, blank=True, help_text="Empty: the setting. 0: no days, one standing bucket."
    )
    poll_seconds = models.IntegerField(default=60)
    is_paused = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())
    last_attempt_at = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    consecutive_failures = models.IntegerField(default=0)
    last_error = models.TextField(default="", blank=True)
    next_poll_at = models.DateTimeField(db_default=Now())
    lease_owner = models.TextField(default="")
    lease_expires_at = models.DateTimeField(null=True)
    validators = models.JSONField(default=dict)

    class Meta:
        db_table = "discovery_sources"

    def __str__(self) -> str:
        return self.name


class Bucket(models.Model):
    """One part of one day of a source; `day` is None for the standing bucket.

    Made ahead for a sliding window of days; those before today are pruned with all that hangs on
    them. `open_slots` counts its rows in `availability_state`.
    """

    bucket_id = models.BigAutoField(primary_key=True)
    source = models.ForeignKey(Source, models.DO_NOTHING, related_name="buckets")
    day = models.DateField(null=True)
    time_slot = models.TextField()
    created_at = models.DateTimeField(db_default=Now())
    checked_at = models.DateTimeField(null=True)
    changed_at = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    consecutive_failures = models.IntegerField(default=0)
    open_slots = models.IntegerField(default=0)
    is_full = models.BooleanField(default=False)

    class Meta:
        db_table = "discovery_buckets"

    def __str__(self) -> str:
        return f"{self.source_id} {self.day or 'standing'} {self.time_slot}".strip()


class Calendar(models.Model):
    """What of a bucket is polled as one: all of it (`calendar` ''), or one venue's calendar.

    Written by `discovery_record_poll`; goes with its bucket.
    """

    pk = models.CompositePrimaryKey("bucket_id", "calendar")
    bucket = models.ForeignKey(Bucket, models.DO_NOTHING, related_name="calendars")
    calendar = models.TextField()
    baseline_at = models.DateTimeField()
    polled_at = models.DateTimeField()
    empty_polls = models.SmallIntegerField(default=0)

    class Meta:
        db_table = "bucket_calendars"

    def __str__(self) -> str:
        return f"{self.bucket_id} {self.calendar}"


class Venue(models.Model):
    """Where slots are. Upserted by polls; pruned when unseen for DISCOVERY_VENUES_RETENTION_DAYS
    and nothing names it."""

    venue_id = models.BigAutoField(primary_key=True)
    source = models.ForeignKey(Source, models.DO_NOTHING, related_name="venues")
    key = models.TextField(help_text="As the source names it.")
    name = models.TextField(default="", blank=True)
    city = models.TextField(default="", blank=True)
    latitude = models.FloatField(null=True, blank=True)
    longitude = models.FloatField(null=True, blank=True)
    url = models.TextField(default="", blank=True)
    capacity = models.IntegerField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    last_seen_at = models.DateTimeField()

    class Meta:
        db_table = "venues"
        unique_together = [("source", "key")]

    def __str__(self) -> str:
        return self.name or self.key


class Availability(models.Model):
    """A slot that is open now, and the only record of it: previous and baseline slots in one.

    Entered when a poll shows it, removed when it closes; a poll touches only what changed. Bounded
    by DISCOVERY_SLOTS_PER_BUCKET.
    """

    pk = models.CompositePrimaryKey("bucket_id", "slot_id")
    bucket = models.ForeignKey(Bucket, models.DO_NOTHING, related_name="slots")
    slot_id = models.TextField()
    venue = models.ForeignKey(Venue, models.DO_NOTHING, related_name="slots")
    calendar = models.TextField()
    starts_at = models.DateTimeField(null=True)
    local_time = models.TextField(default="")
    party_min = models.SmallIntegerField(null=True)
    party_max = models.SmallIntegerField(null=True)
    payload = models.JSONField(null=True)
    opened_at = models.DateTimeField()
    drop_id = models.BigIntegerField(null=True)
    drop_minute = models.DateTimeField(null=True)
    misses = models.SmallIntegerField(default=0)
    missing_since = models.DateTimeField(null=True)

    class Meta:
        db_table = "availability_state"

    def __str__(self) -> str:
        return f"{self.bucket_id} {self.slot_id}"


class Closure(models.Model):
    """When a slot closed last, so that one that comes back inside the cooldown is no drop.

    Goes with its bucket, and after two days.
    """

    pk = models.CompositePrimaryKey("bucket_id", "slot_id")
    bucket = models.ForeignKey(Bucket, models.DO_NOTHING, related_name="+")
    slot_id = models.TextField()
    closed_at = models.DateTimeField()
    opened_at = models.DateTimeField()
    drop_id = models.BigIntegerField(null=True)
    drop_minute = models.DateTimeField(null=True)

    class Meta:
        db_table = "slot_closures"

    def __str__(self) -> str:
        return f"{self.bucket_id} {self.slot_id}"


class DropEvent(models.Model):
    """A slot became available: one row a drop, never one a poll.

    Written by `discovery_record_poll`; `published_at` is set by `actions.publish_drops`.
    Partitioned by day; old days go by DROP_EVENTS_RETENTION_DAYS. It outlives its bucket.
    """

    class EventType(models.TextChoices):
        OPENED = "opened"
        REOPENED = "reopened", "opened again"

    id = models.BigAutoField(primary_key=True)
    event_type = models.TextField(choices=EventType)
    source = models.ForeignKey(Source, models.DO_NOTHING, related_name="+", db_constraint=False)
    bucket_id = models.BigIntegerField()
    slot_id = models.TextField()
    venue = models.ForeignKey(Venue, models.DO_NOTHING, related_name="+", db_constraint=False)
    opened_at = models.DateTimeField()
    opened_minute = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    starts_at = models.DateTimeField(null=True)
    local_time = models.TextField(default="")
    party_min = models.SmallIntegerField(null=True)
    party_max = models.SmallIntegerField(null=True)
    payload = models.JSONField(null=True)
    published_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "drop_events"
        verbose_name = "drop"

    def __str__(self) -> str:
        return f"{self.slot_id} at {self.opened_at:%Y-%m-%d %H:%M:%S}"


class VenueStats(models.Model):
    """How often, how long and at which hours a venue had drops. Survives them."""

    venue = models.OneToOneField(Venue, models.DO_NOTHING, primary_key=True, related_name="stats")
    drops = models.BigIntegerField(default=0)
    closings = models.BigIntegerField(default=0, help_text="Of drops: open_seconds sums over them.")
    open_seconds = models.FloatField(default=0)
    hours = ArrayField(models.BigIntegerField(), help_text="Drops by hour of the source's day.")
    last_opened_at = models.DateTimeField(null=True)
    last_closed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "venue_stats"

    def __str__(self) -> str:
        return str(self.venue_id)


class SlotStats(models.Model):
    """The same of one time of day at a venue. Bounded by the times that a venue has."""

    pk = models.CompositePrimaryKey("venue_id", "local_time")
    venue = models.ForeignKey(Venue, models.DO_NOTHING, related_name="slot_stats")
    local_time = models.TextField()
    drops = models.BigIntegerField(default=0)
    closings = models.BigIntegerField(default=0)
    open_seconds = models.FloatField(default=0)
    hours = ArrayField(models.BigIntegerField())
    last_opened_at = models.DateTimeField(null=True)
    last_closed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "slot_stats"

    def __str__(self) -> str:
        return f"{self.venue_id} {self.local_time}"


class Scan(models.Model):
    """One poll of a source, recorded or failed. Goes by DISCOVERY_SCANS_RETENTION_DAYS."""

    class Outcome(models.TextChoices):
        RECORDED = "recorded"
        REPLAYED = "replayed", "replayed: it was recorded before"
        LATE = "late", "late: a newer one came before"
        FAILED = "failed"
        UNCHANGED = "unchanged", "unchanged, says the source"

    source = models.ForeignKey(Source, models.DO_NOTHING, related_name="scans")
    polled_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_default=Now())
    outcome = models.TextField(choices=Outcome)
    buckets = models.IntegerField(default=0)
    slots = models.IntegerField(default=0)
    opened = models.IntegerField(default=0)
    closed = models.IntegerField(default=0)
    spared = models.IntegerField(default=0)
    left_out = models.IntegerField(default=0)
    milliseconds = models.FloatField(null=True)
    error = models.TextField(default="")

    class Meta:
        db_table = "discovery_scans"

    def __str__(self) -> str:
        return f"{self.source_id} {self.polled_at:%Y-%m-%d %H:%M:%S} {self.outcome}"


class FeedSegment(models.Model):
    """A rendered answer of the feed. Read model; one row a segment, capped by the settings."""

    segment = models.TextField(primary_key=True)
    payload = models.BinaryField()
    items = models.IntegerField()
    built_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "feed_cache"

    def __str__(self) -> str:
        return self.segment


class Watch(models.Model):
    """What a person waits for, and how to tell them. Empty or None where all will do."""

    class Channel(models.TextChoices):
        EMAIL = "email", "e-mail"
        WEBHOOK = "webhook"
        APPRISE = "apprise", "Apprise URL"
        NONE = "none", "none: look at the list"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.DO_NOTHING, related_name="+")
    name = models.TextField(default="", blank=True)
    is_active = models.BooleanField(default=True)
    source = models.ForeignKey(Source, models.DO_NOTHING, null=True, blank=True, related_name="+")
    has_venues = models.BooleanField(default=False)
    date_from = models.DateField(null=True, blank=True)
    date_to = models.DateField(null=True, blank=True)
    weekdays = ArrayField(models.SmallIntegerField(), default=list, blank=True)
    time_from = models.TextField(default="", blank=True)
    time_to = models.TextField(default="", blank=True)
    party_size = models.SmallIntegerField(null=True, blank=True)
    latitude = models.FloatField(null=True, blank=True)
    longitude = models.FloatField(null=True, blank=True)
    radius_m = models.IntegerField(null=True, blank=True)
    channel = models.TextField(choices=Channel)
    target = models.TextField(default="", blank=True)
    secret = models.TextField(default="", blank=True)
    timezone = models.TextField(default="UTC")
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_to = models.TimeField(null=True, blank=True)
    cooldown_seconds = models.IntegerField(default=300)
    max_per_hour = models.SmallIntegerField(default=12)
    last_told_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "discovery_watches"
        verbose_name_plural = "watches"

    def __str__(self) -> str:
        return self.name or f"watch {self.pk}"


class WatchVenue(models.Model):
    """A venue that a watch names."""

    pk = models.CompositePrimaryKey("venue_id", "watch_id")
    venue = models.ForeignKey(Venue, models.DO_NOTHING, related_name="+")
    watch = models.ForeignKey(Watch, models.DO_NOTHING, related_name="venues")

    class Meta:
        db_table = "discovery_watch_venues"

    def __str__(self) -> str:
        return f"{self.watch_id} {self.venue_id}"


class UserNotification(models.Model):
    """Word of a drop for a watch: one row a watch and drop, told once.

    Made in the transaction that publishes the drop, delivered by the notifier. Partitioned by the
    day of the drop; old days go by NOTIFICATIONS_RETENTION_DAYS.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SENT = "sent"
        GONE = "gone", "gone before it could be told"
        DEAD = "dead", "given up"

    id = models.BigAutoField(primary_key=True)
    watch = models.ForeignKey(Watch, models.DO_NOTHING, related_name="+", db_constraint=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, related_name="+", db_constraint=False
    )
    drop_id = models.BigIntegerField()
    drop_minute = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now())
    state = models.TextField(choices=State, default=State.PENDING)
    attempts = models.SmallIntegerField(default=0)
    due_at = models.DateTimeField(db_default=Now())
    lease_owner = models.TextField(default="")
    lease_expires_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True)
    already_gone = models.BooleanField(default=False)
    error = models.TextField(default="")
    message_id = models.UUIDField(null=True)

    class Meta:
        db_table = "user_notifications"

    def __str__(self) -> str:
        return f"{self.watch_id}: {self.drop_id} {self.state}"
