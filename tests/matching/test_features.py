"""Attributes that are written in several ways, and how far they agree."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching.features import ATTRIBUTES, NAME_LENGTH, WORDS, agreement, normalise

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40))
GIVEN = st.dictionaries(
    st.text(max_size=20), st.one_of(SCALARS, st.lists(SCALARS, max_size=4)), max_size=8
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (910.91, 910.91),
        (3, 3.0),
        ("910.91", 910.91),
        ("1.299,00 €", 1299.0),
        ("$1,299", 1299.0),
        ("€ 12,5", 12.5),
        ("64 GB", 64e9),
        ("64gb", 64e9),
        ("2.5 kg", 2.5),
        ("5 apples", ["5", "apples"]),
        ("15213", ["15213"]),  # may be a post code: one off is another one
        ("EH1 1HB", ["eh1", "1hb"]),
        ("Lothian Street, 41", ["lothian", "street", "41"]),
        (True, True),
        ("12:30", ["12", "30"]),
        ("8.0.1", ["8.0.1"]),
        ("1,2,3", ["1.2.3"]),
        ("-4", -4.0),
    ],
)
def test_one_way_to_store_a_value(value, expected):
    stored = normalise({"name": value})["name"]
    assert stored == pytest.approx(expected) if isinstance(expected, float) else stored == expected


@pytest.mark.parametrize(
    "value", [None, "", "♥", {}, {"a": 1}, [], [None], math.nan, math.inf, 10**400]
)
def test_what_says_nothing_is_left_out(value):
    assert normalise({"name": value}) == {}


def test_names_are_folded():
    assert normalise({"Colour ": "red", "Größe": 1.0}) == {"colour": ["red"], "grosse": 1.0}
    assert normalise({"a": 1.0, "A": 2.0}) == {"a": 1.0}


def test_features_are_bounded():
    stored = normalise({f"n{number}": "word " * 1_000 for number in range(500)})
    assert len(stored) == ATTRIBUTES
    assert len(json.dumps(stored)) < 10_000


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ({"colour": "red"}, {"Colour": "dark RED"}, 1.0),
        ({"colour": "red"}, {"colour": "blue"}, 0.0),
        ({"price": "25"}, {"price": 50.0}, 0.5),
        ({"price": -1.0}, {"price": 50.0}, 0.0),
        ({"storage": "64 GB"}, {"storage": "64000 MB"}, 1.0),
        ({"chip": True}, {"chip": False}, 0.0),
        ({"chip": True}, {"chip": 1}, 0.0),
        ({"post": "15213"}, {"post": "15212"}, 0.0),
        ({"a": "x", "b": "y"}, {"a": "x", "b": "z", "c": "w"}, 0.5),
        ({"a": "x"}, {"b": "x"}, None),
        ({}, {}, None),
    ],
)
def test_agreement(left, right, expected):
    assert agreement(normalise(left), normalise(right)) == expected


@given(GIVEN, GIVEN)
def test_agreement_is_a_share_and_the_same_both_ways(left, right):
    left, right = normalise(left), normalise(right)
    assert json.loads(json.dumps(left, allow_nan=False)) == left
    both = agreement(left, right)
    assert both == pytest.approx(agreement(right, left))
    assert both is None or 0 <= both <= 1
    assert agreement(left, left) in (None, 1.0)


@given(GIVEN)
def test_normalised_values_are_bounded_and_not_empty(attributes):
    made = normalise(attributes)
    assert len(made) <= ATTRIBUTES
    for name, value in made.items():
        assert 0 < len(name) <= NAME_LENGTH
        assert not any(character.isspace() for character in name)
        if isinstance(value, list):
            assert 0 < len(value) <= WORDS
            assert all(value)
        else:
            assert math.isfinite(value)
