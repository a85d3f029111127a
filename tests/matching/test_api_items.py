"""Items over HTTP: posting, changing, listing; whose they are; and what no item may hold."""

import json

import pytest

from config.pagination import encode_cursor
from matching.models import AuditLog, Item, MatchJob

pytestmark = pytest.mark.django_db

PHONE = {
    "kind": "lost",
    "title": "Black iPhone 12",
    "description": "Left on bus 9.\nThe screen has a crack.",
    "category": "phones",
    "attributes": {"colour": "black", "gb": 128, "locked": True},
    "country": "ca",
    "city": "Vancouver",
    "latitude": 49.2626,
    "longitude": -123.0695,
    "happened_on": "2025-11-13",
}


def wrong(response) -> set[str]:
    assert response.status_code == 400, response.content
    assert response["Content-Type"] == "application/problem+json"
    return {error["name"] for error in response.json()["errors"]}


def test_an_item_is_posted_shown_changed_and_deleted(ann):
    response = ann.send("items", PHONE)
    assert response.status_code == 201, response.content
    posted = response.json()
    assert posted["country"] == "CA"
    assert posted["geohash"][:6] == "c2b2pr"
    assert posted["status"] == "open"
    assert MatchJob.objects.get().task_id.hex == posted["match_task"].replace("-", "")

    shown = ann.get(response["Location"])
    assert shown.json() == {name: posted[name] for name in posted if name != "match_task"}
    assert ann.get(response["Location"], HTTP_IF_NONE_MATCH=shown["ETag"]).status_code == 304
    assert shown["Cache-Control"] == "private, no-cache"

    changed = ann.send(f"items/{posted['id']}", {"title": "iPhone"}, method="PATCH")
    assert changed.status_code == 200, changed.content
    assert (changed.json()["title"], changed.json()["city"]) == ("iPhone", "Vancouver")
    closed = ann.send(f"items/{posted['id']}", {"status": "closed"}, method="PATCH")
    assert closed.json()["status"] == "closed"

    assert ann.delete(f"/api/v1/items/{posted['id']}").status_code == 204
    assert ann.read(f"items/{posted['id']}").status_code == 404
    assert ann.delete(f"/api/v1/items/{posted['id']}").status_code == 404
    assert Item.objects.get().is_deleted
    actions = AuditLog.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["create", "edit", "edit", "delete"]


def test_a_change_that_changes_nothing_needs_no_search(ann, post):
    item = post(ann, "lost", "Bag")
    answer = ann.send(f"items/{item.pk}", {"title": "Bag"}, method="PATCH").json()
    assert answer["match_task"] is None


def test_a_repeated_post_makes_one_item(ann, bob):
    first = ann.send("items", PHONE, **{"Idempotency-Key": "k1"})
    again = ann.send("items", PHONE, **{"Idempotency-Key": "k1"})
    assert (again.status_code, again["Idempotent-Replayed"]) == (201, "true")
    assert again.json() == first.json()
    assert again["Location"] == first["Location"]
    other = ann.send("items", PHONE | {"title": "Other"}, **{"Idempotency-Key": "k1"})
    assert other.status_code == 422
    assert bob.send("items", PHONE, **{"Idempotency-Key": "k1"}).status_code == 201
    assert Item.objects.count() == 2


def test_a_refused_post_frees_its_key(ann):
    assert (
        ann.send("items", PHONE | {"latitude": 91}, **{"Idempotency-Key": "k"}).status_code == 400
    )
    assert ann.send("items", PHONE, **{"Idempotency-Key": "k"}).status_code == 201


# --- whose ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/matches")],
)
def test_another_owners_item_does_not_exist(ann, bob, post, method, path):
    item = post(ann, "lost", "Bag")
    response = bob.send(f"items/{item.pk}{path}", {"title": "Mine"}, method=method)
    assert response.status_code == 404
    item.refresh_from_db()
    assert (item.title, item.is_deleted) == ("Bag", False)


@pytest.mark.parametrize("item_id", ["0", "99999999", "9223372036854775808", "9" * 30, "-1", "x"])
@pytest.mark.parametrize("path", ["items/{}", "items/{}/matches"])
def test_ids_that_nobody_has(ann, path, item_id):
    assert ann.read(path.format(item_id)).status_code == 404


def test_without_the_scope(client, person, post):
    reader = person("reader", "read", "ingest")
    assert client.get("/api/v1/items").status_code == 401
    assert client.post("/api/v1/items", b"{}", content_type="application/json").status_code == 401
    assert reader.read("items").status_code == 403
    assert reader.send("items", PHONE).status_code == 403


# --- lists ----------------------------------------------------------------------------------------


def test_ones_items_by_cursor(ann, bob, post):
    for number in range(7):
        post(ann, "lost" if number % 2 else "found", f"Item {number}")
    post(bob, "lost", "Not hers")
    seen, path = [], "items?limit=3"
    while path:
        page = ann.read(path).json()
        seen += [item["title"] for item in page["results"]]
        path = page["next_cursor"] and f"items?limit=3&cursor={page['next_cursor']}"
    assert seen == [f"Item {number}" for number in reversed(range(7))]


def test_filters_of_ones_items(ann, post):
    post(ann, "lost", "Open")
    closed = post(ann, "found", "Closed")
    ann.send(f"items/{closed.pk}", {"status": "closed"}, method="PATCH")

    def titles(query: str) -> list[str]:
        return [item["title"] for item in ann.read(f"items?{query}").json()["results"]]

    assert titles("") == ["Closed", "Open"]
    assert titles("status=open") == titles("kind=lost") == ["Open"]
    assert titles("status=closed&kind=found") == ["Closed"]
    assert titles("status=closed&kind=lost") == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("kind=stolen", "kind"),
        ("status=gone", "status"),
        ("cursor=nonsense", "cursor"),
        ("cursor=" + encode_cursor(1, 2, kind="items:None:None"), "cursor"),
        ("cursor=" + encode_cursor("x", 2, kind="matches:1:listed"), "cursor"),
        ("sort=title", "sort"),
        ("kind=lost&kind=found", "kind"),
        ("kind=%00", "kind"),
        ("limit=" + "9" * 5_000, "limit"),
    ],
)
def test_wrong_parameters_are_named(ann, query, name):
    assert wrong(ann.read(f"items?{query}")) == {name}


def test_a_cursor_belongs_to_its_filters(ann, post):
    for number in range(3):
        post(ann, "lost", f"Item {number}")
    cursor = ann.read("items?limit=1").json()["next_cursor"]
    assert wrong(ann.read(f"items?limit=1&kind=lost&cursor={cursor}")) == {"cursor"}


# --- hostile input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"description": "x" * 10_000_000}, "description"),
        ({"title": "x" * 301}, "title"),
        ({"title": ""}, "title"),
        ({"title": "  "}, "title"),
        ({"title": None}, "title"),
        ({"title": 7}, "title"),
        ({"title": ["a"]}, "title"),
        ({"title": "a\x00b"}, "title"),
        ({"title": "a\x1fb"}, "title"),
        ({"description": "a\x1bb"}, "description"),
        ({"city": "\x00"}, "city"),
        ({"category": "x" * 101}, "category"),
        ({"category": {"a": 1}}, "category"),
        ({"kind": "stolen"}, "kind"),
        ({"kind": None}, "kind"),
        ({"kind": ["lost"]}, "kind"),
        ({"kind": "lost'; DROP TABLE items; --"}, "kind"),
        ({"country": "Canada"}, "country"),
        ({"country": "1=1"}, "country"),
        ({"latitude": 91}, "latitude"),
        ({"latitude": -90.0000001}, "latitude"),
        ({"longitude": 181}, "longitude"),
        ({"longitude": 1e308}, "longitude"),
        ({"latitude": 123456789012345678901234567890}, "latitude"),
        ({"latitude": "49"}, "latitude"),
        ({"latitude": True}, "latitude"),
        ({"latitude": None}, "latitude"),
        ({"happened_on": "yesterday"}, "happened_on"),
        ({"happened_on": 20251113}, "happened_on"),
        ({"happened_on": "0001-01-01"}, "happened_on"),
        ({"happened_on": "2025-02-30"}, "happened_on"),
        ({"expires_at": "2099-01-01"}, "expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"attributes": "black"}, "attributes"),
        ({"attributes": {"a": {"b": 1}}}, "attributes"),
        ({"attributes": {"a": [1]}}, "attributes"),
        ({"attributes": {str(at): at for at in range(51)}}, "attributes"),
        ({"attributes": {"a": "x" * 10_001}}, "attributes"),
        ({"attributes": {"a\x00": 1}}, "attributes"),
        ({"attributes": {"x" * 101: 1}}, "attributes"),
        ({"owner": 1}, "owner"),
        ({"id": 1}, "id"),
        ({"is_deleted": False}, "is_deleted"),
        ({"geohash": "c2b2q"}, "geohash"),
        ({"terms": "x"}, "terms"),
        ({"status": "matched"}, "status"),
        ({"a\x00b": 1}, "ab"),
        ({"x" * 1_000_000: 1}, "x" * 100),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_no_item_may_hold_is_named(ann, change, name):
    raw = json.dumps(PHONE | change).encode()
    assert wrong(ann.send("items", raw)) == {name}
    assert not Item.objects.exists()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("name", ["latitude", "longitude"])
def test_coordinates_that_are_no_numbers_are_named(ann, name, number):
    raw = json.dumps(PHONE | {name: 0.5}).replace("0.5", number).encode()
    assert wrong(ann.send("items", raw)) == {name}


def test_numbers_that_are_none_in_attributes(ann):
    raw = json.dumps(PHONE).replace("128", "NaN").encode()
    assert wrong(ann.send("items", raw)) == {"attributes"}


def test_half_a_surrogate_pair_is_named(ann):
    assert wrong(ann.send("items", json.dumps(PHONE | {"title": "x\ud800"}).encode())) == {"title"}
    odd_name = json.dumps(PHONE | {"x\ud800": 1}).encode()
    assert wrong(ann.send("items", odd_name)) == {"x"}


def test_every_wrong_field_is_named(ann):
    body = PHONE | {"latitude": 91, "kind": "stolen", "title": ""}
    assert wrong(ann.send("items", body)) == {"latitude", "kind", "title"}
    assert wrong(ann.send("items", {})) == {"kind", "title"}


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b'"x"', b"7", b"{", b"\xff\xfe{\x00}\x00", b"[" * 100_000]
)
def test_a_body_that_is_no_object(ann, raw):
    response = ann.send("items", raw)
    assert response.status_code == 400, response.content
    assert response["Content-Type"] == "application/problem+json"


def test_bodies_of_another_type_and_size(ann, settings):
    form = ann.post("/api/v1/items", {"kind": "lost"}, format=None, content_type="text/plain")
    assert form.status_code == 415
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000
    assert ann.send("items", PHONE | {"description": "x" * 2_000}).status_code == 413


def test_text_that_looks_like_sql_is_text(ann):
    title = "'; DROP TABLE items; -- %s %(x)s \\ \" ☂ 鍵"
    posted = ann.send("items", PHONE | {"title": title}).json()
    assert ann.read(f"items/{posted['id']}").json()["title"] == title


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "body"),
        ({"kind": "found"}, "kind"),
        ({"status": "expired"}, "status"),
        ({"status": 1}, "status"),
        ({"status": ["open"]}, "status"),
        ({"latitude": 49}, "longitude"),
        ({"title": None}, "title"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_changes_that_cannot_be(ann, post, changes, name):
    item = post(ann, "lost", "Bag")
    assert wrong(ann.send(f"items/{item.pk}", changes, method="PATCH")) == {name}
