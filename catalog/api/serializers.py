"""What the catalog's endpoints take and give, for validation and for the OpenAPI document.

Answers are rendered from plain data (`catalog.queries`), not through these serializers: tests
hold the two together.
"""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import orjson
from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.parsers import BaseParser

from catalog.actions import SNAPSHOTS_AT_ONCE
from catalog.queries import AVAILABILITIES, SORTS
from catalog.rows import CURRENCIES, TAG_LENGTH
from catalog.slugs import slug
from config.pagination import PAGE_DEPTH_CAP
from config.params import CommaListField, CursorField, LimitField, QuerySerializer
from config.problems import Problem, invalid
from config.rendering import read_body

Q_LENGTH = 200
_AVAILABILITY_HELP = "What is on sale, can be ordered ahead, or neither."
_PRICE = {"max_digits": 14, "decimal_places": 4}


@extend_schema_field({"type": "string", "example": "EUR", "pattern": "^[A-Za-z]{3}$"})
class CurrencyField(serializers.CharField):
    """An ISO 4217 code in either letter case, as capitals."""

    def to_internal_value(self, data: Any) -> str:
        code = super().to_internal_value(data).upper()
        if code not in CURRENCIES:
            raise serializers.ValidationError("Is not an ISO 4217 currency code.")
        return code


@extend_schema_field({"type": "string", "example": "2025-10-01"})
class DayOrTimeField(serializers.Field):
    """A day or a time in ISO 8601, as an aware time; without an offset it is UTC.

    `ends`: the field bounds a range from above and includes what it names, so that a day stands
    for the start of the next one, and a time for the microsecond after it.
    """

    def __init__(self, *, ends: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.ends = ends

    def to_internal_value(self, data: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(data)
        except ValueError as error:
            raise serializers.ValidationError(
                "Is neither a day (2025-10-01) nor a time (2025-10-01T06:00:00Z)."
            ) from error
        if not 1900 <= moment.year < 2200:
            raise serializers.ValidationError("Lies outside the years 1900 to 2199.")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        if self.ends:
            whole_day = moment.time() == time() and len(data) <= len("2025-10-01")
            moment += timedelta(days=1) if whole_day else timedelta(microseconds=1)
        return moment

    def to_representation(self, value: datetime) -> str:
        return value.isoformat()


class CatalogQuery(QuerySerializer):
    """Parameters of GET catalog."""

    page = serializers.IntegerField(
        min_value=1,
        default=1,
        help_text=f"Numbered pages reach {PAGE_DEPTH_CAP:,} rows deep; `cursor` goes on.",
    )
    page_size = serializers.IntegerField(
        min_value=1, max_value=100, default=50, help_text="Cards on a page."
    )
    cursor = CursorField("`next_cursor` of the page before, with the same filters and sort.")
    availability = serializers.ChoiceField(
        choices=list(AVAILABILITIES), default="all", help_text=_AVAILABILITY_HELP
    )
    min_price = serializers.DecimalField(
        **_PRICE, min_value=0, required=False, help_text="In `currency`."
    )
    max_price = serializers.DecimalField(
        **_PRICE, min_value=0, required=False, help_text="In `currency`."
    )
    categories = CommaListField(
        child=serializers.CharField(),
        max_length=50,
        required=False,
        help_text="Products with any of these, separated by commas; see `meta/categories`.",
    )
    q = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=Q_LENGTH,
        help_text="Words of the name (each may be unfinished or mistyped), or a product code.",
    )
    sort = serializers.ChoiceField(
        choices=list(SORTS),
        required=False,
        help_text="A leading minus turns the order. Default: `relevance` with `q`, else `name`.",
    )
    currency = CurrencyField(
        required=False, help_text="Of `price`, the price bounds and the sorts by price or discount."
    )

    def validate_categories(self, tags: list[str]) -> list[str]:
        if any(len(tag) > TAG_LENGTH for tag in tags):
            raise serializers.ValidationError(f"Holds one of over {TAG_LENGTH} characters.")
        return sorted({slug(tag) for tag in tags} - {""})

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        low, high = attrs.get("min_price"), attrs.get("max_price")
        if low is not None and high is not None and low > high:
            raise serializers.ValidationError({"min_price": "Is greater than max_price."})
        if "cursor" in attrs and "page" in self.initial_data:
            raise serializers.ValidationError({"cursor": "Goes without page."})
        q = attrs.setdefault("q", "")
        attrs.setdefault("sort", "relevance" if q else "name")
        if attrs["sort"] == "relevance" and not q:
            raise serializers.ValidationError({"sort": "relevance needs q."})
        attrs.setdefault("currency", settings.CATALOG_DEFAULT_CURRENCY)
        attrs.setdefault("categories", [])
        return attrs


class ProductQuery(QuerySerializer):
    """Parameters of GET products/{slug}."""

    resolution = serializers.ChoiceField(
        choices=["auto", "raw", "day", "week"],
        default="auto",
        help_text="`auto`: raw for up to 3 days, day for up to 750, else week.",
    )
    redirect = serializers.ChoiceField(
        choices=["yes", "no"],
        default="yes",
        help_text="`no` shows the page of a renamed product instead of a redirect.",
    )

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = super().get_fields()
        fields["from"] = DayOrTimeField(
            required=False, help_text="First day or time of the history."
        )
        fields["to"] = DayOrTimeField(
            required=False, ends=True, help_text="Last day or time of the history, inclusive."
        )
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "from" in attrs and "to" in attrs and attrs["from"] >= attrs["to"]:
            raise serializers.ValidationError({"from": "Is later than to."})
        return attrs


class SuggestQuery(QuerySerializer):
    """Parameters of GET search/suggest."""

    q = serializers.CharField(max_length=Q_LENGTH, help_text="What was typed so far.")
    availability = serializers.ChoiceField(
        choices=list(AVAILABILITIES), default="all", help_text=_AVAILABILITY_HELP
    )
    limit = LimitField(default=10, most=20)


class RecentQuery(QuerySerializer):
    """Parameters of GET snapshots/recent."""

    limit = LimitField(default=50, most=200)


class OfferSerializer(serializers.Serializer):
    """The lowest current price in one currency."""

    price = serializers.DecimalField(**_PRICE)
    seller = serializers.CharField()
    prior_low = serializers.DecimalField(
        **_PRICE,
        allow_null=True,
        help_text="Lowest price of this seller in the 30 days before the price came into force.",
    )
    discount = serializers.DecimalField(
        max_digits=5, decimal_places=2, help_text="Percent below `prior_low`, 0 where not below."
    )


class _ProductBase(serializers.Serializer):
    slug = serializers.CharField()
    name = serializers.CharField()
    hero_image_url = serializers.CharField(allow_blank=True)
    offers = serializers.DictField(child=OfferSerializer(), help_text="By currency.")
    is_available = serializers.BooleanField()
    is_preorder = serializers.BooleanField()


class CardSerializer(_ProductBase):
    """A product in a list."""

    category_tags = serializers.ListField(child=serializers.CharField())
    sellers = serializers.IntegerField(help_text="How many sellers list it.")
    currency = serializers.CharField(help_text="Of price, prior_low and discount: as asked.")
    price = serializers.DecimalField(
        **_PRICE, allow_null=True, help_text="Null without a current offer in this currency."
    )
    prior_low = serializers.DecimalField(**_PRICE, allow_null=True)
    discount = serializers.DecimalField(max_digits=5, decimal_places=2, allow_null=True)
    updated_at = serializers.DateTimeField()


class CardPageSerializer(serializers.Serializer):
    """A page of cards."""

    total = serializers.IntegerField(
        allow_null=True, help_text="Exact up to 10,000; null where there are more."
    )
    total_estimate = serializers.IntegerField(
        help_text="`total` where it is known, else by the planner's statistics."
    )
    page = serializers.IntegerField(allow_null=True, help_text="Null after a cursor.")
    page_size = serializers.IntegerField()
    next = serializers.CharField(allow_null=True, help_text="Path of the next page.")
    previous = serializers.CharField(allow_null=True, help_text="Null after a cursor.")
    next_cursor = serializers.CharField(allow_null=True)
    results = CardSerializer(many=True)


class OutlierSerializer(serializers.Serializer):
    """A price beyond ×3 or ÷3 of the line's median at that time."""

    at = serializers.DateTimeField()
    price = serializers.DecimalField(**_PRICE)
    median = serializers.DecimalField(**_PRICE)
    state = serializers.ChoiceField(choices=["suspect", "confirmed", "accepted", "rejected"])


class PointSerializer(serializers.Serializer):
    """A day or a week (first, last, low, high), or one observation (price and the flags)."""

    at = serializers.CharField(help_text="The day, the week's Monday, or the time.")
    first = serializers.DecimalField(**_PRICE, required=False)
    last = serializers.DecimalField(**_PRICE, required=False)
    low = serializers.DecimalField(**_PRICE, required=False)
    high = serializers.DecimalField(**_PRICE, required=False)
    price = serializers.DecimalField(**_PRICE, required=False, allow_null=True)
    is_available = serializers.BooleanField(required=False)
    is_preorder = serializers.BooleanField(required=False)


class LineSerializer(serializers.Serializer):
    """The history at one seller in one currency. Outliers are left out of lows and discounts."""

    seller = serializers.CharField()
    currency = serializers.CharField()
    name = serializers.CharField(help_text="As this seller writes it.")
    product_code = serializers.CharField(allow_blank=True)
    is_available = serializers.BooleanField()
    is_preorder = serializers.BooleanField()
    price = serializers.DecimalField(**_PRICE, allow_null=True, help_text="The last one seen.")
    price_at = serializers.DateTimeField(allow_null=True)
    price_since = serializers.DateTimeField(allow_null=True)
    previous_price = serializers.DecimalField(**_PRICE, allow_null=True)
    prior_low = serializers.DecimalField(**_PRICE, allow_null=True)
    discount = serializers.DecimalField(max_digits=5, decimal_places=2)
    lowest = serializers.DecimalField(**_PRICE, allow_null=True)
    highest = serializers.DecimalField(**_PRICE, allow_null=True)
    first_seen = serializers.DateTimeField()
    last_seen = serializers.DateTimeField()
    observations = serializers.IntegerField()
    outliers = OutlierSerializer(many=True, help_text="The newest 100 of the range.")
    points = PointSerializer(many=True, help_text="The newest 750 of the range, oldest first.")
    truncated = serializers.BooleanField(help_text="Whether the range has older points.")


class ProductSerializer(_ProductBase):
    """A product with its history."""

    description = serializers.CharField(allow_blank=True)
    category_tags = serializers.ListField(child=serializers.CharField())
    sellers = serializers.IntegerField()
    first_seen = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    renamed_to = serializers.CharField(allow_null=True, help_text="The slug it has now.")
    resolution = serializers.ChoiceField(choices=["raw", "day", "week"])
    series = LineSerializer(many=True)


class SuggestionSerializer(_ProductBase):
    """A product that fits what was typed."""

    match = serializers.ChoiceField(
        choices=["prefix", "words", "similar"],
        help_text="The name starts so; has such words; has similar words.",
    )


class SuggestionsSerializer(serializers.Serializer):
    """Suggestions, the best first."""

    results = SuggestionSerializer(many=True)


class CategorySerializer(serializers.Serializer):
    """A category."""

    tag = serializers.CharField()
    products = serializers.IntegerField()
    available = serializers.IntegerField()


class CategoriesSerializer(serializers.Serializer):
    """The 1,000 largest categories."""

    results = CategorySerializer(many=True)


class RecentSnapshotSerializer(serializers.Serializer):
    """A snapshot as it was recorded."""

    scraped_at = serializers.DateTimeField()
    slug = serializers.CharField()
    name = serializers.CharField()
    seller = serializers.CharField()
    product_code = serializers.CharField(allow_blank=True)
    price = serializers.DecimalField(**_PRICE, allow_null=True)
    currency = serializers.CharField()
    is_available = serializers.BooleanField()
    is_preorder = serializers.BooleanField()


class RecentSnapshotsSerializer(serializers.Serializer):
    """The newest snapshots of all sellers, the newest first."""

    results = RecentSnapshotSerializer(many=True)


class SnapshotSerializer(serializers.Serializer):
    """One observation to record. Bad ones are rejected one by one, with a reason each."""

    product_name = serializers.CharField(max_length=2_000)
    seller = serializers.CharField(max_length=100)
    price = serializers.CharField(
        allow_null=True, help_text="A plain number, as text or JSON number; null where unavailable."
    )
    currency = serializers.CharField(help_text="ISO 4217.")
    scraped_at = serializers.DateTimeField()
    product_code = serializers.CharField(required=False, max_length=200)
    availability = serializers.ChoiceField(
        choices=["available", "preorder", "unavailable"], required=False
    )
    is_available = serializers.BooleanField(required=False)
    is_preorder = serializers.BooleanField(required=False)
    category_tags = serializers.ListField(child=serializers.CharField(), required=False)
    hero_image_url = serializers.URLField(required=False, max_length=2_000)
    description = serializers.CharField(required=False, max_length=10_000)


class OutcomeSerializer(serializers.Serializer):
    """What became of one row."""

    row = serializers.IntegerField(help_text="Its position in the request, from 1.")
    outcome = serializers.ChoiceField(choices=["accepted", "duplicate", "conflict", "rejected"])
    reason = serializers.CharField(required=False)
    field = serializers.CharField(required=False)
    detail = serializers.CharField(required=False)


class ReportSerializer(serializers.Serializer):
    """What became of the rows; one outcome for each, in order."""

    accepted = serializers.IntegerField()
    duplicate = serializers.IntegerField(help_text="Recorded before with the same price.")
    conflict = serializers.IntegerField(help_text="Recorded before with another, which stays.")
    rejected = serializers.IntegerField()
    rows = OutcomeSerializer(many=True)


class NdjsonParser(BaseParser):
    """One JSON value a line; blank lines do not count. Gives the list of values."""

    media_type = "application/x-ndjson"

    def parse(self, stream, media_type=None, parser_context=None) -> list[Any]:
        """Raises Problem: 400 that names the first line that is not JSON, 413."""
        values = []
        for number, line in enumerate(read_body(stream).split(b"\n"), 1):
            if not line.strip():
                continue
            if len(values) == SNAPSHOTS_AT_ONCE:
                raise too_many_rows()
            try:
                values.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                reason = f"Is not valid JSON: {error}."
                raise invalid(**{f"line {number}": reason}) from error
        return values


def too_many_rows() -> Problem:
    """A 413 for more rows than one request may bring."""
    return Problem(
        413,
        detail=f"A request may bring {SNAPSHOTS_AT_ONCE:,} snapshots at most; send several.",
        limit=SNAPSHOTS_AT_ONCE,
    )


def snapshot_rows(data: Any) -> list[Any]:
    """The rows of a request body: an array, or an object with nothing but `snapshots`.

    Raises Problem: 400 for another shape or no row at all, 413 for too many.
    """
    rows = data["snapshots"] if isinstance(data, dict) and set(data) == {"snapshots"} else data
    if not isinstance(rows, list):
        reason = "Must be an array of snapshots, or an object with that under `snapshots`."
        raise invalid(body=reason)
    if not rows:
        raise invalid(body="Holds no snapshots.")
    if len(rows) > SNAPSHOTS_AT_ONCE:
        raise too_many_rows()
    return rows
