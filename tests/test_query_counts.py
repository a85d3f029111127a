"""How many SQL statements each read costs: a baseline that may shrink, not grow.

`tests/query_counts.json` holds it: statements of an uncached answer, apart from the read models'
generations, which a process asks for every two seconds whatever the load. Addresses with `{item}`
or `{task}`, and those under `me`, are asked for with a token; finding that is one statement.
"""

import json
import re
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from matching import scoring, vectors

BASELINE = Path(__file__).with_name("query_counts.json")
BUDGETS = json.loads(BASELINE.read_text())
OWN = ("/api/v1/items?", "/api/v1/watches?", "/api/v1/feed")


@pytest.fixture
def filled(db, settings):
    from catalog.actions import record_snapshots
    from config import caching, generations, readmodels

    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_THROTTLE_RATES": {"address": "off", "token": "off"},
    }
    record_snapshots(
        rows=[
            {"product_name": f"Tea {number}", "seller": seller, "price": "1", "currency": "EUR"}
            | {"scraped_at": "2025-11-10T06:00:00Z", "category_tags": [f"drinks-{number}"]}
            for number in range(30)
            for seller in "ab"
        ],
        source="test",
    )
    names = _post_items()
    names |= _watch_openings(names["token"])
    names |= _follow_and_post()
    for model in readmodels.select():
        readmodels.refresh(model)
    caching.forget()
    generations.of(())
    return names


def _post_items() -> dict[str, str]:
    """30 items of each of two people, matches among them; what the addresses name."""
    from matching.actions import create_item
    from matching.models import Match, MatchJob, Notification
    from tests.people import Person

    caller = Person("ann", ["items", "watches", "feeds"])
    ann, bob = caller.user, Person("bob", ["items"]).user
    lost, found = (
        [
            create_item(owner=owner, kind=kind, title=f"Umbrella {at}", latitude=1, longitude=1)
            for at in range(30)
        ]
        for owner, kind in ((ann, "lost"), (bob, "found"))
    )
    for offer in found:
        components = [{"name": "words", "raw": 1, "weight": 1, "contribution": 1}]
        fields = {"seeker_id": lost[0].pk, "offer_id": offer.pk}
        Match.objects.create(pair="lost_found", score=0.5, components=components, **fields)
        Notification.objects.create(user=ann, subject="confirmed_by_other", **fields)
    job = MatchJob.objects.get(item=lost[0])
    MatchJob.objects.filter(pk=job.pk).update(state="done", result={"routes": {}})
    return {"item": str(lost[0].pk), "task": str(job.pk), "token": f"Token {caller.secret}"}


def _watch_openings(token: str) -> dict[str, str]:
    """A source with 30 drops at as many venues, and 30 watches of which one names some of them."""
    from datetime import timedelta

    from django.contrib.auth import get_user_model
    from django.utils import timezone

    from discovery import actions, polls
    from discovery.models import Venue
    from discovery.watches import create_watch

    now = timezone.now()
    for minutes, shown in ((2, 1), (1, 30)):
        slots = [
            polls.Slot(f"slot {number}", f"venue {number}", now + timedelta(days=1))
            for number in range(shown)
        ]
        actions.record_source_poll(polls.Poll("tables", now - timedelta(minutes=minutes), slots))
    ann = get_user_model().objects.get(username="ann")
    venues = list(Venue.objects.values_list("pk", flat=True)[:10])
    watches = [create_watch(user=ann, channel="none", venues=venues) for _ in range(30)]
    return {"watch": str(watches[0].pk)}


def _follow_and_post() -> dict[str, str]:
    """30 people whom Ann follows, a post of each, 30 comments on one; her timeline is kept."""
    from django.contrib.auth import get_user_model

    from feeds import actions, fanout, indexing, timeline

    users = get_user_model().objects
    ann = actions.ensure_profile(users.get(username="ann"))
    for number in range(30):
        author = actions.ensure_profile(users.create_user(f"author-{number}"))
        actions.follow(user=ann, target_id=author.pk)
        post = actions.create_post(author=author, text="A bicycle")
    for _ in range(30):
        actions.comment(post_id=post.pk, author=author, text="Mine")
    timeline.read(viewer=ann, limit=1)
    fanout.drain()
    timeline.read(viewer=ann, limit=1)  # notes that she read
    indexing.index_next()
    return {"post": str(post.pk), "author": str(author.pk), "ann": str(ann.pk)}


@pytest.mark.parametrize("address", BUDGETS)
def test_query_count(filled, address):
    own = "{" in address or "/me/" in address or address.startswith(OWN)
    headers = {"Authorization": filled["token"]} if own else {}
    if own:
        Client().get("/api/v1/me/notifications", headers=headers)  # notes when the token was used
    # What a process keeps for some seconds (weights, estimates), it has read a moment ago.
    scoring.forget_weights()
    vectors.forget_estimates()
    Client().get("/api/v1/items/search?q=something+else&latitude=2&longitude=2")
    with CaptureQueriesContext(connection) as captured:
        response = Client().get(address.format_map(filled), headers=headers)
    assert response.status_code == 200, response.content
    # Savepoints are there because the test runs in a transaction.
    apart = re.compile("config_readmodelstate|SAVEPOINT")
    statements = [query["sql"] for query in captured if not apart.search(query["sql"])]
    listing = "\n\n".join(statements)
    assert len(statements) <= BUDGETS[address], (
        f"{address} costs {len(statements)} statements, {BUDGETS[address]} are in"
        f" {BASELINE.name}:\n\n{listing}"
    )
    assert len(statements) == BUDGETS[address], f"fewer than {BASELINE.name} says: lower it"


def test_every_read_has_a_baseline():
    from config.urls import domain_patterns

    known = {address.partition("?")[0] for address in BUDGETS}
    for pattern in domain_patterns():
        reads = hasattr(getattr(pattern.callback, "cls", None), "get")
        if pattern.name == "discovery-stream":  # asks as new-drops does, for as long as it stays
            continue
        route = f"/api/v1/{pattern.pattern}".partition("<")[0]
        assert not reads or any(address.startswith(route) for address in known), (
            f"add {route} to {BASELINE.name}"
        )
