"""Checks of single values that domains share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import fields


@given(st.text(max_size=300))
def test_a_made_up_name_is_shown_harmlessly(name):
    shown = fields.printable(name)
    assert 0 < len(shown) <= fields.NAME_SHOWN
    assert shown.isprintable()
    if name.isprintable() and 0 < len(name) <= fields.NAME_SHOWN:
        assert shown == name


def test_a_name_of_nothing_printable_has_a_name():
    assert fields.printable("\x00\ud800\u2028") == fields.printable("") == "(no name)"


@pytest.mark.parametrize(
    ("check", "value", "reason"),
    [
        (lambda value: fields.text(value, 3), None, "Must be text."),
        (lambda value: fields.text(value, 3), "four", "Must be 3 characters at most, not 4."),
        (lambda value: fields.integer(value, 1, 9), True, "Must be an integer from 1 to 9."),
        (lambda value: fields.integer(value, 1, 9), 1.0, "Must be an integer from 1 to 9."),
        (lambda value: fields.integer(value, 1, 9), 10, "Must be an integer from 1 to 9."),
        (
            lambda value: fields.degrees(value, 90),
            "9",
            "Must be a number of degrees from -90 to 90.",
        ),
        (
            lambda value: fields.degrees(value, 90),
            False,
            "Must be a number of degrees from -90 to 90.",
        ),
        (
            lambda value: fields.degrees(value, 90),
            float("nan"),
            "Must be a number of degrees from -90 to 90.",
        ),
        (lambda value: fields.entries(value, 1), "ab", "Must be a list."),
        (lambda value: fields.entries(value, 1), [1, 2], "Must have 1 entries at most, not 2."),
    ],
)
def test_what_is_refused_and_why(check, value, reason):
    with pytest.raises(fields.Refused) as caught:
        check(value)
    assert str(caught.value) == reason


def test_what_is_taken():
    assert fields.text("abc", 3) == "abc"
    assert fields.integer(9, 1, 9) == 9
    assert fields.degrees(-90, 90) == -90.0
    assert fields.entries((1,), 1) == (1,)
    check = fields.optional(lambda value: fields.integer(value, 1, 9))
    assert (check(None), check(1)) == (None, 1)
    with pytest.raises(fields.Refused):
        check(0)


def test_errors_by_field_read_as_one_line():
    error = fields.InvalidFields({"name": "Is missing.", "day": "Is not a day."})
    assert str(error) == "name: Is missing.; day: Is not a day."
    assert error.errors == {"name": "Is missing.", "day": "Is not a day."}
