"""The OpenAPI document says what holds, and its pages load nothing from elsewhere."""

import json
import re

import pytest
from django.urls import include, path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView

from config import apidocs, problems
from config.params import CommaListField, QuerySerializer
from config.tokens import HasScope


class Query(QuerySerializer):
    page = serializers.IntegerField(min_value=1, default=1)
    categories = CommaListField(child=serializers.CharField(max_length=50), required=False)


class Thing(serializers.Serializer):
    name = serializers.CharField()


class Things(APIView):
    @extend_schema(parameters=[Query], responses={200: Thing, **problems.responses(400)})
    def get(self, request):
        return Response(Query.parse(request))


class NewThing(APIView):
    permission_classes = [HasScope("ingest")]

    @extend_schema(request=Thing, responses={201: Thing, **problems.responses(400, 401, 403)})
    def post(self, request):
        return Response(request.data, status=201)


urlpatterns = [
    path("api/v1/", include([path("things", Things.as_view()), path("new", NewThing.as_view())])),
    path("api/schema", apidocs.SchemaView.as_view(), name="api-schema"),
    path("api/docs", apidocs.docs, name="api-docs"),
    path("api/redoc", apidocs.redoc, name="api-redoc"),
]
pytestmark = [pytest.mark.urls(__name__)]


@pytest.fixture
def schema(client):
    answer = client.get("/api/schema", HTTP_ACCEPT="application/vnd.oai.openapi+json")
    return json.loads(answer.content)


def test_problems_are_declared(schema):
    get = schema["paths"]["/api/v1/things"]["get"]
    assert set(get["responses"]) == {"200", "400", "429", "503"}
    content = get["responses"]["400"]["content"]
    assert content == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }


def test_parameters_are_declared(schema):
    parameters = schema["paths"]["/api/v1/things"]["get"]["parameters"]
    assert [one["name"] for one in parameters] == ["categories", "page"]
    assert parameters[1]["schema"] == {"type": "integer", "minimum": 1, "default": 1}


def test_reads_need_no_token_and_writes_do(schema):
    assert schema["paths"]["/api/v1/things"]["get"]["security"] == [{"tokenAuth": []}, {}]
    assert schema["paths"]["/api/v1/new"]["post"]["security"] == [{"tokenAuth": []}]
    assert schema["components"]["securitySchemes"]["tokenAuth"]["name"] == "Authorization"


@pytest.mark.parametrize("page", ["docs", "redoc"])
def test_pages_are_local_and_run_no_inline_script(client, settings, page):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    answer = client.get(f"/api/{page}")
    assert answer.status_code == 200
    text = answer.content.decode()
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert "script-src 'self';" in answer["Content-Security-Policy"] + ";"
