"""Cursors survive the round trip, and nothing that a client makes up gets through."""

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.pagination import (
    PAGE_DEPTH_CAP,
    check_depth,
    decode_cursor,
    encode_cursor,
    next_cursor,
    page_of,
    position,
)
from config.problems import Problem

TYPES = (str, int, bool, Decimal, datetime, Decimal | None)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100)
values = st.tuples(
    text,
    st.integers(-(2**63) + 1, 2**63 - 1),  # keys begin at 1: the least bigint is none, and refused
    st.booleans(),
    st.decimals(
        allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9
    ),
    st.datetimes(
        datetime(1900, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
        datetime(2200, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    st.none() | st.just(Decimal("1.5")),
)


def forged(*parts) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@given(values, text)
def test_round_trip(row, kind):
    cursor = encode_cursor(*row, kind=kind)
    assert decode_cursor(cursor, TYPES, kind=kind) == list(row)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&#?% ")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: base64.b64encode(b).decode()))
def test_noise_is_a_problem_that_names_the_cursor(noise):
    with pytest.raises(Problem) as caught:
        decode_cursor(noise, (str, int))
    assert caught.value.status == 400
    assert caught.value.members["errors"][0]["name"] == "cursor"


@pytest.mark.parametrize(
    ("cursor", "types"),
    [
        ("", (str,)),
        ("A" * 5_000, (str,)),
        (forged(2, "", "a"), (str,)),  # another version
        (forged(1, "", "a", "b"), (str,)),  # too many values
        (forged(1, "", "a\0b"), (str,)),
        (forged(1, "", "\ud800"), (str,)),
        (forged(1, "", 2**63), (int,)),
        (forged(1, "", True), (int,)),
        (forged(1, "", 1.5), (int,)),
        (forged(1, "", "NaN"), (Decimal,)),
        (forged(1, "", "Infinity"), (Decimal,)),
        (forged(1, "", "1e999999"), (Decimal,)),
        (forged(1, "", "2025-01-01T00:00:00"), (datetime,)),  # no time zone
        (forged(1, "", "0001-01-01T00:00:00+14:00"), (datetime,)),  # not in UTC's range
        (forged(1, "", None), (str,)),
        (forged(1, "", {"a": 1}), (str,)),
        (base64.b64encode(b"[" * 3_000).decode(), (str,)),
        (forged(1, "-price", "a"), (str,)),  # another sort order
    ],
)
def test_forged_cursors(cursor, types):
    with pytest.raises(Problem) as caught:
        decode_cursor(cursor, types)
    assert caught.value.status == 400


def test_a_long_name_fits():
    name = "κ" * 300
    assert decode_cursor(encode_cursor(name, kind="name"), (str,), kind="name") == [name]


@given(st.just(0.0) | st.floats(min_value=1e-30, max_value=1e30))  # what a cursor may carry
def test_a_float_comes_back_to_the_bit(value):
    [read] = decode_cursor(encode_cursor(value), (Decimal,))
    assert float(read) == value


@pytest.mark.parametrize(("after", "types"), [(7, (int,)), (("a", 7), (str, int))])
def test_a_page_leads_to_the_next(after, types):
    page = page_of([{"id": 7}], after, kind="k")
    assert page["results"] == [{"id": 7}]
    assert position({"cursor": page["next_cursor"]}, *types, kind="k") == after
    assert position({"limit": 20}, *types, kind="k") is None
    with pytest.raises(Problem):
        position({"cursor": page["next_cursor"]}, *types, kind="other")


def test_the_last_page_leads_nowhere():
    assert page_of([], None, kind="k") == {"next_cursor": None, "results": []}
    assert next_cursor(0, kind="k") is not None  # 0 is a place like any other


def test_depth_cap():
    check_depth(PAGE_DEPTH_CAP // 50, 50)
    with pytest.raises(Problem) as caught:
        check_depth(PAGE_DEPTH_CAP // 50 + 1, 50)
    assert caught.value.members["errors"][0]["name"] == "page"
