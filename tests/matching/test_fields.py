"""What an item's fields may hold."""

from datetime import UTC, date, datetime, timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from matching import fields
from matching.fields import InvalidItem, clean

GOOD = {"kind": "lost", "title": "Red phone"}
SOON = timezone.now() + timedelta(days=1)


def refused(**given):
    """The fields that are wrong, with the reasons."""
    with pytest.raises(InvalidItem) as caught:
        clean(GOOD | given)
    return caught.value.errors


def test_what_is_clean_stays_and_what_is_loose_is_trimmed():
    given = GOOD | {
        "description": "Two lines\nand\ta tab\r\n",
        "attributes": {" colour ": "red", "weight": 1.5, "new": True, "note": None, "n": 2},
        "country": "gb",
        "city": " St  Andrews ",
        "latitude": 55,
        "longitude": -180.0,
        "happened_on": date(2026, 2, 28),
        "expires_at": SOON,
        "title": "  Red\n phone ",
    }
    assert clean(given) == given | {
        "description": "Two lines\nand\ta tab",
        "attributes": {"colour": "red", "weight": 1.5, "new": True, "note": None, "n": 2},
        "country": "GB",
        "city": "St Andrews",
        "latitude": 55.0,
        "title": "Red phone",
    }


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("kind", "stolen", "one of lost, found"),
        ("kind", None, "one of"),
        ("kind", ["lost"], "one of"),
        ("title", "", "blank"),
        ("title", " \n ", "blank"),
        ("title", "x" * 301, "300 characters"),
        ("title", "nul\0", "U+0000"),
        ("title", "bell\a", "U+0007"),
        ("title", "half \ud800 pair", "U+D800"),
        ("title", 7, "text"),
        ("description", "x" * 10_000_000, "20,000 characters"),
        ("description", "\x1f", "U+001F"),
        ("category", "x" * 101, "100 characters"),
        ("country", "GBR", "two letters"),
        ("country", "ÄÖ", "two letters"),
        ("latitude", 91, "-90 to 90"),
        ("latitude", float("nan"), "-90 to 90"),
        ("latitude", float("inf"), "-90 to 90"),
        ("latitude", "55", "number"),
        ("latitude", True, "number"),
        ("longitude", -180.01, "-180 to 180"),
        ("longitude", 10**400, "-180 to 180"),
        ("attributes", [], "object"),
        ("attributes", {"a": {}}, "flat"),
        ("attributes", {"a": [1]}, "flat"),
        ("attributes", {"a": float("nan")}, "flat"),
        ("attributes", {"a": 1 << 63}, "flat"),
        ("attributes", {" ": 1}, "name"),
        ("attributes", {1: 1}, "text"),
        ("attributes", {"a": "\0"}, "U+0000"),
        ("attributes", {"a\0": 1}, "U+0000"),
        ("attributes", {str(n): n for n in range(51)}, "50 entries"),
        ("attributes", {"a": "x" * 10_001}, "10,000"),
        ("attributes", {"a": "é" * 6_000}, "bytes"),
        ("happened_on", "2026-01-01", "date"),
        ("happened_on", datetime(2026, 1, 1, tzinfo=UTC), "date"),
        ("happened_on", date(1, 1, 1), "1900"),
        ("expires_at", datetime(2050, 1, 1), "zone"),  # noqa: DTZ001 -- that is the point
        ("expires_at", datetime(2020, 1, 1, tzinfo=UTC), "future"),
        ("owner", 1, "not a field"),
        ("is_deleted", True, "not a field"),
        ("terms", "x", "not a field"),
    ],
)
def test_what_is_refused_is_named_with_its_reason(field, value, reason):
    given = {"latitude": 1.0, "longitude": 1.0} | {field: value}
    errors = refused(**given)
    assert list(errors) == [field]
    assert reason in errors[field]


def test_every_wrong_field_is_named_at_once():
    assert refused(title="", latitude=91, longitude=0, colour="red").keys() == {
        "title", "latitude", "colour",
    }  # fmt: skip
    with pytest.raises(InvalidItem) as caught:
        clean({})
    assert caught.value.errors.keys() == {"kind", "title"}
    assert clean({}, partial=True) == {}


@pytest.mark.parametrize(
    ("place", "missing"),
    [
        ({"latitude": 1.0}, "longitude"),
        ({"longitude": 1.0}, "latitude"),
        ({"latitude": None, "longitude": 1.0}, "latitude"),
    ],
)
def test_half_a_place_is_none(place, missing):
    assert refused(**place).keys() == {missing}


def test_no_place_at_all_is_one():
    assert clean({"latitude": None, "longitude": None}, partial=True) == {
        "latitude": None, "longitude": None,
    }  # fmt: skip


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*fields._CHECKS, "x", "\0"]), values))
def test_anything_is_cleaned_or_refused_and_what_is_clean_stays_so(given):
    errors, cleaned = {}, None
    try:
        cleaned = clean(given)
    except InvalidItem as error:
        errors = error.errors
    assert all(reason for reason in errors.values())
    assert errors or clean(cleaned) == cleaned
