"""What the endpoints of watches take and give, for validation and for the OpenAPI document.

What a watch may hold is decided in `discovery.watches`. Answers are rendered from plain data
(`discovery.watch_queries`), not through these serializers: tests hold the two together.
"""

from rest_framework import serializers

from discovery import watches
from discovery.api.serializers import DropBase, VenueBase
from discovery.models import UserNotification, Watch

# The settings name these for the OpenAPI document.
NOTIFICATION_STATES = UserNotification.State.values
_CLOCK = f"^{watches.CLOCK.pattern}$"


class WatchChanges(serializers.Serializer):
    """What shall be different; what is not named stays as it is."""

    name = serializers.CharField(
        required=False, allow_blank=True, max_length=watches.NAME_LENGTH, help_text="For you."
    )
    is_active = serializers.BooleanField(
        required=False, help_text="`false` pauses it, and what it still had to tell is forgotten."
    )
    source = serializers.CharField(
        required=False, allow_null=True, help_text="Its name. Null: all sources."
    )
    venues = serializers.ListField(
        child=serializers.IntegerField(min_value=1),
        required=False,
        max_length=watches.VENUES,
        help_text="Their ids. Empty: all venues.",
    )
    date_from = serializers.DateField(
        required=False, allow_null=True, help_text="First day, where the venue is."
    )
    date_to = serializers.DateField(required=False, allow_null=True, help_text="Last day.")
    weekdays = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=7),
        required=False,
        max_length=7,
        help_text="1 is Monday. Empty: all.",
    )
    time_from = serializers.RegexField(
        _CLOCK, required=False, allow_null=True, help_text="Earliest time, where the venue is."
    )
    time_to = serializers.RegexField(
        _CLOCK, required=False, allow_null=True, help_text="Latest time, inclusive."
    )
    party_size = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=watches.PARTY_MAX
    )
    latitude = serializers.FloatField(
        required=False, allow_null=True, min_value=-90, max_value=90, help_text="Degrees."
    )
    longitude = serializers.FloatField(
        required=False, allow_null=True, min_value=-180, max_value=180, help_text="Degrees."
    )
    radius_m = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=watches.RADIUS_MAX_M,
        help_text="Metres around the place. Goes with latitude and longitude.",
    )
    channel = serializers.ChoiceField(
        Watch.Channel.values, required=False, help_text="`none`: word stands in the list alone."
    )
    target = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=watches.TARGET_LENGTH,
        help_text="An e-mail address, the URL of a webhook, or an Apprise URL.",
    )
    timezone = serializers.CharField(required=False, help_text="Of the quiet hours.")
    quiet_from = serializers.RegexField(
        _CLOCK, required=False, allow_null=True, help_text="From then on nothing is sent."
    )
    quiet_to = serializers.RegexField(
        _CLOCK, required=False, allow_null=True, help_text="May lie on the next day."
    )
    cooldown_seconds = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=watches.COOLDOWN_MAX_SECONDS,
        help_text="Between two messages; what opens meanwhile comes with the next one.",
    )
    max_per_hour = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=watches.MESSAGES_MAX_PER_HOUR,
        help_text="Messages in an hour, at most.",
    )


class WatchBody(WatchChanges):
    """A watch to make."""

    channel = serializers.ChoiceField(
        Watch.Channel.values, help_text="`none`: word stands in the list alone."
    )


class WatchSerializer(serializers.Serializer):
    """A watch as its owner sees it."""

    id = serializers.IntegerField()
    name = serializers.CharField(allow_blank=True)
    is_active = serializers.BooleanField()
    source = serializers.CharField(allow_null=True)
    venues = serializers.ListField(child=serializers.IntegerField())
    date_from = serializers.DateField(allow_null=True)
    date_to = serializers.DateField(allow_null=True)
    weekdays = serializers.ListField(child=serializers.IntegerField())
    time_from = serializers.CharField(allow_null=True)
    time_to = serializers.CharField(allow_null=True)
    party_size = serializers.IntegerField(allow_null=True)
    latitude = serializers.FloatField(allow_null=True)
    longitude = serializers.FloatField(allow_null=True)
    radius_m = serializers.IntegerField(allow_null=True)
    channel = serializers.ChoiceField(Watch.Channel.values)
    target = serializers.CharField(allow_blank=True)
    timezone = serializers.CharField()
    quiet_from = serializers.CharField(allow_null=True)
    quiet_to = serializers.CharField(allow_null=True)
    cooldown_seconds = serializers.IntegerField()
    max_per_hour = serializers.IntegerField()
    last_told_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class WrittenWatchSerializer(WatchSerializer):
    """A watch as it was just written."""

    secret = serializers.CharField(
        required=False,
        help_text="With which its webhook is signed. Shown when it is made, and never again.",
    )


class WatchPageSerializer(serializers.Serializer):
    """A page of one's watches, newest first."""

    next_cursor = serializers.CharField(allow_null=True)
    results = WatchSerializer(many=True)


class WatchVenueSerializer(VenueBase):
    """Where an opening is."""


class NotifiedDropSerializer(DropBase):
    """An opening that a watch was told of."""

    venue = WatchVenueSerializer()


class WatchNotificationSerializer(serializers.Serializer):
    """Word of one opening for one watch."""

    id = serializers.IntegerField()
    state = serializers.ChoiceField(
        NOTIFICATION_STATES,
        help_text="`gone`: it closed before it could be told. `dead`: given up, `error` says why.",
    )
    created_at = serializers.DateTimeField()
    told_at = serializers.DateTimeField(allow_null=True)
    attempts = serializers.IntegerField()
    error = serializers.CharField(allow_blank=True, help_text="Of the last attempt.")
    message_id = serializers.UUIDField(
        allow_null=True, help_text="The message that it went out with, as its receiver saw it."
    )
    already_gone = serializers.BooleanField()
    drop = NotifiedDropSerializer(allow_null=True, help_text="Null once it is pruned.")


class WatchNotificationPageSerializer(serializers.Serializer):
    """A page of what a watch told, the newest opening first."""

    next_cursor = serializers.CharField(allow_null=True)
    results = WatchNotificationSerializer(many=True)


class WatchTestSerializer(serializers.Serializer):
    """A test message went out."""

    message_id = serializers.UUIDField(help_text="As its receiver saw it.")
