"""Reads: filters, orders, totals, search, histories, and the plans behind them."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import queries
from catalog.queries import SORTS, Filters

pytestmark = pytest.mark.django_db


def slugs(page) -> list[str]:
    return [card["slug"] for card in page.cards]


def listed(sort="name", **filters) -> list[str]:
    filters = Filters(**{"currency": "EUR"} | filters)
    return slugs(queries.catalog_page(filters=filters, sort=sort, limit=100))


@pytest.fixture
def shop(stock):
    stock(
        {"product_name": "Garbage Bags Small", "price": "1.50", "category_tags": ["home"]},
        {"product_name": "Ρύζι Parboiled 500gr", "price": "3.45", "product_code": "230721"},
        {"product_name": "Milk Chocolate 17gr", "price": "0.80", "category_tags": ["sweets"]},
        {"product_name": "Chocolate Bar", "price": "2", "category_tags": ["sweets", "new"]},
        {"product_name": "Chocolate Cake", "price": "9", "availability": "preorder"},
        {"product_name": "Old Chocolate", "price": None, "availability": "unavailable"},
        {"product_name": "Imported Tea", "price": "4", "currency": "USD"},
    )


def test_filters(shop):
    assert len(listed()) == 7
    assert listed(availability="preorder") == ["chocolate-cake"]
    assert listed(availability="unavailable") == ["old-chocolate"]
    assert len(listed(availability="available")) == 5
    assert listed(min_price=Decimal("1.5"), max_price=Decimal(2)) == [
        "chocolate-bar",
        "garbage-bags-small",
    ]
    assert listed(categories=("home", "new")) == ["chocolate-bar", "garbage-bags-small"]
    assert listed(currency="USD", min_price=Decimal(0)) == ["imported-tea"]


def test_sorts(shop):
    assert listed(sort="price")[:2] == ["milk-chocolate-17gr", "garbage-bags-small"]
    assert listed(sort="price")[-2:] == ["imported-tea", "old-chocolate"]
    assert listed(sort="-price")[0] == "chocolate-cake"
    assert listed(sort="-price")[-1] == "old-chocolate"
    assert listed(sort="-name") == listed()[::-1]
    assert listed(sort="relevance", q="chocolate")[:2] == ["chocolate-bar", "chocolate-cake"]


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("CHOCOLATE bar", ["chocolate-bar"]),
        ("choc mil", ["milk-chocolate-17gr"]),
        ("choclate cake", ["chocolate-cake"]),
        ("ρυζι", ["ρυζι-parboiled-500gr"]),
        ("ΡΎΖΙ parb", ["ρυζι-parboiled-500gr"]),
        ("230721", ["ρυζι-parboiled-500gr"]),
        ("230722", []),
        ("501gr", []),
        ("nothing like it", []),
        ("%_\\", []),
        ("' | !", []),
    ],
)
def test_search(shop, q, expected):
    assert listed(q=q) == expected


@pytest.mark.parametrize(
    ("q", "first", "match"),
    [
        ("choco", "chocolate-bar", "prefix"),
        ("bags gar", "garbage-bags-small", "words"),
        ("parboild", "ρυζι-parboiled-500gr", "similar"),
        ("Garbgae", "garbage-bags-small", "similar"),
        ("ρύζυ", "ρυζι-parboiled-500gr", "similar"),
        ("parbboilted", "ρυζι-parboiled-500gr", "similar"),
    ],
)
def test_suggest(shop, q, first, match):
    found = queries.suggest(q=q)
    assert (found[0]["slug"], found[0]["match"]) == (first, match)


def test_suggest_puts_prefixes_before_words_and_obeys_its_limits(shop):
    found = queries.suggest(q="chocolate")
    assert [each["match"] for each in found] == ["prefix"] * 2 + ["words"] * 2
    assert len(queries.suggest(q="chocolate", limit=3)) == 3
    assert [each["slug"] for each in queries.suggest(q="choco", availability="preorder")] == [
        "chocolate-cake"
    ]
    assert queries.suggest(q="!!") == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(q=st.text(max_size=200))
def test_any_text_can_be_searched(shop, q):
    q = q.replace("\0", "").encode("utf-8", "ignore").decode()
    assert len(queries.suggest(q=q)) <= 10
    assert queries.catalog_total(filters=Filters(currency="EUR", q=q)).exact <= 7


def test_words_longer_than_a_lexeme_may_be_are_searched(shop):
    # One character that folds to eighteen.
    assert queries.suggest(q="\ufdfa" * 200) == []


prices = st.sampled_from(["1", "1.10", "1.1001", "2", "9999999999.9999"])


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cards=st.lists(
        st.tuples(prices, st.sampled_from(["EUR", "USD"]), st.sampled_from([1, 5, 5, 9])),
        max_size=14,
    ),
    limit=st.integers(1, 5),
    sort=st.sampled_from(sorted(SORTS)),
)
def test_cursor_paging_visits_each_row_once(db, cards, limit, sort):
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE catalog_slug_seller_summary")
        for number, (price, currency, day) in enumerate(cards):
            cursor.execute(
                "INSERT INTO catalog_slug_seller_summary (slug, seller, currency, name,"
                " product_code, category_tags, hero_image_url, description, first_at, last_at,"
                " is_available, is_preorder, last_price, prior_low, observations)"
                " VALUES (%s, 's', %s, 'n', '', '{}', '', '', now(),"
                " '2025-11-10'::timestamptz + %s * interval '1 hour', true, false, %s, %s, 1)",
                [f"tea-{number}", currency, day, price, Decimal(price) * (3 - number % 3) / 3],
            )
        cursor.execute("SELECT catalog_project_cards(true)")
    filters = Filters(currency="EUR", q="tea")
    whole = slugs(queries.catalog_page(filters=filters, sort=sort, limit=100))
    seen, after = [], None
    while True:
        page = queries.catalog_page(filters=filters, sort=sort, limit=limit, after=after)
        seen += slugs(page)
        after = page.after
        if after is None:
            break
    assert seen == whole
    assert len(set(seen)) == len(seen) == len(cards)


def test_totals_are_exact_up_to_the_cap_and_estimated_beyond(shop, monkeypatch):
    filters = Filters(currency="EUR")
    assert queries.catalog_total(filters=filters) == queries.Total(7, 7)
    monkeypatch.setattr(queries, "TOTAL_CAP", 3)
    total = queries.catalog_total(filters=filters)
    assert total.exact is None
    assert total.estimate > 3


def test_estimates_are_the_planners(shop, monkeypatch):
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE catalog_slug_summary")
    monkeypatch.setattr(queries, "TOTAL_CAP", 3)
    assert queries.catalog_total(filters=Filters(currency="EUR")) == queries.Total(None, 7)


def history(stock, days=10, **extra):
    stock(
        *(
            {"product_name": "Tea", "price": f"{1 + day % 4}.50"}
            | {"scraped_at": f"2025-{10 + day // 30}-{1 + day % 30:02}T{hour:02}:00:00Z"}
            | extra
            for day in range(days)
            for hour in (6, 18)
        )
    )


def test_history_is_one_series_a_seller_and_currency(stock):
    history(stock)
    history(stock, seller="efresh")
    history(stock, seller="efresh", currency="USD")
    product = queries.product(slug="tea")
    assert [(line["seller"], line["currency"]) for line in product.lines] == [
        ("efresh", "EUR"),
        ("efresh", "USD"),
        ("kritikos", "EUR"),
    ]
    assert product.resolution == "day"
    points = json.loads(product.lines[0]["points"])
    assert len(points) == 10
    assert points[0] == {
        "at": "2025-10-01", "first": "1.5", "last": "1.5", "low": "1.5", "high": "1.5"
    }  # fmt: skip


def test_resolutions_and_ranges(stock, monkeypatch):
    history(stock)
    start, end = datetime(2025, 10, 2, tzinfo=UTC), datetime(2025, 10, 4, tzinfo=UTC)
    raw = queries.product(slug="tea", resolution="raw", start=start, end=end).lines[0]
    assert [point["at"] for point in json.loads(raw["points"])] == [
        "2025-10-02T06:00:00Z",
        "2025-10-02T18:00:00Z",
        "2025-10-03T06:00:00Z",
        "2025-10-03T18:00:00Z",
    ]
    days = queries.product(slug="tea", resolution="day", start=start, end=end).lines[0]
    assert [point["at"] for point in json.loads(days["points"])] == ["2025-10-02", "2025-10-03"]
    weeks = queries.product(slug="tea", resolution="week").lines[0]
    assert [(point["at"], point["high"]) for point in json.loads(weeks["points"])] == [
        ("2025-09-29", "4.5"),
        ("2025-10-06", "4.5"),
    ]
    assert queries.product(slug="tea", start=start, end=end).resolution == "raw"
    monkeypatch.setattr(queries, "POINTS_CAP", 3)
    assert queries.product(slug="tea").resolution == "week"
    for resolution, newest in [("raw", "2025-10-10T18:00:00Z"), ("day", "2025-10-10")]:
        line = queries.product(slug="tea", resolution=resolution).lines[0]
        points = json.loads(line["points"])
        assert (len(points), points[-1]["at"], line["truncated"]) == (3, newest, True)


def test_outliers_are_shown(stock):
    days = {3: "100"}
    stock(
        *(
            {"product_name": "Tea", "price": days.get(day, "2")}
            | {"scraped_at": f"2025-11-0{day}T06:00:00Z"}
            for day in range(1, 7)
        ),
        *({"product_name": "Tea", "price": "2", "scraped_at": f"2025-10-0{d}"} for d in (1, 2, 3)),
    )
    [line] = queries.product(slug="tea").lines
    assert json.loads(line["outliers"]) == [
        {"at": "2025-11-03T06:00:00Z", "price": "100", "median": "2", "state": "suspect"}
    ]
    assert line["highest"] == 2


def test_a_listing_a_week_behind_is_off_the_shelf_in_card_and_line(stock):
    stock(
        {"product_name": "Tea"},
        {"product_name": "Milk", "scraped_at": "2025-11-18T06:00:00Z"},
    )
    product = queries.product(slug="tea")
    assert not product.card["is_available"]
    assert not product.lines[0]["is_available"]


def test_renamed_products_know_where_they_went(stock):
    stock(
        {"product_name": "Tea", "product_code": "7"},
        {"product_name": "Tea", "product_code": "7", "seller": "efresh"},
        {"product_name": "Fine Tea", "product_code": "7", "scraped_at": "2025-11-11"},
    )
    assert queries.product(slug="tea").moved_to is None  # efresh has it still
    stock(
        {"product_name": "Fine Tea", "product_code": "7", "scraped_at": "2025-11-11"}
        | {"seller": "efresh"},
    )
    assert queries.product(slug="tea").moved_to == "fine-tea"
    assert queries.product(slug="fine-tea").moved_to is None


def test_two_names_of_one_code_in_one_poll_are_two_products(stock):
    stock(
        {"product_name": "Tea", "product_code": "7"},
        {"product_name": "Fine Tea", "product_code": "7"},
        {"product_name": "Fine Tea", "product_code": "7", "scraped_at": "2025-11-11"},
    )
    assert queries.product(slug="tea").moved_to is None


def populated() -> None:
    """20,000 products with ten observations each, without the time that the fold takes."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE product_price_snapshots DISABLE TRIGGER USER")
        cursor.execute(
            "INSERT INTO product_price_snapshots (scraped_at, seller, product_name_normalized,"
            " product_name_original, price, currency)"
            " SELECT '2025-11-10'::timestamptz + d * interval '1 day', 's', 'tea-' || i, 'Tea',"
            " 1, 'EUR' FROM generate_series(1, 20000) AS i, generate_series(0, 9) AS d"
        )
        cursor.execute("ALTER TABLE product_price_snapshots ENABLE TRIGGER USER")
        cursor.execute(
            "INSERT INTO catalog_slug_seller_summary (slug, seller, currency, name,"
            " product_code, category_tags, hero_image_url, description, first_at, last_at,"
            " is_available, is_preorder, last_price, observations)"
            " SELECT 'tea-' || i, 's', 'EUR', 'Tea', 'c' || i, '{}', '', '', now(), now(), true,"
            " false, 1, 10 FROM generate_series(1, 20000) AS i"
        )
        cursor.execute(
            "INSERT INTO catalog_price_points SELECT 'tea-' || i, 's', 'EUR',"
            " '2025-11-10'::date + d, 1, 1, 1, 1, 1"
            " FROM generate_series(1, 20000) AS i, generate_series(0, 9) AS d"
        )
        cursor.execute("SELECT catalog_project_cards(true)")
        cursor.execute("ANALYZE product_price_snapshots, catalog_slug_summary, catalog_words")
        cursor.execute("ANALYZE catalog_slug_seller_summary, catalog_price_points")


def scans(plan: dict) -> list[tuple[str, str]]:
    """(node type, relation) of each node of a plan that reads a relation."""
    found = [(plan["Node Type"], plan["Relation Name"])] if "Relation Name" in plan else []
    return found + [scan for part in plan.get("Plans", []) for scan in scans(part)]


def test_reads_by_slug_and_by_prefix_take_index_paths(stock, django_assert_num_queries):
    # A month of its own, so that the partition is there before triggers are switched off.
    stock({"product_name": "Milk", "scraped_at": "2025-11-01"})
    populated()
    seen = []

    def explain(execute, statement, parameters, many, context):
        with connection.connection.cursor() as cursor:
            text = statement if isinstance(statement, str) else statement.as_string(cursor)
            cursor.execute("EXPLAIN (FORMAT JSON) " + text, parameters)
            seen.extend(scans(cursor.fetchone()[0][0]["Plan"]))
        return execute(statement, parameters, many, context)

    with connection.execute_wrapper(explain):
        for resolution in ("raw", "day", "week"):
            assert queries.product(slug="tea-77", resolution=resolution).lines
        assert len(queries.suggest(q="tea-7")) == 10
        queries.recent_snapshots(limit=10)
        queries.catalog_page(filters=Filters(currency="EUR"), sort="name", limit=50)
        assert listed(q="c4711") == ["tea-4711"]
    large = {
        "catalog_slug_summary",
        "catalog_slug_seller_summary",
        "catalog_price_points",
        "product_price_snapshots_y2025m11",  # the other months are empty
    }
    assert {name for _, name in seen} >= large
    assert not [name for node, name in seen if node == "Seq Scan" and name in large]
    with django_assert_num_queries(2):
        queries.product(slug="tea-77")
