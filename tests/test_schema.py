"""The OpenAPI document: complete, and true for whatever schemathesis thinks of."""

import io
from collections.abc import Iterator

import pytest
import schemathesis
import yaml
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connection
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

# Operations by name, so that one that vanishes is noticed. `manage.py spectacular` says them all.
EXPECTED = {
    "catalog_list",
    "catalog_product",
    "catalog_suggest",
    "catalog_categories",
    "catalog_recent_snapshots",
    "catalog_record_snapshots",
    "items_list",
    "items_create",
    "items_show",
    "items_edit",
    "items_delete",
    "items_matches",
    "items_search",
    "items_recent",
    "match_submit",
    "match_status",
    "matches_confirm",
    "matches_dismiss",
    "me_badges",
    "me_notifications",
    "me_notifications_read",
    "discovery_poll",
    "discovery_buckets",
    "discovery_sources",
    "watches_just_opened",
    "watches_still_open",
    "watches_board",
    "watches_new_drops",
    "watches_prune_now",
    "watches_list",
    "watches_create",
    "watches_show",
    "watches_edit",
    "watches_delete",
    "watches_notifications",
    "watches_test",
    "events_report",
    "feed",
    "posts_create",
    "posts_show",
    "posts_edit",
    "posts_delete",
    "posts_like",
    "posts_unlike",
    "posts_share",
    "posts_unshare",
    "posts_search",
    "comments_list",
    "comments_create",
    "comments_edit",
    "comments_delete",
    "people_show",
    "people_posts",
    "people_followers",
    "people_following",
    "people_follow",
    "people_unfollow",
    "people_mute",
    "people_unmute",
    "people_block",
    "people_unblock",
    "me_profile",
    "me_profile_edit",
}


@pytest.fixture(scope="module")
def document(django_db_setup) -> dict:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    return yaml.safe_load(out.getvalue())


def operations(document: dict) -> list[dict]:
    return [
        operation
        for path, methods in document["paths"].items()
        if path.startswith("/api/v1/")
        for method, operation in methods.items()
        if method != "parameters"
    ]


def test_every_operation_is_there(document):
    assert {operation["operationId"] for operation in operations(document)} >= EXPECTED


def test_every_operation_and_parameter_is_described(document):
    for operation in operations(document):
        name = operation["operationId"]
        assert operation.get("summary"), name
        assert {"400", "429", "503"} <= set(operation["responses"]), name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{name}: {parameter['name']} is not described"


def test_every_operation_has_an_example(document):
    for operation in operations(document):
        contents = [
            content
            for status, response in operation["responses"].items()
            if status.startswith("2")
            for content in response.get("content", {}).values()
        ]
        assert contents or "204" in operation["responses"], operation["operationId"]
        assert all(content.get("examples") for content in contents), operation["operationId"]


@pytest.fixture
def _one_connection() -> Iterator[None]:
    """Requests end without closing the test's connection, as under Django's own test client."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def api(db, settings, _one_connection):
    """The schema over the WSGI application, with some data behind it."""
    from catalog.actions import record_snapshots
    from config import caching, readmodels
    from config.tokens import SCOPES
    from config.wsgi import application
    from tests.people import Person

    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    settings.ALLOWED_HOSTS = ["*"]
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_THROTTLE_RATES": {"address": "off", "token": "off"},
    }
    caching.forget()
    record_snapshots(
        rows=[
            {"product_name": name, "seller": "s", "price": "1", "currency": "EUR"}
            | {"scraped_at": "2025-11-10T06:00:00Z", "category_tags": ["drinks"]}
            for name in ("Coca-Cola 330ml", "Tea", "Ρύζι")
        ],
        source="test",
    )
    fuzzer, other = (Person(name, list(SCOPES)) for name in ("fuzzer", "other"))
    _add_items(fuzzer.user, other.user)
    _add_posts(fuzzer.user, other.user)
    for model in readmodels.select():
        readmodels.refresh(model)
    schema = schemathesis.openapi.from_wsgi("/api/schema", application)
    schema.config.update(headers={"Authorization": f"Token {fuzzer.secret}"})
    return schema


def _add_items(user, other) -> None:
    """An item of each, 1 and 2, their match 1, and a notification 1: ids that a fuzzer tries."""
    from matching.actions import create_item
    from matching.models import Match, Notification

    component = {"name": "words", "raw": 0.5, "weight": 1.0, "contribution": 0.5}
    place = {"latitude": 49.26, "longitude": -123.07}
    with connection.cursor() as cursor:
        cursor.execute("ALTER SEQUENCE items_id_seq RESTART")
    create_item(owner=user, kind="lost", title="Red umbrella", **place)
    create_item(owner=other, kind="found", title="An umbrella", **place)
    Match.objects.create(
        pk=1, pair="lost_found", seeker_id=1, offer_id=2, score=0.5, components=[component]
    )
    Notification.objects.create(
        pk=1, user=user, subject="confirmed_by_other", seeker_id=1, offer_id=2
    )


def _add_posts(user, other) -> None:
    """A post of each, 1 and 2, and a comment 1."""
    from feeds import actions
    from feeds.models import Comment, Post

    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER SEQUENCE posts_id_seq RESTART; ALTER SEQUENCE comments_id_seq RESTART"
        )
    for author in (user, other):
        Post.objects.create(author=actions.ensure_profile(author), text="Hello")
    Comment.objects.create(post_id=2, author_id=user.pk, text="Hello")


@pytest.mark.parametrize("mode", GenerationMode)
def test_no_input_breaks_the_api(api, mode):
    schemathesis.checks.load_all_checks()
    checks = schemathesis.checks.CHECKS.get_by_names(
        [
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
        ]
    )
    called = set()

    for found in api.get_all_operations():
        operation = found.ok()
        called.add(operation.definition.raw["operationId"])

        @settings(
            max_examples=30,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            case.call_and_validate(checks=checks)

        try:
            holds()
        except Unsatisfiable:  # an operation without parameters has no wrong ones
            assert mode is GenerationMode.NEGATIVE, operation.label
    assert called >= EXPECTED
