"""What matching's endpoints take and give, for validation and for the OpenAPI document.

What an item may hold is decided in `matching.fields`, not here: `item_fields` only reads days and
times, and refuses names that are no fields. Answers are rendered from plain data
(`matching.queries`), not through these serializers: tests hold the two together.
"""

import json
import math
from collections.abc import Callable, Container
from datetime import date, datetime
from typing import Any

import orjson
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ParseError

from config.fields import MAX_ID, printable
from config.params import CursorField, LimitField, PageQuery, QuerySerializer, object_of
from config.problems import Problem, flatten, invalid_fields
from config.rendering import OrjsonParser, read_body
from matching import fields
from matching.kinds import Kind, Pair
from matching.models import Item, Match, MatchJob, Notification

ERRORS = 100  # in one answer
IDS_AT_ONCE = 200
Q_LENGTH = 300
MAX_RADIUS_M = 500_000
# The settings name these for the OpenAPI document.
KINDS = Kind.values
ITEM_STATUSES = Item.Status.values
MATCH_STATES = Match.State.values
JOB_STATES = MatchJob.State.values


class LenientParser(OrjsonParser):
    """JSON, where NaN, Infinity and lone surrogates reach the field that holds them.

    They are no JSON, so that the strict parser can only say at which character it stumbled; the
    field refuses them by name.
    """

    def parse(self, stream, media_type=None, parser_context=None) -> Any:
        """Raises ParseError (400) for what is not even that, RequestDataTooBig (413)."""
        body = read_body(stream)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            try:
                return json.loads(body.decode())
            except (ValueError, RecursionError):
                raise ParseError(f"The body is not valid JSON: {error}.") from error


def item_fields(data: Any, known: Container[str]) -> dict[str, Any]:
    """The fields of a body as actions take them: days and times read, the rest as it came.

    Raises a 400 Problem that names each field that is not `known`, or no day or time.
    """
    read, errors = {}, []
    for name, value in object_of(data).items():
        if name not in known:
            errors.append({"name": printable(name), "reason": "Is not a field here."})
            continue
        try:
            read[name] = _READERS[name](value) if name in _READERS else value
        except ValueError as error:
            errors.append({"name": name, "reason": str(error)})
    if errors:
        raise invalid_fields(errors[:ERRORS])
    return read


def refused(error: fields.InvalidItem, inside: str = "") -> Problem:
    """A 400 that names what `matching.fields` refused; `inside` is where the fields stand."""
    return invalid_fields(
        {"name": f"{inside}{printable(name)}", "reason": reason}
        for name, reason in error.errors.items()
    )


def _day(value: Any) -> date | None:
    try:
        return None if value is None else date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError("Is not a day (2025-10-01).") from error


def _time(value: Any) -> datetime | None:
    try:
        moment = None if value is None else datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError("Is not a time (2025-10-01T06:00:00Z).") from error
    if moment is not None and moment.tzinfo is None:
        raise ValueError("Is a time without its offset (2025-10-01T06:00:00Z).")
    return moment


_READERS: dict[str, Callable[[Any], Any]] = {"happened_on": _day, "expires_at": _time}


class BodySerializer(serializers.Serializer):
    """Base of request bodies that are checked here.

    `asked = MatchBody.parse(request)` gives the validated values, or raises a 400 Problem that
    names each field that is unknown, missing or wrong.
    """

    @classmethod
    def parse(cls, request) -> dict[str, Any]:
        """The validated body of `request`."""
        serializer = cls(data=item_fields(request.data, cls().fields))
        if not serializer.is_valid():
            raise invalid_fields(flatten(serializer.errors))
        return dict(serializer.validated_data)


class KindField(serializers.ChoiceField):
    """A choice that says what there is and does not repeat what was sent."""

    def __init__(self, choices: Any, **options: Any) -> None:
        super().__init__(choices, **options)
        self.error_messages["invalid_choice"] = f"Is none of: {', '.join(self.choices)}."


class IdField(serializers.IntegerField):
    """The id of a row: an integer, and no text that looks like one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=1, max_value=MAX_ID, **options)

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            raise serializers.ValidationError("Must be an integer.")
        return data


class DegreesField(serializers.FloatField):
    """A finite number of degrees in a query string, between -`bound` and `bound`."""

    def __init__(self, *, bound: int, **options: Any) -> None:
        super().__init__(min_value=-bound, max_value=bound, **options)

    def to_internal_value(self, data: Any) -> float:
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            raise serializers.ValidationError("Must be a finite number.")
        return round(value, fields.DEGREE_PLACES)


@extend_schema_field(
    {
        "type": "object",
        "maxProperties": fields.ATTRIBUTES_MAX_KEYS,
        "additionalProperties": {},
        "example": {"colour": "black", "size_cm": 24},
    }
)
class AttributesField(serializers.JSONField):
    """Text, numbers and booleans by name."""


class _Described(serializers.Serializer):
    """What an item and an ad-hoc query share."""

    kind = KindField(Kind.values, help_text="The side it stands on.")
    title = serializers.CharField(max_length=fields.TITLE_LENGTH)
    description = serializers.CharField(
        required=False, allow_blank=True, max_length=fields.DESCRIPTION_LENGTH
    )
    category = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=fields.NAME_LENGTH,
        help_text="As the installation names them.",
    )
    attributes = AttributesField(
        required=False, help_text="What can be compared: colour, brand, size. Flat; up to 10 kB."
    )
    country = serializers.CharField(
        required=False, allow_blank=True, max_length=2, help_text="ISO 3166-1 alpha-2."
    )
    city = serializers.CharField(required=False, allow_blank=True, max_length=fields.NAME_LENGTH)
    latitude = serializers.FloatField(
        required=False,
        allow_null=True,
        min_value=-90,
        max_value=90,
        help_text="Degrees; goes with longitude.",
    )
    longitude = serializers.FloatField(
        required=False,
        allow_null=True,
        min_value=-180,
        max_value=180,
        help_text="Degrees; goes with latitude.",
    )
    happened_on = serializers.DateField(
        required=False, allow_null=True, help_text="The day it was lost, found, wanted from …"
    )


class ItemBody(_Described):
    """An item to post."""

    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="After that it is found no more."
    )


class ItemChanges(serializers.Serializer):
    """What shall be different; what is not named stays as it is."""

    def get_fields(self) -> dict[str, serializers.Field]:
        known = ItemBody().get_fields()
        del known["kind"]
        known["title"].required = False
        known["status"] = KindField(
            [Item.Status.OPEN.value, Item.Status.CLOSED.value],
            required=False,
            help_text="`closed` takes it out of matching, `open` puts it back.",
        )
        return known


class QueryBody(_Described):
    """A description of something that is not posted."""


class MatchBody(BodySerializer):
    """What to find counterparts for: an item of yours, or a description. One of the two."""

    item = IdField(required=False, help_text="The id of an open item of yours.")
    query = serializers.DictField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            reason = "Give either item or query."
            raise serializers.ValidationError({"item": reason, "query": reason})
        return attrs


class MatchRequestSerializer(serializers.Serializer):
    """What to find counterparts for: an item of yours, or a description. One of the two."""

    item = serializers.IntegerField(
        required=False, min_value=1, help_text="The id of an open item of yours."
    )
    query = QueryBody(required=False)


class ReadBody(BodySerializer):
    """Which notifications were read: some by id, or all up to one."""

    ids = serializers.ListField(
        child=IdField(), min_length=1, max_length=IDS_AT_ONCE, required=False
    )
    up_to = IdField(required=False, help_text="This one and all before it.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            reason = "Give either ids or up_to."
            raise serializers.ValidationError({"ids": reason, "up_to": reason})
        return attrs


class _FilteredPageQuery(PageQuery):
    cursor = CursorField("`next_cursor` of the page before, with the same filters.")


class OwnItemsQuery(_FilteredPageQuery):
    """Parameters of GET items."""

    status = KindField(ITEM_STATUSES, required=False, help_text="Only items in this state.")
    kind = KindField(Kind.values, required=False, help_text="Only items of this side.")


class MatchesQuery(_FilteredPageQuery):
    """Parameters of GET items/{item_id}/matches."""

    state = KindField(
        ["listed", *MATCH_STATES],
        default="listed",
        help_text="`listed`: suggested and confirmed ones.",
    )


class NotificationsQuery(_FilteredPageQuery):
    """Parameters of GET me/notifications."""

    unread = KindField(["yes", "no"], default="no", help_text="`yes`: only those not read yet.")


class SearchQuery(_FilteredPageQuery):
    """Parameters of GET items/search."""

    limit = LimitField(most=50, help_text="Rows on a page.")
    q = serializers.CharField(
        required=False, allow_blank=True, max_length=Q_LENGTH, help_text="Words, or a sentence."
    )
    kind = KindField(Kind.values, required=False, help_text="Only items of this side.")
    status = KindField(
        ITEM_STATUSES,
        default=Item.Status.OPEN.value,
        help_text="Items that are not open are found by their words alone.",
    )
    category = serializers.CharField(
        required=False, max_length=fields.NAME_LENGTH, help_text="Only this one, as it is."
    )
    country = serializers.RegexField(
        "^[A-Za-z]{2}$", required=False, help_text="ISO 3166-1 alpha-2."
    )
    city = serializers.CharField(
        required=False, max_length=fields.NAME_LENGTH, help_text="Only this one, as it is."
    )
    latitude = DegreesField(bound=90, required=False, help_text="Degrees; goes with longitude.")
    longitude = DegreesField(bound=180, required=False, help_text="Degrees; goes with latitude.")
    radius_m = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_RADIUS_M,
        help_text="Only items within so many metres of the place.",
    )

    def get_fields(self) -> dict[str, serializers.Field]:
        known = super().get_fields()
        known["from"] = serializers.DateField(
            required=False, help_text="First day on which it happened, or was posted."
        )
        known["to"] = serializers.DateField(required=False, help_text="Last day, inclusive.")
        return known

    def validate_country(self, code: str) -> str:
        return code.upper()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        place = [name for name in ("latitude", "longitude") if name in attrs]
        if len(place) == 1:
            missing = "longitude" if place == ["latitude"] else "latitude"
            raise serializers.ValidationError({missing: f"Is missing: it goes with {place[0]}."})
        if "radius_m" in attrs and not place:
            raise serializers.ValidationError({"radius_m": "Needs latitude and longitude."})
        if "from" in attrs and "to" in attrs and attrs["from"] > attrs["to"]:
            raise serializers.ValidationError({"from": "Is later than to."})
        return attrs


class RecentQuery(QuerySerializer):
    """Parameters of GET items/recent."""

    kind = KindField(Kind.values, required=False, help_text="Only items of this side.")
    limit = LimitField(default=50)


class _ItemBase(serializers.Serializer):
    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=Kind.values)
    status = serializers.ChoiceField(choices=ITEM_STATUSES)
    category = serializers.CharField(allow_blank=True)
    title = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    attributes = AttributesField()
    country = serializers.CharField(allow_blank=True)
    city = serializers.CharField(allow_blank=True)


class OwnItemSerializer(_ItemBase):
    """An item as its owner sees it."""

    latitude = serializers.FloatField(allow_null=True)
    longitude = serializers.FloatField(allow_null=True)
    geohash = serializers.CharField(allow_null=True, help_text="Of 9 characters, about 5 m.")
    happened_on = serializers.DateField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)


class WrittenItemSerializer(OwnItemSerializer):
    """An item as it was just written."""

    match_task = serializers.UUIDField(
        allow_null=True,
        help_text="The task that looks for its counterparts; null where nothing needs that.",
    )


class PublicItemSerializer(_ItemBase):
    """An item as others see it: no owner, and no finer place than `cell`."""

    cell = serializers.CharField(allow_null=True, help_text="Geohash of 6 characters, about 1 km.")
    happened_on = serializers.DateField(allow_null=True)
    created_at = serializers.DateTimeField()


class OwnItemPageSerializer(serializers.Serializer):
    """A page of one's items, newest first."""

    next_cursor = serializers.CharField(allow_null=True)
    results = OwnItemSerializer(many=True)


class ComponentSerializer(serializers.Serializer):
    """A part of a score. The contributions of all parts add up to it."""

    name = serializers.CharField()
    raw = serializers.FloatField(help_text="0 to 1: how well the two agree in this.")
    weight = serializers.FloatField(help_text="Its share, renormalised over what is known.")
    contribution = serializers.FloatField()


class MatchSerializer(serializers.Serializer):
    """A counterpart that was found for an item, and why."""

    id = serializers.IntegerField()
    pair = serializers.ChoiceField(choices=Pair.values)
    state = serializers.ChoiceField(
        choices=MATCH_STATES, help_text="`confirmed` once both sides have."
    )
    score = serializers.FloatField(help_text="0 to 1; 0.5 is as likely as not.")
    components = ComponentSerializer(many=True)
    degraded = serializers.CharField(
        allow_blank=True, help_text="What was out of order when it was scored; empty for nothing."
    )
    confirmed_at = serializers.DateTimeField(allow_null=True, help_text="By you.")
    other_confirmed_at = serializers.DateTimeField(allow_null=True, help_text="By the other side.")
    found_at = serializers.DateTimeField()
    scored_at = serializers.DateTimeField()
    item = PublicItemSerializer(help_text="The other side's.")


class MatchPageSerializer(serializers.Serializer):
    """A page of an item's matches, best first."""

    next_cursor = serializers.CharField(allow_null=True)
    results = MatchSerializer(many=True)


class HitSerializer(serializers.Serializer):
    """A counterpart in the results of a job."""

    match = serializers.IntegerField(
        allow_null=True, help_text="Id of the match, to confirm or dismiss; null for a query."
    )
    score = serializers.FloatField()
    components = ComponentSerializer(many=True)
    item = PublicItemSerializer()


class JobSerializer(serializers.Serializer):
    """A match job on its way."""

    task_id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=JOB_STATES)
    progress = serializers.CharField(allow_blank=True)
    ahead = serializers.IntegerField(
        allow_null=True, help_text="Jobs before it, counted to 1,000; null unless it waits."
    )
    attempts = serializers.IntegerField()
    item = serializers.IntegerField(allow_null=True, help_text="Null for a query.")
    submitted_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True, help_text="Until then it can be read.")


class JobResultSerializer(JobSerializer):
    """A match job that has ended. `failed` and `cancelled` ones have no results."""

    degraded = serializers.CharField(
        allow_blank=True, help_text="What was out of order; empty for nothing."
    )
    error = serializers.CharField(allow_blank=True, help_text="Why it failed.")
    routes = serializers.DictField(
        child=serializers.IntegerField(), help_text="Candidates by the route that found them."
    )
    results = HitSerializer(many=True, help_text="Best first, MATCHING_RESULTS (20) at most.")


class SearchHitSerializer(serializers.Serializer):
    """An item that a search found."""

    score = serializers.FloatField()
    components = ComponentSerializer(many=True)
    item = PublicItemSerializer()


class SearchPageSerializer(serializers.Serializer):
    """A page of search results, best first."""

    next_cursor = serializers.CharField(allow_null=True)
    degraded = serializers.CharField(
        allow_blank=True, help_text="What was out of order; empty for nothing."
    )
    results = SearchHitSerializer(many=True)


class RecentSerializer(serializers.Serializer):
    """The newest items."""

    results = PublicItemSerializer(many=True)


class BadgesSerializer(serializers.Serializer):
    """Counts, each up to 1,000; of matches those of the newest 200 open items."""

    open_items = serializers.IntegerField()
    matches_to_review = serializers.IntegerField(help_text="Suggested, and not confirmed by you.")
    matches_awaiting_me = serializers.IntegerField(help_text="Those that the other side confirmed.")
    matches_confirmed = serializers.IntegerField(
        help_text="By both, of open items: those of a resume and a job, since others are settled."
    )
    unread_notifications = serializers.IntegerField()


class NotifiedItemSerializer(serializers.Serializer):
    """An item that a notification is about."""

    id = serializers.IntegerField()
    title = serializers.CharField()


class NotificationSerializer(serializers.Serializer):
    """Something to hear of."""

    id = serializers.IntegerField()
    subject = serializers.ChoiceField(choices=Notification.Subject.values)
    created_at = serializers.DateTimeField()
    read_at = serializers.DateTimeField(allow_null=True)
    item = NotifiedItemSerializer(allow_null=True, help_text="Yours.")
    other = NotifiedItemSerializer(allow_null=True, help_text="Null once it is deleted.")


class NotificationPageSerializer(serializers.Serializer):
    """A page of notifications, newest first."""

    next_cursor = serializers.CharField(allow_null=True)
    results = NotificationSerializer(many=True)


class ReadSerializer(serializers.Serializer):
    """What became of it."""

    read = serializers.IntegerField(help_text="Notifications that were unread before.")
