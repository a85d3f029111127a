"""The API guide: up to date, and each of its requests runs as it stands there."""

import re
import subprocess
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from catalog.actions import record_snapshots
from config import apiguide, readmodels
from config.tokens import SCOPES
from discovery.models import Venue, Watch
from feeds.actions import ensure_profile
from matching.models import Match, MatchJob
from tests.people import Person

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "api-guide.md"
BLOCK = re.compile(r"^    curl .*(?:\n    .*)*", re.MULTILINE)
API = "http://127.0.0.1:8000/api/v1"
SENDS = "$WATCH_ID/test"  # left out: it sends a message to whom the watch names
WATCH = {"channel": "none"}
DAY = "2026-02-18T06:00:00Z"


def commands() -> list[str]:
    """Every curl command of the guide."""
    blocks = BLOCK.finditer(GUIDE.read_text(encoding="utf-8"))
    return ["\n".join(line[4:] for line in block[0].split("\n")) for block in blocks]


def arguments(command: str, variables: dict[str, str]) -> list[str]:
    """What the shell hands to curl."""
    done = subprocess.run(
        ["bash", "-uc", "curl() { printf '%s\\0' \"$@\"; }\n" + command],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\0")[:-1]


def send(client: Person, handed: list[str]):
    """The request that curl would send."""
    method, headers, body, url = "GET", {}, b"", ""
    handed = iter(handed)
    for one in handed:
        if one == "-X":
            method = next(handed)
        elif one == "-H":
            name, _, value = next(handed).partition(": ")
            headers[name] = value
        elif one == "-d":
            body = next(handed).encode()
        elif one != "-s":
            url = one
    client.credentials()
    return client.generic(
        method,
        url.removeprefix("http://127.0.0.1:8000"),
        body,
        content_type=headers.pop("Content-Type", "application/octet-stream"),
        headers=headers,
    )


@pytest.fixture
def things(only_new_partitions, fresh_process, db):
    """`things()` makes one of each thing that the guide names, and says by which variable."""
    numbers = count()
    ann, bob = (Person(name, list(SCOPES)) for name in ("ann", "bob"))
    get_user_model().objects.update(is_staff=True, is_superuser=True)
    ensure_profile(bob.user)
    price = {"product_name": "Catan", "seller": "milan", "price": "39.90", "currency": "EUR"}
    record_snapshots(rows=[price | {"scraped_at": DAY}], source="test")
    for model in readmodels.select(["catalog"]):
        readmodels.refresh(model)

    def made(client: Person, path: str, body: dict) -> str:
        answer = client.send(path, body)
        assert answer.status_code in (201, 202), answer.content
        return str(answer.json().get("id") or answer.json()["task_id"])

    def make() -> dict[str, str]:
        number = next(numbers)
        MatchJob.objects.update(state=MatchJob.State.CANCELLED)  # of these a person may have
        Watch.objects.all().delete()  # so many
        for client in (ann, bob):
            client.credentials(HTTP_AUTHORIZATION=f"Token {client.secret}")
        lost, found = (
            made(client, "items", {"kind": kind, "title": f"Black umbrella {number}"})
            for client, kind in ((ann, "lost"), (bob, "found"))
        )
        match = Match.objects.create(
            seeker_id=lost, offer_id=found, score=0.5, components=[], state="suggested"
        )
        now = timezone.now()
        slot = {"venue": "alba", "starts_at": (now + timedelta(days=1)).isoformat()}
        ann.send(
            "discovery/polls", {"source": "city", "polled_at": now.isoformat(), "slots": [slot]}
        )
        post = made(ann, "posts", {"text": f"Number {number}"})
        return {
            "API": API,
            "TOKEN": ann.secret,
            "NAME": "catan",
            "ITEM_ID": lost,
            "MATCH_ID": str(match.pk),
            "TASK_ID": made(ann, "match", {"query": {"kind": "lost", "title": "Umbrella"}}),
            "POST_ID": post,
            "COMMENT_ID": made(ann, f"posts/{post}/comments", {"text": "Mine"}),
            "VENUE_ID": str(Venue.objects.get(key="alba", source__name="city").pk),
            "PERSON_ID": str(bob.user.pk),
            "WATCH_ID": made(ann, "watches", WATCH | {"name": f"Watch {number}"}),
        }

    return make


def test_it_is_what_the_schema_says():
    assert GUIDE.read_text(encoding="utf-8") == apiguide.render(), (
        "manage.py api_guide > docs/api-guide.md"
    )


def test_each_request_runs(things):
    found = commands()
    assert len(found) > 60
    client = Person("nobody", ["items"])
    failed = {}
    for command in found:
        if SENDS in command:
            continue
        reachable = command.replace("https://example.org", "https://1.1.1.1")  # no name server
        answer = send(client, arguments(reachable, things()))
        if not 200 <= answer.status_code < 300:
            failed[command] = f"{answer.status_code} {answer.content[:300]!r}"
    assert failed == {}, "\n".join(failed.values())
