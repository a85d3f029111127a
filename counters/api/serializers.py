"""What the counters' endpoint takes and gives, for the OpenAPI document.

What an event may say is decided in `counters.incoming`.
"""

from rest_framework import serializers

from counters import incoming


class EventBody(serializers.Serializer):
    """Something that happened to a target."""

    id = serializers.UUIDField(help_text="Yours; an event that comes again is counted once.")
    type = serializers.CharField(help_text="post_view or post_impression.")
    target = serializers.IntegerField(min_value=1, help_text="The id of the post.")
    at = serializers.DateTimeField(
        help_text="When it happened: within the last day. Sent again, it must be the same."
    )


class EventsBody(serializers.Serializer):
    """A batch of events."""

    events = EventBody(many=True, min_length=1, max_length=incoming.EVENTS_AT_ONCE)


class AcceptedSerializer(serializers.Serializer):
    """The events are safe, and will be counted."""

    accepted = serializers.IntegerField()
