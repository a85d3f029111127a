"""Query parameters: declared as a serializer, validated, unknown ones refused; and JSON bodies."""

from collections.abc import Mapping
from typing import Any, Self

from rest_framework import serializers

from config.fields import printable
from config.pagination import MAX_LENGTH as CURSOR_LENGTH
from config.problems import flatten, invalid, invalid_fields

MAX_VALUE_LENGTH = 4_000  # characters; no parameter needs more, a cursor comes closest


class QuerySerializer(serializers.Serializer):
    """Base of an endpoint's query parameters.

    `params = CatalogQuery.parse(request)` gives the validated values, defaults included, or
    raises a 400 Problem that names each parameter that is unknown, given twice or not valid.
    `@extend_schema(parameters=[CatalogQuery])` puts the same fields into the OpenAPI document.
    """

    @classmethod
    def parse(cls, request, **context: Any) -> dict[str, Any]:
        """The validated parameters of `request`; `context` reaches the serializer."""
        given = request.GET
        serializer = cls(data=given, context=context)
        errors = list(serializer.misuse(given))
        if not errors and not serializer.is_valid():
            errors = flatten(serializer.errors)
        if errors:
            raise invalid_fields(errors)
        return dict(serializer.validated_data)

    def misuse(self: Self, given) -> list[dict[str, str]]:
        """What is wrong with the parameters' names, counts and lengths."""
        known = ", ".join(self.fields)
        errors = []
        for name, values in given.lists():
            field = self.fields.get(name)
            if field is None:
                reason = f"Is not a parameter here; known: {known or 'none'}."
            elif len(values) > 1 and not isinstance(field, CommaListField):
                reason = "Is given more than once."
            elif any(len(value) > MAX_VALUE_LENGTH for value in values):
                reason = f"Is longer than {MAX_VALUE_LENGTH:,} characters."
            else:
                continue
            errors.append({"name": printable(name), "reason": reason})
        return errors


class NoQuery(QuerySerializer):
    """For endpoints without parameters."""


class LimitField(serializers.IntegerField):
    """How many rows are asked for: from 1 to `most`."""

    def __init__(
        self, *, default: int = 20, most: int = 100, help_text: str = "How many at most."
    ) -> None:
        super().__init__(min_value=1, max_value=most, default=default, help_text=help_text)


class CursorField(serializers.CharField):
    """Where a page begins; see `config.pagination`."""

    def __init__(self, help_text: str = "`next_cursor` of the page before.") -> None:
        super().__init__(required=False, max_length=CURSOR_LENGTH, help_text=help_text)


class PageQuery(QuerySerializer):
    """Parameters of a list by keyset."""

    limit = LimitField(help_text="Rows on a page.")
    cursor = CursorField()


class CommaListField(serializers.ListField):
    """`a,b`, or the parameter repeated, as a list without blanks and duplicates."""

    def get_value(self, dictionary: Any) -> Any:
        values = dictionary.getlist(self.field_name)
        if not values:
            return serializers.empty
        parts = (part.strip() for value in values for part in value.split(","))
        return list(dict.fromkeys(filter(None, parts)))


def object_of(data: Any) -> dict[str, Any]:
    """A body that is a JSON object. Raises a 400 Problem that names `body` for any other."""
    if not isinstance(data, Mapping):
        raise invalid(body="Must be a JSON object.")
    return dict(data)
