"""Search and the newest items over HTTP, for everybody."""

import pytest
from django.core.cache import cache

from config.pagination import encode_cursor

pytestmark = pytest.mark.django_db

HERE = {"latitude": 49.2626, "longitude": -123.0695}
FAR = {"latitude": 55.95, "longitude": -3.19}


def wrong(response) -> set[str]:
    assert response.status_code == 400, response.content
    assert response["Content-Type"] == "application/problem+json"
    return {error["name"] for error in response.json()["errors"]}


@pytest.fixture
def things(ann, bob, post):
    post(ann, "lost", "Black iPhone 12", category="phones", country="CA", city="Vancouver", **HERE)
    post(bob, "found", "Black iPhone in a case", category="phones", country="CA", **HERE)
    post(bob, "found", "Red umbrella", category="umbrellas", country="GB", city="Leith", **FAR)
    post(bob, "lost", "Grey cat")


def titles(client, query: str) -> list[str]:
    response = client.get(f"/api/v1/items/search?{query}")
    assert response.status_code == 200, response.content
    return [hit["item"]["title"] for hit in response.json()["results"]]


def test_anybody_may_search_and_sees_no_owner_and_no_exact_place(client, things):
    response = client.get("/api/v1/items/search?q=iphone")
    assert response["X-Cache"] == "miss"
    hits = response.json()["results"]
    assert {hit["item"]["title"] for hit in hits} >= {"Black iPhone 12", "Black iPhone in a case"}
    for hit in hits:
        assert not {"owner", "owner_id", "latitude", "longitude", "geohash"} & hit["item"].keys()
        assert hit["components"]
    assert client.get("/api/v1/items/search?q=iphone")["X-Cache"] == "hit"


def test_filters(client, things):
    assert titles(client, "q=iphone&kind=lost")[0] == "Black iPhone 12"
    assert "Black iPhone in a case" not in titles(client, "q=iphone&kind=lost")
    assert titles(client, "category=umbrellas") == ["Red umbrella"]
    assert titles(client, "country=gb") == ["Red umbrella"]
    assert titles(client, "country=CA&city=Vancouver") == ["Black iPhone 12"]
    near = titles(client, "latitude=49.26&longitude=-123.07&radius_m=5000")
    assert set(near) == {"Black iPhone 12", "Black iPhone in a case"}
    assert titles(client, "q=umbrella&from=2000-01-01&to=2001-01-01") == []


def test_what_is_posted_is_found_at_once(client, ann, post, things):
    assert "Walrus" not in titles(client, "q=walrus")
    post(ann, "lost", "Walrus plush toy")
    assert titles(client, "q=walrus+plush")[0] == "Walrus plush toy"


def test_closed_items_are_found_by_their_words_when_asked_for(client, ann, post):
    item = post(ann, "lost", "Walrus plush toy")
    ann.send(f"items/{item.pk}", {"status": "closed"}, method="PATCH")
    assert titles(client, "q=walrus") == []
    assert titles(client, "q=walrus&status=closed") == ["Walrus plush toy"]
    ann.delete(f"/api/v1/items/{item.pk}")
    assert titles(client, "q=walrus&status=closed&limit=5") == []


def test_pages(client, ann, post):
    for number in range(7):
        post(ann, "lost", f"Umbrella {number}")
    seen, path = [], "/api/v1/items/search?q=umbrella&limit=3"
    while path:
        page = client.get(path).json()
        seen += [hit["item"]["id"] for hit in page["results"]]
        cursor = page["next_cursor"]
        path = cursor and f"/api/v1/items/search?q=umbrella&limit=3&cursor={cursor}"
    assert len(seen) == len(set(seen)) == 7


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=" + "x" * 301, {"q"}),
        ("q=%00", {"q"}),
        ("kind=stolen", {"kind"}),
        ("status=gone", {"status"}),
        ("latitude=91&longitude=0", {"latitude"}),
        ("latitude=nan&longitude=0", {"latitude"}),
        ("latitude=0&longitude=inf", {"longitude"}),
        ("latitude=1e999&longitude=0", {"latitude"}),
        ("latitude=49", {"longitude"}),
        ("radius_m=5", {"radius_m"}),
        ("latitude=0&longitude=0&radius_m=0", {"radius_m"}),
        ("latitude=0&longitude=0&radius_m=500001", {"radius_m"}),
        ("latitude=0&longitude=0&radius_m=1.5", {"radius_m"}),
        ("country=Canada", {"country"}),
        ("country=%27%20OR", {"country"}),
        ("category=" + "x" * 101, {"category"}),
        ("from=x", {"from"}),
        ("from=2025-02-01&to=2025-01-01", {"from"}),
        ("to=99999-01-01", {"to"}),
        ("limit=51", {"limit"}),
        ("cursor=x", {"cursor"}),
        ("cursor=" + encode_cursor(1, 2, kind="x"), {"cursor"}),
        ("page=2", {"page"}),
    ],
)
def test_wrong_parameters_are_named(client, db, query, names):
    assert wrong(client.get(f"/api/v1/items/search?{query}")) == names


@pytest.mark.parametrize(
    "q",
    ["%27%3B%20DROP%20TABLE%20items%3B--", "%25s%20%25(x)s", "%F0%9F%98%80", "%1B%01",
     "%26%7C!():*", "+++", "%22%5C", "lost:iphone", "%E2%80%AE"],
)  # fmt: skip
def test_odd_searches_find_nothing_bad(client, things, q):
    assert client.get(f"/api/v1/items/search?q={q}").status_code == 200


def test_recent_items(client, ann, post, things):
    from config import caching, readmodels

    for model in readmodels.select(["matching"]):
        readmodels.refresh(model)
    caching.forget()
    response = client.get("/api/v1/items/recent")
    assert response.status_code == 200, response.content
    found = response.json()["results"]
    assert [item["title"] for item in found][:2] == ["Grey cat", "Red umbrella"]
    assert len(found) == 4
    assert not {"owner", "latitude", "geohash"} & found[0].keys()
    lost = client.get("/api/v1/items/recent?kind=lost&limit=1").json()["results"]
    assert [item["title"] for item in lost] == ["Grey cat"]
    assert wrong(client.get("/api/v1/items/recent?kind=stolen&limit=0")) == {"kind", "limit"}


def test_recent_items_without_valkey(client, things, own_valkey):
    from config import readmodels

    for model in readmodels.select(["matching"]):
        readmodels.refresh(model)
    with_it = client.get("/api/v1/items/recent").json()
    own_valkey.stop()
    assert client.get("/api/v1/items/recent?limit=49").json() == with_it


def test_resumes_are_for_members_alone(client, ann, bob, post):
    post(ann, "resume", "Welder with ten years of practice")
    post(bob, "job", "Welder wanted")
    assert titles(client, "q=welder") == ["Welder wanted"]
    for path in ("items/search?q=welder&kind=resume", "items/recent?kind=resume"):
        refused = client.get(f"/api/v1/{path}")
        assert refused.status_code == 403
        assert refused.json()["errors"][0]["name"] == "kind"
    seen = bob.get("/api/v1/items/search?q=welder&kind=resume")
    assert [hit["item"]["kind"] for hit in seen.json()["results"]] == ["resume"]
    assert "private" in seen["Cache-Control"]
    assert titles(client, "q=welder") == ["Welder wanted"]


def _measured(client, place, query=""):
    """All that a search near a place tells of the things there, and who is within which radius."""
    where = f"latitude={place[0]}&longitude={place[1]}{query}"
    page = client.get(f"/api/v1/items/search?{where}").json()
    told = [(hit["score"], hit["components"]) for hit in page["results"]]
    return told, [
        len(titles(client, f"{where}&radius_m={radius}")) for radius in range(10, 900, 90)
    ]


@pytest.mark.parametrize("query", ["", "&q=phone"])
def test_a_place_cannot_be_measured_finer_than_its_cell(client, ann, post, query):
    """Two places in one cell, 700 m apart, look the same from everywhere."""
    from config import caching
    from matching.models import Item

    south, west = 8_968 * 180 / 32_768, 5_182 * 360 / 32_768 - 180  # of a cell: 0.0055 by 0.011
    post(ann, "found", "Black phone", latitude=south + 0.0005, longitude=west + 0.001)
    spots = [(south + 0.001, west + 0.002), (south + 0.007, west - 0.002), (south, west + 0.012)]
    before = [_measured(client, spot, query) for spot in spots]
    assert all(
        within[0] == 0 or spot == spots[0] for spot, (_, within) in zip(spots, before, strict=True)
    )
    assert all(within[-1] == 1 for _, within in before)
    [cell] = Item.objects.values_list("geohash", flat=True)
    Item.objects.update(latitude=south + 0.005, longitude=west + 0.009)
    [moved] = Item.objects.values_list("geohash", flat=True)
    assert moved[:6] == cell[:6]
    caching.forget()
    cache.clear()
    assert [_measured(client, spot, query) for spot in spots] == before


def test_a_radius_reaches_whoever_is_within_it(client, ann, post):
    """Never less than was asked for: the whole cell comes in, also across the antimeridian."""
    import random

    from matching import geo

    random.seed(4)
    for centre in ((49.26, -123.07), (0.001, 179.9995), (-0.001, -179.9995), (78.0, 15.0)):
        for _ in range(8):
            there = (
                centre[0] + random.uniform(-0.01, 0.01),
                (centre[1] + random.uniform(-0.02, 0.02) + 180) % 360 - 180,
            )
            post(ann, "lost", "Kite", latitude=there[0], longitude=there[1])
            metres = geo.distance_m(*centre, *there)
            query = (
                f"latitude={centre[0]}&longitude={centre[1]}&radius_m={int(metres) + 1}&limit=50"
            )
            page = client.get(f"/api/v1/items/search?{query}").json()["results"]
            cells = {hit["item"]["cell"] for hit in page}
            assert geo.geohash(*there)[:6] in cells, (centre, there, metres)


def test_nearest_come_before_newest_to_the_last_page(client, ann, post):
    for at in range(3):
        post(ann, "found", f"Near {at}", latitude=49.26, longitude=-123.07)
    for at in range(3):
        post(ann, "found", f"Far {at}")
    shown = titles(client, "latitude=49.26&longitude=-123.07")
    assert [title[:4] for title in shown] == ["Near"] * 3 + ["Far "] * 3


def test_nothing_is_public_where_no_kind_is(client, things, settings):
    settings.MATCHING_PUBLIC_KINDS = []
    assert titles(client, "q=iphone") == []
