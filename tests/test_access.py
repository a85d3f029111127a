"""Who may do what: every operation of the OpenAPI document, asked by every kind of caller.

A row of the table is an operation; a column is a caller. The objects that the addresses name exist
and are the owner's, so that a 404 says "not yours", not "nothing there". An operation that is not
in the table fails the test: whoever adds one says here who may use it.
"""

import io
import json
import uuid
from datetime import timedelta

import pytest
import yaml
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import transaction
from django.test import Client
from django.utils import timezone

from config import readmodels
from config.tokens import SCOPES
from tests.people import token

CALLERS = ("anonymous", "no scope", "other", "owner", "staff", "superuser", "ingest")

# What each may be answered. 2 stands for any success; the rest are statuses. "no scope": a token
# for `read` alone. "other", "staff" and "superuser" have tokens for all that people do (not for
# ingest): the API knows no staff, who see others' things in the admin only. "ingest" has that scope
# alone. The owner asks last of all, as some operations remove what they name.
OPEN = (2, 2, 2, 2, 2, 2, 2)  # what everybody may read
MINE = (401, 403, 2, 2, 2, 2, 403)  # each has one's own: never another's
OWNED = (401, 403, 404, 2, 404, 404, 403)  # one object, the owner's; for others it is not there
WRITTEN = (401, 403, 404, 2, 404, 404, 403)  # all may read it, one may change it
DONE = (401, 403, 2, 2, 2, 2, 403)  # all with the scope may do it to what they see
INGEST = (401, 403, 403, 403, 403, 403, 2)
STAFF = (401, 403, 403, 403, 403, 403, 403)  # staff with a token for ingest; tested below

MATRIX = {
    # catalog
    "catalog_list": OPEN,
    "catalog_product": OPEN,
    "catalog_suggest": OPEN,
    "catalog_categories": OPEN,
    "catalog_recent_snapshots": OPEN,
    "catalog_record_snapshots": INGEST,
    # matching
    "items_search": OPEN,
    "items_recent": OPEN,
    "items_list": MINE,
    "items_create": DONE,
    "items_show": OWNED,
    "items_edit": OWNED,
    "items_delete": OWNED,
    "items_matches": OWNED,
    "match_submit": OWNED,
    "match_status": OWNED,
    "matches_confirm": OWNED,
    "matches_dismiss": OWNED,
    "me_badges": MINE,
    "me_notifications": MINE,
    "me_notifications_read": MINE,
    # discovery
    "discovery_buckets": OPEN,
    "discovery_sources": OPEN,
    "discovery_poll": INGEST,
    "watches_prune_now": STAFF,
    "watches_just_opened": OPEN,
    "watches_still_open": OPEN,
    "watches_board": OPEN,
    "watches_new_drops": OPEN,
    "watches_list": MINE,
    "watches_create": DONE,
    "watches_show": OWNED,
    "watches_edit": OWNED,
    "watches_delete": OWNED,
    "watches_notifications": OWNED,
    "watches_test": (401, 403, 404, 409, 404, 404, 403),  # 409: it has no channel to test
    # counters
    "events_report": DONE,
    # feeds
    "feed": MINE,
    "posts_create": DONE,
    "posts_show": OPEN,
    "posts_edit": WRITTEN,
    "posts_delete": WRITTEN,
    "posts_like": DONE,
    "posts_unlike": DONE,
    "posts_share": DONE,
    "posts_unshare": DONE,
    "posts_search": OPEN,
    "comments_list": OPEN,
    "comments_create": DONE,
    "comments_edit": WRITTEN,
    "comments_delete": WRITTEN,
    "people_show": OPEN,
    "people_posts": OPEN,
    "people_followers": OPEN,
    "people_following": OPEN,
    "people_follow": DONE,
    "people_unfollow": DONE,
    "people_mute": DONE,
    "people_unmute": DONE,
    "people_block": DONE,
    "people_unblock": DONE,
    "me_profile": MINE,
    "me_profile_edit": MINE,
}
# A body that is right, so that nothing but the right to do it is at stake.
BODIES = {
    "catalog_record_snapshots": {
        "snapshots": [
            {"product_name": "Tea", "seller": "s", "price": "1", "currency": "EUR"}
            | {"scraped_at": "2025-11-10T06:00:00Z"}
        ]
    },
    "items_create": {"kind": "lost", "title": "A red bag"},
    "items_edit": {"title": "Another title"},
    "match_submit": {"item": "{item_id}"},
    "me_notifications_read": {"ids": [1]},
    "discovery_poll": {"source": "tables", "polled_at": "now", "slots": []},
    "watches_create": {"channel": "none"},
    "watches_edit": {"name": "Renamed"},
    "events_report": {"events": [{"id": "uuid", "type": "post_view", "target": 1, "at": "now"}]},
    "posts_create": {"text": "Hello"},
    "posts_edit": {"text": "Better"},
    "comments_create": {"text": "Yes"},
    "comments_edit": {"text": "No"},
    "me_profile_edit": {"bio": "Me"},
}
QUERIES = {"catalog_suggest": "q=tea", "items_search": "q=bag", "posts_search": "q=hello"}
SECRET_TITLE = "A thing that only its owner knows"
PEOPLE_SCOPES = sorted(set(SCOPES) - {"ingest", "metrics"})


@pytest.fixture(scope="module")
def operations(django_db_setup) -> dict[str, tuple[str, str]]:
    """{operation: (method, path)} of the whole document."""
    out = io.StringIO()
    call_command("spectacular", stdout=out)
    paths = yaml.safe_load(out.getvalue())["paths"]
    return {
        operation["operationId"]: (method.upper(), path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if method != "parameters"
    }


def test_every_operation_says_who_may_use_it(operations):
    missing, gone = set(operations) - set(MATRIX), set(MATRIX) - set(operations)
    assert not missing, f"say in MATRIX who may use {', '.join(sorted(missing))}"
    assert not gone, f"MATRIX names what is not there: {', '.join(sorted(gone))}"


@pytest.fixture
def callers(db, settings):
    """A client with the headers of each caller."""
    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": {}}
    users = get_user_model().objects
    people = {
        "no scope": users.create_user("reader"),
        "other": users.create_user("other"),
        "owner": users.create_user("owner"),
        "staff": users.create_user("staff", is_staff=True),
        "superuser": users.create_superuser("root"),
        "ingest": users.create_user("scraper"),
    }
    people["staff"].user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    scopes = {"no scope": ["read"], "ingest": ["ingest"]}
    clients = {"anonymous": Client()}
    for name, user in people.items():
        secret = token(user, *scopes.get(name, PEOPLE_SCOPES))
        clients[name] = Client(headers={"Authorization": f"Token {secret}"})
        clients[name].user = user
    return clients


@pytest.fixture
def world(callers) -> dict[str, str]:
    """The owner's things, one of each, and what everybody may read."""
    from catalog.actions import record_snapshots
    from discovery import actions as discovery
    from discovery import polls
    from discovery.watches import create_watch
    from feeds import actions as feeds
    from matching.actions import create_item
    from matching.models import Match, MatchJob

    owner, other = callers["owner"].user, callers["no scope"].user
    record_snapshots(
        rows=[
            {"product_name": "Tea", "seller": "s", "price": "1", "currency": "EUR"}
            | {"scraped_at": "2025-11-10T06:00:00Z"}
        ],
        source="test",
    )
    # A resume: personal, and in no public list.
    item = create_item(owner=owner, kind="resume", title=SECRET_TITLE)
    job = create_item(owner=other, kind="job", title="Gardener")
    match = Match.objects.create(
        pair="resume_job", seeker=item, offer=job, score=0.5,
        components=[{"name": "words", "raw": 0.5, "weight": 1.0, "contribution": 0.5}],
    )  # fmt: skip
    discovery.record_source_poll(polls.Poll("tables", timezone.now() - timedelta(minutes=2), []))
    author = feeds.ensure_profile(owner)
    post = feeds.create_post(author=author, text="Hello")
    comment = feeds.comment(post_id=post.pk, author=author, text="First")
    person = feeds.ensure_profile(other)
    for model in readmodels.select():
        readmodels.refresh(model)
    return {
        "item_id": str(item.pk),
        "task_id": str(MatchJob.objects.get(item=item).pk),
        "match_id": str(match.pk),
        "watch_id": str(create_watch(user=owner, channel="none", name=SECRET_TITLE).pk),
        "post_id": str(post.pk),
        "comment_id": str(comment.pk),
        "person_id": str(person.pk),
        "name": "tea",
    }


def ask(client, operation: str, method: str, path: str, world: dict[str, str]):
    """One request with a body that is right."""
    body = _filled(BODIES.get(operation), world)
    url = path.format_map(world) + (f"?{QUERIES[operation]}" if operation in QUERIES else "")
    headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
    return client.generic(
        method,
        url,
        b"" if body is None else json.dumps(body).encode(),
        content_type="application/json",
        headers=headers,
    )


def _filled(value, world):
    match value:
        case dict():
            return {key: _filled(one, world) for key, one in value.items()}
        case list():
            return [_filled(one, world) for one in value]
        case "now":
            return timezone.now().isoformat()
        case "uuid":
            return str(uuid.uuid4())
        case "{item_id}":
            return int(world["item_id"])
    return value


@pytest.mark.parametrize("operation", MATRIX)
def test_only_those_who_may(operation, operations, callers, world):
    method, path = operations[operation]
    wrong = []
    for caller, expected in sorted(
        zip(CALLERS, MATRIX[operation], strict=True), key=lambda one: one[0] == "owner"
    ):
        with transaction.atomic():
            answer = ask(callers[caller], operation, method, path, world)
            if caller != "owner":
                transaction.set_rollback(True)
        got = answer.status_code
        if not (200 <= got < 300 if expected == 2 else got == expected):
            wrong.append(f"{caller}: {got}, expected {expected}: {answer.content[:200]}")
        if caller != "owner" and MATRIX[operation] in (OWNED, MINE):
            assert SECRET_TITLE not in answer.content.decode(), caller
    assert not wrong, "\n".join([f"{method} {path}", *wrong])


@pytest.mark.parametrize(
    "operation", [name for name, may in MATRIX.items() if may in (OWNED, WRITTEN)]
)
def test_what_is_anothers_is_answered_as_what_is_not_there(operation, operations, callers, world):
    """The same status and the same words: nobody learns that it exists."""
    method, path = operations[operation]
    nowhere = dict.fromkeys(world, "999999999") | {"task_id": str(uuid.uuid4())}
    theirs = ask(callers["other"], operation, method, path, world)
    nothing = ask(callers["other"], operation, method, path, nowhere)
    assert theirs.status_code == nothing.status_code
    assert without_id(theirs) == without_id(nothing)


def without_id(answer) -> dict:
    """A problem without what differs from request to request."""
    return {name: value for name, value in answer.json().items() if name != "request_id"}


def test_reads_can_be_closed(operations, callers, world, settings):
    settings.API_PUBLIC_READS = False
    for operation, may in MATRIX.items():
        if may is OPEN:
            method, path = operations[operation]
            answer = ask(Client(), operation, method, path, world)
            assert answer.status_code == 401, operation
            assert ask(callers["no scope"], operation, method, path, world).status_code == 200


def test_pruning_is_for_staff_with_a_token_for_ingest(only_new_partitions, callers, world):
    for name, expected in {"other": 403, "staff": 200}.items():
        secret = token(callers[name].user, "ingest")
        client = Client(headers={"Authorization": f"Token {secret}"})
        assert client.post("/api/v1/watches/prune-now").status_code == expected
