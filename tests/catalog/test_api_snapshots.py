"""POST snapshots: every row gets its outcome, and a repeated request has its effect once."""

import json
import threading

import orjson
import pytest
from django.db import connection
from rest_framework.test import APIClient

from catalog.models import IngestRun, Snapshot
from config.models import IdempotencyRecord
from tests.people import token

pytestmark = pytest.mark.django_db

ROW = {
    "product_name": "Tea",
    "product_code": "7",
    "seller": "efresh",
    "price": "1.20",
    "currency": "EUR",
    "scraped_at": "2025-11-10T06:00:00Z",
}


@pytest.fixture
def post(ingest_token):
    def send(data, *, content_type="application/json", key=None, token=ingest_token):
        client = APIClient()
        if token:
            client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
        headers = {"Idempotency-Key": key} if key else {}
        body = data if isinstance(data, bytes) else orjson.dumps(data)
        return client.generic(
            "POST", "/api/v1/snapshots", body, content_type=content_type, headers=headers
        )

    return send


def test_each_row_gets_its_outcome(post):
    rows = [
        ROW,
        ROW,
        ROW | {"price": 1.3},
        ROW | {"price": "-1", "product_code": "8"},
        ROW | {"currency": "ZZZ"},
        "not an object",
        None,
        ROW | {"product_name": "x\0y"},
    ]
    response = post(rows)
    assert response.status_code == 200
    body = response.json()
    assert [row["outcome"] for row in body["rows"]] == [
        "accepted", "duplicate", "conflict", *["rejected"] * 5
    ]  # fmt: skip
    assert [row.get("reason") for row in body["rows"][3:]] == [
        "price_not_positive",
        "currency_unknown",
        "wrong_type",
        "wrong_type",
        "nul_byte",
    ]
    assert body["rows"][3]["field"] == "price"
    assert {name: body[name] for name in ("accepted", "duplicate", "conflict", "rejected")} == {
        "accepted": 1, "duplicate": 1, "conflict": 1, "rejected": 5
    }  # fmt: skip
    assert Snapshot.objects.count() == 1
    run = IngestRun.objects.get()
    assert (run.accepted, run.rejected, run.user_label) == (1, 5, "scraper")


@pytest.mark.parametrize("wrapped", [True, False])
def test_array_and_object(post, wrapped):
    rows = [ROW, ROW | {"product_code": "8"}]
    assert post({"snapshots": rows} if wrapped else rows).json()["accepted"] == 2


def test_ndjson(post):
    body = b"\n\n".join([orjson.dumps(ROW), orjson.dumps(ROW | {"product_code": "8"}), b"  "])
    response = post(body, content_type="application/x-ndjson")
    assert response.json()["accepted"] == 2


@pytest.mark.parametrize(
    ("body", "content_type", "status", "names"),
    [
        (b"", "application/json", 400, {"body"}),
        (b"[]", "application/json", 400, {"body"}),
        (b"{}", "application/json", 400, {"body"}),
        (b"null", "application/json", 400, {"body"}),
        (b"7", "application/json", 400, {"body"}),
        (b'{"snapshots": {}}', "application/json", 400, {"body"}),
        (b'{"snapshots": [], "more": 1}', "application/json", 400, {"body"}),
        (b"[1,", "application/json", 400, None),
        (b"[" * 100_000, "application/json", 400, None),
        (b'"\xff"', "application/json", 400, None),
        (b"{}\n{", "application/x-ndjson", 400, {"line 2"}),
        (b"\n", "application/x-ndjson", 400, {"body"}),
        (b"a=1", "application/x-www-form-urlencoded", 415, None),
        (b"<a/>", "text/xml", 415, None),
        (b"[" + b"{}," * 5_000 + b"{}]", "application/json", 413, None),
        (b"{}\n" * 5_001, "application/x-ndjson", 413, None),
    ],
)
def test_unusable_bodies(post, body, content_type, status, names):
    response = post(body, content_type=content_type)
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    if names:
        assert {error["name"] for error in response.json()["errors"]} == names
    assert not Snapshot.objects.exists()


def test_bodies_over_the_limit(post, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000
    for content_type in ("application/json", "application/x-ndjson"):
        assert post([ROW] * 50, content_type=content_type).status_code == 413


def test_five_thousand_rows(post):
    rows = [ROW | {"product_code": str(number)} for number in range(5_000)]
    body = post(rows).json()
    assert (body["accepted"], len(body["rows"])) == (5_000, 5_000)


def test_needs_a_token_with_the_scope(post, ingest_token, django_user_model):
    reader = token(django_user_model.objects.get(), "read")
    assert post([ROW], token="").status_code == 401
    assert post([ROW], token=reader).status_code == 403
    assert APIClient().get("/api/v1/snapshots").status_code in (401, 403, 405)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", {"a": 1}), ("price", [1]), ("price", True), ("price", 10**400), ("price", "1e5"),
        ("product_name", 7), ("product_name", "\ud800"), ("product_name", "x" * 3_000),
        ("scraped_at", 0), ("scraped_at", "9999-12-31T23:59:59Z"), ("scraped_at", "today"),
        ("category_tags", [[["a"]]]), ("category_tags", "a,b"), ("seller", " "), ("extra", 1),
        ("is_available", "perhaps"), ("hero_image_url", "javascript:alert(1)"),
    ],
)  # fmt: skip
def test_hostile_values_are_rejected_or_taken(post, field, value):
    body = json.dumps([ROW | {field: value}, ROW | {"product_code": "8"}]).encode()
    response = post(body)
    assert response.status_code in (200, 400), response.content
    if response.status_code == 200:
        assert response.json()["rows"][1]["outcome"] == "accepted"


def test_a_key_replays_the_answer(post):
    first = post([ROW], key="k1")
    second = post([ROW], key="k1")
    assert first.json()["accepted"] == second.json()["accepted"] == 1
    assert second["Idempotent-Replayed"] == "true"
    assert first.content == second.content
    assert IngestRun.objects.count() == 1
    assert post([ROW], key="k2").json()["duplicate"] == 1


def test_a_key_belongs_to_one_body(post):
    post([ROW], key="k1")
    assert post([ROW | {"price": "2"}], key="k1").status_code == 422


def test_a_key_in_flight_is_a_conflict(post):
    post([ROW], key="k1")
    IdempotencyRecord.objects.update(status=None)
    response = post([ROW], key="k1")
    assert (response.status_code, response["Retry-After"]) == (409, "1")


def test_a_bad_request_frees_its_key(post):
    assert post(b"[]", key="k1").status_code == 400
    assert post([ROW], key="k1").json()["accepted"] == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_requests_under_one_key_have_one_effect(post):
    answers = []

    def send():
        try:
            answers.append(post([ROW], key="k1").status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 409}
    assert 200 in answers
    assert Snapshot.objects.count() == IngestRun.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_rows_and_stored_answer_commit_together(post, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the power fails")

    monkeypatch.setattr("catalog.actions._account", broken)
    with pytest.raises(RuntimeError):
        post([ROW], key="k1")
    monkeypatch.undo()
    assert not Snapshot.objects.exists()
    assert post([ROW], key="k1").json()["accepted"] == 1


@pytest.mark.parametrize("depth", [200, 300, 1_000])
def test_a_row_nested_as_deep_as_json_may_be_is_one_row_rejected(post, depth):
    nested = b"[" * depth + b"]" * depth
    response = post(b'[{"product_name":' + nested + b"}," + orjson.dumps(ROW) + b"]")
    assert response.status_code == 200
    assert [row["outcome"] for row in response.json()["rows"]] == ["rejected", "accepted"]
    assert len(IngestRun.objects.get().rejects.get().raw) <= 1_000
