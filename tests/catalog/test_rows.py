"""One observation checked: what goes in, what is refused, and why."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.rows import CURRENCIES, FIELDS, REASONS, Rejection, Row, Validator
from catalog.slugs import slug

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
GOOD = {
    "product_name": "Ρύζι 500gr",
    "product_code": "230721",
    "seller": "mymarket",
    "price": "3.45",
    "currency": "EUR",
    "scraped_at": "2025-10-02T06:00:00Z",
}


def check(**changes) -> Row | Rejection:
    values = GOOD | changes
    return Validator(clock=lambda: NOW).check([values.get(name) for name in FIELDS])


def test_a_good_row():
    assert check() == Row(
        name="Ρύζι 500gr",
        slug="ρυζι-500gr",
        code="230721",
        seller="mymarket",
        price=Decimal("3.45"),
        currency="EUR",
        scraped_at=datetime(2025, 10, 2, 6, tzinfo=UTC),
        is_available=True,
        is_preorder=False,
        tags=(),
        hero_image_url="",
        description="",
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"product_name": ""}, "empty_name"),
        ({"product_name": " \u200d "}, "empty_name"),
        ({"product_name": None}, "empty_name"),
        ({"product_name": "x" * 2_001}, "name_too_long"),
        ({"product_name": "a\0b"}, "nul_byte"),
        ({"product_name": "a\ud800"}, "encoding"),
        ({"product_name": 1.5}, "wrong_type"),
        ({"product_name": True}, "wrong_type"),
        ({"product_code": "x" * 201}, "code_too_long"),
        ({"seller": "  "}, "seller_missing"),
        ({"seller": "x" * 101}, "seller_too_long"),
        ({"seller": ["a"]}, "wrong_type"),
        ({"price": ""}, "price_missing"),
        ({"price": None}, "price_missing"),
        ({"price": None, "availability": "preorder"}, "price_missing"),
        ({"price": "0"}, "price_not_positive"),
        ({"price": "0.0000"}, "price_not_positive"),
        ({"price": "-1"}, "price_not_positive"),
        ({"price": -0.0}, "price_not_positive"),
        ({"price": "1,25"}, "price_unparsable"),
        ({"price": "1_000"}, "price_unparsable"),
        ({"price": "٣"}, "price_unparsable"),
        ({"price": "3.45 EUR"}, "price_unparsable"),
        ({"price": "nan"}, "price_unparsable"),
        ({"price": "sNaN"}, "price_unparsable"),
        ({"price": "Infinity"}, "price_unparsable"),
        ({"price": float("nan")}, "price_unparsable"),
        ({"price": float("-inf")}, "price_unparsable"),
        ({"price": "1e9999999999999999999"}, "price_unparsable"),
        ({"price": True}, "wrong_type"),
        ({"price": "1.23456"}, "price_precision"),
        ({"price": "1.00000000000000000000000000000000000001"}, "price_precision"),
        ({"price": 1e-05}, "price_precision"),
        ({"price": "10000000000"}, "price_too_large"),
        ({"price": "1e10"}, "price_too_large"),
        ({"currency": ""}, "currency_missing"),
        ({"currency": "EURO"}, "currency_unknown"),
        ({"currency": "XXX"}, "currency_unknown"),
        ({"scraped_at": ""}, "time_missing"),
        ({"scraped_at": "yesterday"}, "time_unparsable"),
        ({"scraped_at": "1759384800"}, "time_unparsable"),
        ({"scraped_at": 1759384800}, "time_unparsable"),
        ({"scraped_at": "2025-W40-3"}, "time_unparsable"),
        ({"scraped_at": "2025-02-30"}, "time_unparsable"),
        ({"scraped_at": "01/10/2025"}, "time_unparsable"),
        ({"scraped_at": "0001-01-01T00:00:00+14:00"}, "time_unparsable"),
        ({"scraped_at": "2026-01-16T12:00:01Z"}, "time_future"),
        ({"scraped_at": "1999-12-31T23:59:59Z"}, "time_past"),
        ({"availability": "sold out"}, "availability_unknown"),
        ({"availability": "available", "is_available": False}, "availability_contradiction"),
        ({"is_available": "maybe"}, "flag_unknown"),
        ({"is_preorder": "\0"}, "nul_byte"),
        ({"category_tags": ["x" * 101]}, "tag_too_long"),
        ({"category_tags": [f"tag {n}" for n in range(51)]}, "tags_too_many"),
        ({"category_tags": [{"a": 1}]}, "wrong_type"),
        ({"category_tags": {"a": 1}}, "wrong_type"),
        ({"hero_image_url": "javascript:alert(1)"}, "url_invalid"),
        ({"hero_image_url": "//host/a.png"}, "url_invalid"),
        ({"hero_image_url": "https://"}, "url_invalid"),
        ({"hero_image_url": "http://[::1"}, "url_invalid"),
        ({"hero_image_url": "https://host/a b"}, "url_invalid"),
        ({"hero_image_url": "https://host/" + "a" * 2_000}, "url_too_long"),
        ({"description": "x" * 10_001}, "description_too_long"),
        ({"description": "a\0"}, "nul_byte"),
    ],
)
def test_refused(changes, reason):
    rejection = check(**changes)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == reason
    assert reason in REASONS
    assert rejection.field in changes


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ("3.4500000", "3.45"),
        ("00012.5", "12.5"),
        (" 7 ", "7"),
        (12.5, "12.5"),
        (3, "3"),
        (0.1, "0.1"),
        (Decimal("9.99"), "9.99"),
        ("+5", "5"),
        ("1e2", "100"),
        ("9999999999.9999", "9999999999.9999"),
    ],
)
def test_prices_that_are_taken(price, expected):
    assert check(price=price).price == Decimal(expected)


def test_a_comma_gets_a_hint():
    assert "after a point" in check(price="1,25").detail
    assert "after a point" in check(price="1.234,50").detail
    assert "point" not in check(price="free").detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-10-02T06:00:00Z", datetime(2025, 10, 2, 6, tzinfo=UTC)),
        ("2025-10-02T08:00:00+02:00", datetime(2025, 10, 2, 6, tzinfo=UTC)),
        ("2025-10-02 06:00", datetime(2025, 10, 2, 6, tzinfo=UTC)),
        ("2025-10-02", datetime(2025, 10, 2, tzinfo=UTC)),
        ("20251002T060000Z", datetime(2025, 10, 2, 6, tzinfo=UTC)),
        ("2025-10-02T06:00:00.123456Z", datetime(2025, 10, 2, 6, 0, 0, 123456, tzinfo=UTC)),
        ("2026-01-16T12:00:00Z", NOW + timedelta(hours=24)),
        ("2000-01-01T00:00:00Z", datetime(2000, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_that_are_taken(text, expected):
    assert check(scraped_at=text).scraped_at == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (True, False)),
        ({"availability": " Available "}, (True, False)),
        ({"availability": "preorder"}, (False, True)),
        ({"availability": "unavailable"}, (False, False)),
        ({"is_available": "1"}, (True, False)),
        ({"is_available": False}, (False, False)),
        ({"is_preorder": "yes"}, (False, True)),
        ({"is_available": True, "is_preorder": True}, (True, True)),
        ({"availability": "preorder", "is_available": "f", "is_preorder": "t"}, (False, True)),
    ],
)
def test_availability(changes, expected):
    row = check(**changes)
    assert (row.is_available, row.is_preorder) == expected


def test_what_is_unavailable_needs_no_price():
    assert check(price="", availability="unavailable").price is None
    assert check(price=None, is_available=False).price is None
    assert check(price="2.50", availability="unavailable").price == Decimal("2.50")


def test_names_are_decoded_and_trimmed_and_otherwise_kept():
    row = check(product_name="  Black &amp; White  Ρύζι ")
    assert row.name == "Black & White  Ρύζι"
    assert row.slug == "black-white-ρυζι"
    assert check(product_name="x" * 2_000).slug == slug("x" * 2_000)
    assert check(product_name="🎲").slug.startswith("n-")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("Board Games|Καφές|board games", ("board-games", "καφεσ")),
        ("a, b ,", ("a", "b")),
        (["Salt, pepper", "b"], ("salt-pepper", "b")),
        ([], ()),
        ("", ()),
        (None, ()),
    ],
)
def test_tags(tags, expected):
    assert check(category_tags=tags).tags == expected


def test_small_things_are_forgiven():
    row = check(currency=" eur ", seller=" Mymarket ", product_code=230721, description=" a ")
    assert (row.currency, row.seller, row.code, row.description) == (
        "EUR",
        "Mymarket",
        "230721",
        "a",
    )
    url = "https://example.com/ä.png"
    assert check(hero_image_url=url).hero_image_url == url


def test_objects_take_aliases_and_nothing_unknown():
    validator = Validator(clock=lambda: NOW)
    values = GOOD | {"sku": "77"}
    del values["product_code"]
    assert validator.check_mapping(values).code == "77"
    assert validator.check_mapping(GOOD | {"sku": "77"}).code == "230721"
    assert validator.check_mapping(GOOD | {"prise": 1}) == Rejection("unknown_field", "prise")


def test_what_was_seen_is_bounded_and_true_is_not_one():
    validator = Validator(clock=lambda: NOW)
    values = dict.fromkeys(FIELDS) | GOOD
    assert isinstance(validator.check(list((values | {"product_code": "1"}).values())), Row)
    row = validator.check(list((values | {"product_code": True}).values()))
    assert row == Rejection("wrong_type", "product_code", "bool, not text")


def test_currencies_look_like_currencies():
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)
    assert {"EUR", "USD", "GBP", "JPY", "CHF", "HRK"} <= CURRENCIES
    assert not {"XXX", "XTS", "XAU"} & CURRENCIES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(st.lists(st.one_of(JSON, st.sampled_from(list(GOOD.values()))), min_size=12, max_size=12))
def test_any_values_get_an_answer(values):
    answer = Validator(clock=lambda: NOW).check(values)
    assert isinstance(answer, Row) or answer.reason in REASONS


@given(st.sampled_from(FIELDS), JSON)
def test_any_one_value_gets_an_answer(name, value):
    answer = check(**{name: value})
    assert isinstance(answer, Row) or (answer.reason in REASONS and answer.field)


@given(st.decimals(min_value="0.0001", max_value="9999999999.9999", places=4))
def test_prices_keep_their_value(price):
    assert check(price=str(price)).price == price
    assert check(price=float(price)).price == price
