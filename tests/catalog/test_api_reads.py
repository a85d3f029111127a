"""The reading endpoints: caching, paging, redirects, hostile input, and the promised shapes."""

import json
from urllib.parse import quote

import pytest
from django.utils.dateparse import parse_datetime

from catalog.api import examples, serializers, views
from config import caching
from config.pagination import encode_cursor
from config.params import MAX_VALUE_LENGTH

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(stock):
    stock(
        {"product_name": "Coca-Cola 330ml", "price": "1.50", "category_tags": ["drinks"]},
        {"product_name": "Coca-Cola Zero", "price": "1.20", "category_tags": ["drinks", "diet"]},
        {"product_name": "Ρύζι", "price": "3.4567", "product_code": "r1"},
        {"product_name": "Tea", "price": "4", "currency": "USD"},
        {"product_name": "Cake", "price": "9", "availability": "preorder"},
    )


def wrong(response) -> set[str]:
    assert response.status_code == 400, response.content
    assert response["Content-Type"] == "application/problem+json"
    return {error["name"] for error in response.json()["errors"]}


def test_catalog_page(client, shop):
    response = client.get("/api/v1/catalog?sort=price&page_size=2")
    body = response.json()
    assert (body["total"], body["total_estimate"], body["page"]) == (5, 5, 1)
    card = body["results"][0]
    assert (card["slug"], card["price"], card["currency"]) == ("coca-cola-zero", "1.2", "EUR")
    assert card["offers"]["EUR"]["seller"] == "kritikos"
    assert "description" not in card
    assert "points" not in card
    second = client.get(body["next"]).json()
    assert [each["slug"] for each in second["results"]] == ["ρυζι", "cake"]
    assert client.get(second["previous"]).json() == body


def test_cards_speak_the_asked_currency(client, shop):
    cards = client.get("/api/v1/catalog?currency=usd&sort=price").json()["results"]
    assert (cards[0]["slug"], cards[0]["price"]) == ("tea", "4")
    assert {card["price"] for card in cards[1:]} == {None}


@pytest.mark.parametrize("sort", [sort for sort in views.queries.SORTS if sort != "relevance"])
def test_cursor_walks_everything_once(client, shop, sort):
    seen, url = [], f"/api/v1/catalog?sort={sort}&page_size=2"
    cursor = client.get(url).json()["next_cursor"]
    seen += [card["slug"] for card in client.get(url).json()["results"]]
    while cursor:
        page = client.get(f"{url}&cursor={cursor}").json()
        assert (page["page"], page["previous"]) == (None, None)
        seen += [card["slug"] for card in page["results"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 5


def test_numbered_pages_go_on_by_cursor(client, shop, monkeypatch):
    monkeypatch.setattr(views, "PAGE_DEPTH_CAP", 2)
    following = client.get("/api/v1/catalog?page_size=2").json()["next"]
    assert "cursor=" in following
    assert len(client.get(following).json()["results"]) == 2


def test_cache_states_and_conditional_requests(client, shop):
    first = client.get("/api/v1/catalog")
    assert first["X-Cache"] == "miss"
    second = client.get("/api/v1/catalog")
    assert second["X-Cache"] == "hit"
    assert second.content == first.content
    assert "max-age" in second["Cache-Control"]
    known = client.get("/api/v1/catalog", headers={"if-none-match": first["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
    caching.forget()
    assert client.get("/api/v1/catalog?sort=name&page=1")["X-Cache"] == "hit"  # from Valkey


@pytest.mark.parametrize(
    "url",
    [
        "/api/v1/catalog",
        "/api/v1/products/tea",
        "/api/v1/search/suggest?q=mil",
        "/api/v1/meta/categories",
        "/api/v1/snapshots/recent",
    ],
)
def test_a_refresh_shows_at_once(client, stock, url):
    stock({"product_name": "Tea", "category_tags": ["drinks"]})
    before = client.get(url)
    assert (before["X-Cache"], client.get(url)["X-Cache"]) == ("miss", "hit")
    stock(
        {"product_name": "Tea", "price": "2", "scraped_at": "2025-11-11T06:00:00Z"},
        {"product_name": "Milk", "category_tags": ["drinks"]},
    )
    after = client.get(url)
    assert after["X-Cache"] == "miss"
    assert after.content != before.content


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("page=0", {"page"}),
        ("page=-1", {"page"}),
        ("page=x", {"page"}),
        ("page_size=0", {"page_size"}),
        ("page_size=1000000000", {"page_size"}),
        ("page_size=" + "9" * 2000, {"page_size"}),
        ("page=101&page_size=100", {"page"}),
        ("page=1000000000000000000000", {"page"}),
        ("min_price=5&max_price=2", {"min_price"}),
        ("min_price=NaN", {"min_price"}),
        ("max_price=-1", {"max_price"}),
        ("max_price=Infinity", {"max_price"}),
        ("min_price=1e99", {"min_price"}),
        ("sort=best", {"sort"}),
        ("sort=relevance", {"sort"}),
        ("availability=maybe", {"availability"}),
        ("currency=EURO", {"currency"}),
        ("currency=XXX", {"currency"}),
        ("q=%00", {"q"}),
        ("q=" + "a" * 10_000, {"q"}),
        ("q=" + "a" * 201, {"q"}),
        ("categories=" + "a" * 101, {"categories"}),
        ("categories=" + ",".join(map(str, range(51))), {"categories"}),
        ("cursor=abc", {"cursor"}),
        ("cursor=" + "A" * 3_999, {"cursor"}),
        ("cursor=" + "A" * (MAX_VALUE_LENGTH + 1), {"cursor"}),
        ("cursor=" + encode_cursor("tea", kind="other"), {"cursor"}),
        ("cursor=WzEsIiJd&page=1", {"cursor"}),
        ("unknown=1", {"unknown"}),
        ("page=1&page=2", {"page"}),
        ("page=0&sort=x", {"page", "sort"}),
    ],
)
def test_catalog_names_wrong_parameters(client, shop, query, names):
    assert wrong(client.get(f"/api/v1/catalog?{query}")) == names


def test_a_cursor_fits_only_its_own_sort_and_filters(client, shop):
    cursor = client.get("/api/v1/catalog?page_size=1&sort=price").json()["next_cursor"]
    assert client.get(f"/api/v1/catalog?page_size=2&sort=price&cursor={cursor}").status_code == 200
    for other in ("sort=-price", "sort=price&availability=available", "sort=price&q=coca"):
        assert wrong(client.get(f"/api/v1/catalog?{other}&cursor={cursor}")) == {"cursor"}


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("/api/v1/search/suggest", {"q"}),
        ("/api/v1/search/suggest?q=", {"q"}),
        ("/api/v1/search/suggest?q=a&limit=21", {"limit"}),
        ("/api/v1/search/suggest?q=a&availability=no", {"availability"}),
        ("/api/v1/snapshots/recent?limit=201", {"limit"}),
        ("/api/v1/snapshots/recent?limit=0", {"limit"}),
        ("/api/v1/meta/categories?x=1", {"x"}),
        ("/api/v1/products/tea?resolution=hour", {"resolution"}),
        ("/api/v1/products/tea?from=2025-11-02&to=2025-11-01", {"from"}),
        ("/api/v1/products/tea?from=yesterday", {"from"}),
        ("/api/v1/products/tea?to=9999-12-31", {"to"}),
        ("/api/v1/products/tea?from=0001-01-01T00:00:00%2B14:00", {"from"}),
        ("/api/v1/products/tea?redirect=maybe", {"redirect"}),
    ],
)
def test_others_name_wrong_parameters(client, shop, url, names):
    assert wrong(client.get(url)) == names


def test_product(client, shop):
    response = client.get("/api/v1/products/" + quote("ρυζι"))
    body = response.json()
    assert response["X-Cache"] == "miss"
    assert (body["name"], body["renamed_to"], body["resolution"]) == ("Ρύζι", None, "day")
    [line] = body["series"]
    assert (line["seller"], line["price"], line["product_code"]) == ("kritikos", "3.4567", "r1")
    assert [point["at"] for point in line["points"]] == ["2025-11-10"]
    assert line["outliers"] == []


def test_history_bounds_are_inclusive(client, stock):
    stock(
        *({"product_name": "Tea", "scraped_at": f"2025-11-0{day}T06:00:00Z"} for day in range(1, 6))
    )

    def days(query):
        line = client.get(f"/api/v1/products/tea?{query}").json()["series"][0]
        return [point["at"][8:10] for point in line["points"]]

    assert days("from=2025-11-02&to=2025-11-03") == ["02", "03"]
    assert days("from=2025-11-02&to=2025-11-02&resolution=day") == ["02"]
    assert days("resolution=raw&to=2025-11-02T06:00:00Z") == ["01", "02"]
    assert days("resolution=raw&from=2025-11-05T06:00:01Z") == []


@pytest.mark.parametrize("name", ["Ρύζι", "RYZI &amp; Co", "AC/DC Cable", "🍫", "a" * 300])
def test_names_redirect_to_their_slug(client, shop, name):
    address = "/api/v1/products/" + quote(name, safe="")
    moved = client.get(f"{address}?resolution=day")
    assert moved.status_code == 308
    assert moved["Location"].endswith("?resolution=day")
    again = client.get(moved["Location"])
    assert again.status_code == (200 if name == "Ρύζι" else 404)


@pytest.mark.parametrize("name", ["nope", "%20", "%E2%80%8B", "%0A", "a" * 2001, "..%2F..%2Fetc"])
def test_unknown_products_are_problems(client, shop, name):
    response = client.get(f"/api/v1/products/{name}", follow=True)
    assert response.status_code == 404
    assert response["Content-Type"] == "application/problem+json"


def test_old_slugs_redirect_to_the_newer_one(client, stock):
    stock(
        {"product_name": "Tea", "product_code": "7"},
        {"product_name": "Fine Tea", "product_code": "7", "scraped_at": "2025-11-11"},
    )
    for _ in range(2):
        moved = client.get("/api/v1/products/tea")
        assert (moved.status_code, moved["Location"]) == (308, "/api/v1/products/fine-tea")
    stayed = client.get("/api/v1/products/tea?redirect=no")
    assert (stayed.status_code, stayed.json()["renamed_to"]) == (200, "fine-tea")
    assert client.get("/api/v1/products/tea").status_code == 308


def test_suggest(client, shop):
    body = client.get("/api/v1/search/suggest?q=Coca&limit=1").json()
    assert [each["match"] for each in body["results"]] == ["prefix"]
    assert client.get("/api/v1/search/suggest?q=!!").json() == {"results": []}


def test_categories_and_recent(client, shop):
    assert client.get("/api/v1/meta/categories").json()["results"] == [
        {"tag": "drinks", "products": 2, "available": 2},
        {"tag": "diet", "products": 1, "available": 1},
    ]
    assert len(client.get("/api/v1/snapshots/recent?limit=3").json()["results"]) == 3


def test_reads_need_a_token_where_they_are_not_public(client, shop, settings, ingest_token):
    settings.API_PUBLIC_READS = False
    assert client.get("/api/v1/catalog").status_code == 401
    allowed = client.get("/api/v1/catalog", headers={"authorization": f"Token {ingest_token}"})
    assert allowed.status_code == 200
    assert "private" in allowed["Cache-Control"]


def test_other_methods_are_refused(client, shop):
    for url in ("/api/v1/catalog", "/api/v1/products/tea", "/api/v1/meta/categories"):
        assert client.delete(url).status_code in (401, 403, 405)


def test_latency_of_searches_is_observed(client, shop):
    client.get("/api/v1/catalog?q=coca")
    client.get("/api/v1/search/suggest?q=coca")
    page = client.get("/metrics").content.decode()
    for endpoint in ("catalog", "suggest"):
        assert f'item_search_latency_seconds_count{{endpoint="{endpoint}"}}' in page


@pytest.mark.parametrize(
    ("url", "serializer", "example"),
    [
        ("/api/v1/catalog", serializers.CardPageSerializer, examples.CARD_PAGE),
        ("/api/v1/products/tea", serializers.ProductSerializer, examples.PRODUCT),
        (
            "/api/v1/search/suggest?q=te",
            serializers.SuggestionsSerializer,
            examples.SUGGESTIONS,
        ),
        ("/api/v1/meta/categories", serializers.CategoriesSerializer, examples.CATEGORIES),
        ("/api/v1/snapshots/recent", serializers.RecentSnapshotsSerializer, examples.RECENT),
    ],
)
def test_answers_and_examples_have_the_declared_fields(client, shop, url, serializer, example):
    for body in (client.get(url).json(), example):
        assert_fields(body, serializer())


def assert_fields(data, serializer) -> None:
    needed = {name for name, field in serializer.fields.items() if field.required}
    assert needed <= set(data) <= set(serializer.fields), json.dumps(data)[:300]
    for name, field in serializer.fields.items():
        inner = getattr(field, "child", None)
        if hasattr(inner, "fields") and name in data:
            values = data[name].values() if isinstance(data[name], dict) else data[name]
            for value in values:
                assert_fields(value, inner)


def test_times_end_in_z(client, shop):
    card = client.get("/api/v1/catalog").json()["results"][0]
    assert card["updated_at"].endswith("Z")
    assert parse_datetime(card["updated_at"]).tzinfo


@pytest.mark.parametrize(
    "url",
    [
        "/api/v1/catalog?sort=price",
        "/api/v1/products/tea",
        "/api/v1/search/suggest?q=cocca",
        "/api/v1/meta/categories",
        "/api/v1/snapshots/recent",
    ],
)
def test_answers_go_on_without_valkey(client, shop, own_valkey, url):
    before = client.get(url)
    own_valkey.stop()
    assert client.get(url).content == before.content
    caching.forget()
    after = client.get(url)
    assert (after.status_code, after["X-Cache"]) == (200, "miss")
    assert after.content == before.content
