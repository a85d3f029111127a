"""Whatever goes wrong under /api/ is a problem document, and never a 5xx of ours."""

import json

import pytest
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import include, path
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView

from config import problems
from config.apidocs import SchemaView
from config.params import CommaListField, QuerySerializer


class Query(QuerySerializer):
    page = serializers.IntegerField(min_value=1, default=1)
    q = serializers.CharField(max_length=20, required=False)
    tags = CommaListField(child=serializers.CharField(max_length=5), required=False)


class Row(serializers.Serializer):
    price = serializers.DecimalField(max_digits=6, decimal_places=2)


class Listing(APIView):
    permission_classes = []

    def get(self, request):
        return Response(Query.parse(request))

    def post(self, request):
        rows = Row(data=request.data, many=True)
        rows.is_valid(raise_exception=True)
        return Response(rows.data, status=201)


class Breaking(APIView):
    permission_classes = []

    def get(self, request, how):
        match how:
            case "fault":
                raise RuntimeError("secret detail")
            case "problem":
                raise problems.Problem(418, "Teapot", "Short and stout.", spout="left")
            case "denied":
                raise PermissionDenied("secret detail")
            case "database":
                from django.db import connection

                connection.cursor().execute("SELECT pg_sleep(0)")
        return Response({})


def plain(request, how):
    if how == "problem":
        raise problems.invalid(page="Must be 1 or more.")
    raise RuntimeError("secret detail")


api = [
    path("list", Listing.as_view()),
    path("break/<how>", Breaking.as_view()),
    path("plain/<how>", plain),
    path("item/<str:slug>", lambda request, slug: HttpResponse(slug)),
]
urlpatterns = [path("api/v1/", include(api)), path("api/schema", SchemaView.as_view())]
handler400 = "config.problems.handler400"
handler403 = "config.problems.handler403"
handler404 = "config.problems.handler404"
handler500 = "config.problems.handler500"
pytestmark = [pytest.mark.urls(__name__)]


@pytest.fixture
def client(client):
    client.raise_request_exception = False
    return client


def assert_problem(answer, status, **members):
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert b"secret" not in answer.content
    for name, value in members.items():
        assert document[name] == value
    return document


def names(answer) -> list[str]:
    return [error["name"] for error in answer.json()["errors"]]


def test_unknown_address(client):
    assert_problem(client.get("/api/v1/nothing"), 404)
    assert_problem(client.get("/api/"), 404)
    assert client.get("/elsewhere")["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE"])
def test_wrong_method(client, method):
    answer = client.generic(method, "/api/v1/list")
    assert_problem(answer, 405)
    assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_invented_method(client):
    answer = client.generic("FROBNICATE", "/api/v1/list")
    assert_problem(answer, 405)
    assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("query", "guilty"),
    [
        ("page=0", ["page"]),
        ("page=x&q=" + "y" * 21, ["page", "q"]),
        ("pgae=1", ["pgae"]),
        ("page=1&page=2", ["page"]),
        ("q=" + "y" * 10_000, ["q"]),
        ("q=a%00b", ["q"]),
        ("page=1&tags=%00", ["tags"]),
        ("tags=a,toolong", ["tags.1"]),
        ("page=" + "9" * 2_000, ["page"]),
        ("%00=1", [""]),
    ],
)
def test_bad_parameters_are_named(client, query, guilty):
    answer = client.get(f"/api/v1/list?{query}")
    assert_problem(answer, 400)
    assert names(answer) == guilty


def test_good_parameters(client):
    answer = client.get("/api/v1/list?page=2&q=%CE%BA&tags=a,b&tags=c,,a")
    assert answer.json() == {"page": 2, "q": "κ", "tags": ["a", "b", "c"]}
    assert client.get("/api/v1/list").json() == {"page": 1}


@pytest.mark.parametrize("query", ["q=%FF", "q=%C3", "q=%ED%A0%80", "%FF=1", "q=\udcff"])
def test_broken_utf8_in_the_query(client, query):
    environ = {"QUERY_STRING": query.encode("utf-8", "surrogateescape").decode("latin-1")}
    assert_problem(client.get("/api/v1/list", **environ), 400)


def test_nul_in_the_path(client):
    assert_problem(client.get("/api/v1/item/a%00b"), 400)
    assert client.get("/admin%00").status_code == 400


def test_broken_utf8_in_the_path(client):
    assert client.get("/api/v1/item/%FF%FE").status_code in (200, 404)


@pytest.mark.parametrize("length", ["abc", "-1", "1.5", "١", "9" * 30])
def test_bad_content_length(client, length):
    answer = client.post(
        "/api/v1/list", b"[]", content_type="application/json", CONTENT_LENGTH=length
    )
    assert_problem(answer, 413 if length.startswith("9") else 400)


def test_too_large(client, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    body = json.dumps([{"price": "1.00"}] * 50)
    answer = client.post("/api/v1/list", body, content_type="application/json")
    assert_problem(answer, 413, limit=100)


def test_too_many_parameters(client, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 10
    assert_problem(client.get("/api/v1/list?" + "&".join(f"a{i}=1" for i in range(20))), 400)


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/xml", "multipart/form-data", "nonsense", "a/b; charset=\xff"],
)
def test_wrong_content_type(client, kind):
    answer = client.generic("POST", "/api/v1/list", b"[]", content_type=kind)
    assert_problem(answer, 415)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'["\\ud800"]',
        b"[NaN]",
        b"[1e999]",
        b'{"price": 1}',
        b"[1]",
        b"null",
        b'[{"price": "1\\u0000"}]',
        b'[{"price": "NaN"}]',
        b'[{"price": 1e300}]',
    ],
)
def test_bad_bodies(client, body):
    answer = client.generic("POST", "/api/v1/list", body, content_type="application/json")
    assert_problem(answer, 400)


def test_nested_errors_are_located(client):
    rows = [{"price": "1.00"}, {"price": "x"}, {}]
    answer = client.post("/api/v1/list", rows, content_type="application/json")
    assert_problem(answer, 400)
    assert names(answer) == ["1.price", "2.price"]


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense", "*/*;q=x", ""])
def test_any_accept_header_gets_json(client, accept):
    answer = client.get("/api/v1/list", HTTP_ACCEPT=accept)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"


def test_bad_host(client):
    assert_problem(client.get("/api/v1/list", HTTP_HOST="evil.example"), 400)
    assert_problem(client.get("/api/v1/list", HTTP_HOST="a b\0"), 400)


def test_faults_do_not_leak(client):
    assert_problem(client.get("/api/v1/break/fault"), 500)
    assert_problem(client.get("/api/v1/plain/fault"), 500)


def test_raised_problems(client):
    assert_problem(client.get("/api/v1/break/problem"), 418, title="Teapot", spout="left")
    assert_problem(client.get("/api/v1/break/denied"), 403)
    answer = client.get("/api/v1/plain/problem")
    assert_problem(answer, 400)
    assert names(answer) == ["page"]
    assert answer["Cache-Control"] == "no-store"


def test_database_away(client, unreachable_database):
    answer = client.get("/api/v1/break/database")
    assert_problem(answer, 503)
    assert int(answer["Retry-After"]) > 0


def test_schema_component():
    found = problems.responses(400, 404)
    assert [status for status, _ in found] == [400, 404, 429, 503]


def test_a_body_in_chunks_or_compressed_is_refused_by_name(client):
    chunked = client.generic("POST", "/api/v1/list", b"", HTTP_TRANSFER_ENCODING="chunked")
    assert_problem(chunked, 411)
    packed = client.generic("POST", "/api/v1/list", b"x", HTTP_CONTENT_ENCODING="gzip")
    assert_problem(packed, 415)
    plain = client.generic(
        "POST",
        "/api/v1/list",
        b'[{"price":"1.00"}]',
        content_type="application/json",
        HTTP_CONTENT_ENCODING="identity",
    )
    assert plain.status_code == 201
