"""What discovery's endpoints take and give, for validation and for the OpenAPI document.

What a poll may say is decided in `discovery.polls`. Answers are rendered from plain data
(`discovery.queries`, `discovery.feed`), not through these serializers: tests hold the two together.
"""

from datetime import UTC, datetime
from typing import Any

from rest_framework import serializers

from config.params import QuerySerializer
from discovery import polls
from discovery.models import DropEvent, Scan

STATES = ["open", "closed", "unknown"]
SOURCE_STATES = ["new", "fresh", "failing", "frozen", "paused"]
EVENT_TYPES = DropEvent.EventType.values
OUTCOMES = Scan.Outcome.values
SOURCE_NAME = f"^{polls.NAME.pattern}$"


class MomentField(serializers.DateTimeField):
    """A time with its offset, to the microsecond, in a query string."""

    def __init__(self, **options: Any) -> None:
        super().__init__(default_timezone=UTC, **options)

    def to_internal_value(self, data: Any) -> datetime:
        # A + that was not encoded arrives as a blank.
        moment = super().to_internal_value(str(data).strip().replace(" ", "+"))
        if not 2000 <= moment.year <= 2200:
            raise serializers.ValidationError("Must lie in the years 2000 to 2200.")
        return moment


class NewDropsQuery(QuerySerializer):
    """Parameters of GET chat/watches/new-drops."""

    since = MomentField(
        required=False, help_text="`at` of the answer before. Without it: only where to begin."
    )


class BucketsQuery(QuerySerializer):
    """Parameters of GET discovery/buckets."""

    source = serializers.RegexField(SOURCE_NAME, required=False, help_text="Only of this source.")


class SlotBody(serializers.Serializer):
    """Something bookable."""

    slot_id = serializers.CharField(
        required=False, max_length=polls.ID_LENGTH, help_text="Default: venue and time."
    )
    venue = serializers.CharField(max_length=polls.ID_LENGTH)
    starts_at = serializers.CharField(
        required=False,
        allow_null=True,
        help_text="A time; without an offset it is of the source's time zone.",
    )
    party_min = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=polls.PARTY_MAX
    )
    party_max = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=polls.PARTY_MAX
    )
    payload = serializers.DictField(required=False, help_text="Up to 2 kB, given back as it is.")


class VenueBody(serializers.Serializer):
    """What is known of a venue."""

    key = serializers.CharField(max_length=polls.ID_LENGTH)
    name = serializers.CharField(required=False, allow_blank=True, max_length=polls.TEXT_LENGTH)
    city = serializers.CharField(required=False, allow_blank=True, max_length=polls.TEXT_LENGTH)
    latitude = serializers.FloatField(required=False, allow_null=True, min_value=-90, max_value=90)
    longitude = serializers.FloatField(
        required=False, allow_null=True, min_value=-180, max_value=180
    )
    url = serializers.CharField(required=False, allow_blank=True, max_length=2_000)
    capacity = serializers.IntegerField(
        required=False, allow_null=True, min_value=0, max_value=10_000_000
    )


class PollBody(serializers.Serializer):
    """What a source showed at one moment; or with `error`, that it did not answer."""

    source = serializers.RegexField(SOURCE_NAME)
    polled_at = serializers.DateTimeField(help_text="From 2000 on, not in the future.")
    slots = SlotBody(many=True, required=False)
    calendars = serializers.ListField(
        child=serializers.CharField(max_length=polls.ID_LENGTH),
        required=False,
        min_length=1,
        max_length=polls.CALENDARS,
        help_text="The venues that answered, where they answer one by one. Default: all.",
    )
    venues = VenueBody(many=True, required=False)
    error = serializers.CharField(
        required=False, max_length=1_000, help_text="The poll failed: nothing opens or closes."
    )


class PollReportSerializer(serializers.Serializer):
    """What a poll changed."""

    source = serializers.CharField()
    polled_at = serializers.DateTimeField()
    outcome = serializers.ChoiceField(choices=OUTCOMES)
    buckets = serializers.IntegerField()
    slots = serializers.IntegerField()
    opened = serializers.ListField(child=serializers.CharField(), help_text="Slot ids.")
    closed = serializers.ListField(child=serializers.CharField(), help_text="Slot ids.")
    baseline = serializers.IntegerField(help_text="Slots of a first poll: no drops.")
    unchanged = serializers.IntegerField()
    missing = serializers.IntegerField(help_text="Not there, but not closed yet.")
    quarantined = serializers.IntegerField(help_text="Calendars whose emptiness is doubted.")
    spared = serializers.IntegerField(help_text="Came back so soon that it is no drop.")
    left_out = serializers.IntegerField(help_text="Beyond the cap of a bucket.")
    outside = serializers.IntegerField(help_text="Of no day in the window.")


class VenueBase(serializers.Serializer):
    """What every answer says of a venue."""

    id = serializers.IntegerField()
    key = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    city = serializers.CharField(allow_blank=True)


class DropVenueSerializer(VenueBase):
    """Where a drop is."""


class DropBase(serializers.Serializer):
    """What every answer says of a drop."""

    id = serializers.IntegerField()
    event_type = serializers.ChoiceField(choices=EVENT_TYPES)
    source = serializers.CharField()
    slot_id = serializers.CharField()
    starts_at = serializers.DateTimeField(allow_null=True)
    local_time = serializers.CharField(allow_blank=True)
    party_min = serializers.IntegerField(allow_null=True)
    party_max = serializers.IntegerField(allow_null=True)
    opened_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)


class DropSerializer(DropBase):
    """A slot that became available."""

    venue = DropVenueSerializer()
    payload = serializers.DictField()


class FeedDropSerializer(DropSerializer):
    """A drop in the feed."""

    state = serializers.ChoiceField(
        choices=STATES, help_text="`unknown`: its source does not answer."
    )
    unsure = serializers.BooleanField(required=False, help_text="Not in the last poll.")


class SourceStateSerializer(serializers.Serializer):
    """How fresh what a source shows is."""

    source = serializers.CharField()
    last_success_at = serializers.DateTimeField(allow_null=True)
    consecutive_failures = serializers.IntegerField()
    state = serializers.ChoiceField(choices=SOURCE_STATES)


class FeedSerializer(serializers.Serializer):
    """A segment of the feed."""

    as_of = serializers.DateTimeField()
    sources = SourceStateSerializer(many=True)
    results = FeedDropSerializer(many=True)


class BoardEntrySerializer(serializers.Serializer):
    """A venue with open drops."""

    venue = DropVenueSerializer()
    score = serializers.FloatField()
    source = serializers.CharField()
    slots = serializers.IntegerField()
    newest = serializers.DateTimeField()
    drops_ever = serializers.IntegerField()
    state = serializers.ChoiceField(choices=STATES)


class BoardSerializer(serializers.Serializer):
    """Venues, best first."""

    as_of = serializers.DateTimeField()
    sources = SourceStateSerializer(many=True)
    results = BoardEntrySerializer(many=True)


class NewDropSerializer(DropSerializer):
    """A drop, and when pollers could see it first."""

    published_at = serializers.DateTimeField()


class NewDropsSerializer(serializers.Serializer):
    """What is new since."""

    at = serializers.DateTimeField(help_text="Send it as `since` next time.")
    as_of = serializers.DateTimeField()
    sources = SourceStateSerializer(many=True)
    more = serializers.BooleanField(help_text="There is more: ask again at once.")
    results = NewDropSerializer(many=True)


class BucketSerializer(serializers.Serializer):
    """A part of a day of a source."""

    bucket_id = serializers.IntegerField()
    source = serializers.CharField()
    day = serializers.DateField(allow_null=True)
    time_slot = serializers.CharField(allow_blank=True)
    open_slots = serializers.IntegerField()
    checked_at = serializers.DateTimeField(allow_null=True)
    changed_at = serializers.DateTimeField(allow_null=True)
    last_success_at = serializers.DateTimeField(allow_null=True)
    consecutive_failures = serializers.IntegerField()
    state = serializers.ChoiceField(choices=SOURCE_STATES)


class BucketsSerializer(serializers.Serializer):
    """The window."""

    as_of = serializers.DateTimeField()
    results = BucketSerializer(many=True)


class ScanSerializer(serializers.Serializer):
    """A source with its newest scan."""

    source = serializers.CharField()
    provider = serializers.CharField()
    is_paused = serializers.BooleanField()
    consecutive_failures = serializers.IntegerField()
    last_success_at = serializers.DateTimeField(allow_null=True)
    polled_at = serializers.DateTimeField(allow_null=True)
    recorded_at = serializers.DateTimeField(allow_null=True)
    outcome = serializers.ChoiceField(choices=OUTCOMES, allow_null=True)
    slots = serializers.IntegerField(allow_null=True)
    opened = serializers.IntegerField(allow_null=True)
    closed = serializers.IntegerField(allow_null=True)
    open_slots = serializers.IntegerField()
    buckets = serializers.IntegerField()


class ScansSerializer(serializers.Serializer):
    """Every source."""

    as_of = serializers.DateTimeField()
    results = ScanSerializer(many=True)


class PrunedSerializer(serializers.Serializer):
    """What one rule removed."""

    name = serializers.CharField()
    rows = serializers.IntegerField(help_text="Rows, or whole days where `partitions` is true.")
    complete = serializers.BooleanField(help_text="False: call again.")
    partitions = serializers.BooleanField()


class PruneSerializer(serializers.Serializer):
    """What was removed."""

    results = PrunedSerializer(many=True)
