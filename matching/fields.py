"""What an item's fields may hold, whether they come from a request, an import or a description.

`clean` is pure: no database. What it returns can be stored as it is.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from django.utils import timezone

from config.fields import MAX_ID, InvalidFields, Refused, optional, text
from matching.kinds import Kind

TITLE_LENGTH = 300
DESCRIPTION_LENGTH = 20_000
NAME_LENGTH = 100
EXTERNAL_ID_LENGTH = 200
ATTRIBUTES_MAX_KEYS = 50
ATTRIBUTES_MAX_BYTES = 10_000  # as JSON
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2200, 1, 1)

# A tenth of a micrometre. What PostgreSQL multiplies must not vanish below its smallest number.
DEGREE_PLACES = 12
# Control characters but tab, line feed and carriage return; and lone surrogates, which UTF-8 lacks.
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class InvalidItem(InvalidFields):
    """An item that cannot be stored."""


def clean(given: Mapping[str, Any], *, partial: bool = False) -> dict[str, Any]:
    """The given fields, checked and trimmed. Without `partial`, kind and title must be among them.

    Latitude and longitude go together, both numbers or both None. Raises InvalidItem with every
    field that is wrong, unknown or missing.
    """
    cleaned, errors = {}, {}
    for name, value in given.items():
        try:
            cleaned[name] = _check_of(name)(value)
        except Refused as refused:
            errors[str(name)[:NAME_LENGTH]] = str(refused)
    required = () if partial else ("kind", "title")
    errors |= {name: "Is missing." for name in required if name not in given}
    errors |= _halves(cleaned, errors)
    if errors:
        raise InvalidItem(errors)
    return cleaned


def _check_of(name: str):
    if name not in _CHECKS:
        raise Refused(f"Is not a field of an item; known: {', '.join(_CHECKS)}.")
    return _CHECKS[name]


def _halves(cleaned: Mapping[str, Any], errors: Mapping[str, str]) -> dict[str, str]:
    """A latitude without a longitude, or the other way round."""
    place = {name: cleaned.get(name) for name in ("latitude", "longitude")}
    if place.keys() & errors.keys() or len({value is None for value in place.values()}) == 1:
        return {}
    missing, given = sorted(place, key=lambda name: place[name] is not None)
    return {missing: f"Is missing: it goes with {given}."}


def _text(value: Any, limit: int) -> str:
    given = text(value, limit)
    if found := _UNWANTED.search(given):
        raise Refused(f"Contains the character U+{ord(found[0]):04X}, which is not text.")
    return given.strip()


def _line(value: Any, limit: int = NAME_LENGTH) -> str:
    return " ".join(_text(value, limit).split())


def _kind(value: Any) -> str:
    if value not in Kind.values:
        raise Refused(f"Must be one of {', '.join(Kind.values)}.")
    return str(value)


def _title(value: Any) -> str:
    title = _line(value, TITLE_LENGTH)
    if not title:
        raise Refused("May not be blank.")
    return title


def _country(value: Any) -> str:
    country = _line(value).upper()
    if country and not re.fullmatch("[A-Z]{2}", country):
        raise Refused("Must be a country code of two letters (ISO 3166-1 alpha-2).")
    return country


def _degrees(limit: int):
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused("Must be a number of degrees.")
        if not -limit <= value <= limit:  # NaN is not, either
            raise Refused(f"Must be from -{limit} to {limit} degrees.")
        return round(float(value), DEGREE_PLACES)

    return optional(check)


def _attributes(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise Refused("Must be an object.")
    if len(value) > ATTRIBUTES_MAX_KEYS:
        raise Refused(f"Must have {ATTRIBUTES_MAX_KEYS} entries at most, not {len(value)}.")
    checked = {_attribute_name(name): _attribute(one) for name, one in value.items()}
    if len(json.dumps(checked, ensure_ascii=False).encode()) > ATTRIBUTES_MAX_BYTES:
        raise Refused(f"Must be {ATTRIBUTES_MAX_BYTES:,} bytes of JSON at most.")
    return checked


def _attribute_name(name: Any) -> str:
    checked = _line(name)
    if not checked:
        raise Refused("Has an entry without a name.")
    return checked


def _attribute(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return _text(value, ATTRIBUTES_MAX_BYTES)
        case int() if abs(value) <= MAX_ID:
            return value
        case float() if math.isfinite(value):
            return value
    raise Refused("Must be flat: text, finite numbers, true, false or null.")


def _day(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise Refused("Must be a date.")
    if not FIRST_DAY <= value < LAST_DAY:
        raise Refused(f"Must be from {FIRST_DAY} to before {LAST_DAY}.")
    return value


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime) or timezone.is_naive(value):
        raise Refused("Must be a time with its zone.")
    if value.year >= LAST_DAY.year:
        raise Refused(f"Must be before {LAST_DAY}.")
    if value <= timezone.now():
        raise Refused("Must be in the future.")
    return value.astimezone(UTC)  # PostgreSQL reads no offsets of 16 hours and more


_CHECKS = {
    "kind": _kind,
    "title": _title,
    "description": lambda value: _text(value, DESCRIPTION_LENGTH),
    "category": _line,
    "attributes": _attributes,
    "country": _country,
    "city": _line,
    "latitude": _degrees(90),
    "longitude": _degrees(180),
    "happened_on": optional(_day),
    "external_id": lambda value: _line(value, EXTERNAL_ID_LENGTH),
    "expires_at": optional(_moment),
}
