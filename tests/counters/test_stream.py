"""Events: checked, kept in the stream, counted once whatever dies, buried with a reason."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import orjson
import pytest
from redis import Redis

from counters import actions, incoming, stream
from counters.actions import Event
from counters.models import DeadLetter, SeenEvent
from counters.stream import Consumer
from feeds.models import Post
from tests.feeds.people import profile
from tests.people import Person
from tests.processes import until

pytestmark = pytest.mark.django_db


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def view(target, **given) -> dict:
    now = datetime.now(UTC).isoformat()
    return {"id": str(uuid4()), "type": "post_view", "target": target, "at": now} | given


def event(target: int) -> Event:
    return Event(str(uuid4()), today(), "post_view", target)


@pytest.fixture
def post(db) -> Post:
    return Post.objects.create(author=profile("ann"), text="x")


@pytest.fixture
def valkey():
    client = stream.waiting_client()
    client.delete(stream.key())
    stream.make_group(client)
    yield client
    client.delete(stream.key())
    client.close()


@pytest.fixture
def consumer(valkey) -> Consumer:
    return Consumer("one", valkey)


def views(post: Post) -> int:
    post.refresh_from_db()
    return post.views_count


def test_events_are_counted_once(consumer, post):
    events = [event(post.pk) for _ in range(1_200)]
    stream.offer(events)
    stream.offer(events[:700])
    assert stream.lag()["entries"] == 5
    assert consumer.step(wait_seconds=0.01) == 1_200
    assert views(post) == 1_200
    assert stream.lag()["entries"] == 0
    stream.offer(events[5:10])
    assert consumer.step(wait_seconds=0.01) == 0
    assert views(post) == 1_200
    assert SeenEvent.objects.count() == 1_200


def test_what_died_before_the_commit_is_counted_by_another(consumer, valkey, post, monkeypatch):
    stream.offer([event(post.pk)])
    dead = Consumer("dead", valkey)
    assert dead._new(0.01)  # it read, and died
    assert consumer.step(wait_seconds=0.01) == 0  # it is not idle for long enough
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0)
    consumer._claim_due = 0
    assert consumer.step(wait_seconds=0.01) == 1
    assert views(post) == 1


def test_what_died_after_the_commit_is_not_counted_again(consumer, valkey, post, monkeypatch):
    stream.offer([event(post.pk)])
    dead = Consumer("dead", valkey)
    stream.count(dead._new(0.01))  # it counted, and died before it acknowledged
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0)
    assert consumer.step(wait_seconds=0.01) == 0
    assert views(post) == 1
    assert not valkey.xlen(stream.key())


def test_a_stream_that_valkey_forgot_is_made_again(consumer, valkey, post):
    valkey.delete(stream.key())
    stream.offer([event(post.pk)])
    assert consumer.step(wait_seconds=0.01) == 0
    assert consumer.step(wait_seconds=0.01) == 1


def test_what_cannot_be_counted_is_buried_and_can_be_retried(consumer, valkey, post):
    good = [str(uuid4()), today(), "post_view", post.pk]
    wrong = (
        b"{",
        b'{"a": 1}',
        orjson.dumps([good, [str(uuid4()), today(), "nothing", 1]]),
        orjson.dumps([[str(uuid4()), "1970-01-01", "post_view", 1]]),
        orjson.dumps([["x", today(), "post_view", 1]]),
        orjson.dumps([[str(uuid4()), today(), "post_view", 2**63]]),
        orjson.dumps([[str(uuid4()), today(), "post_view", True]]),
        orjson.dumps(["x"]),
    )
    for payload in wrong:
        valkey.xadd(stream.key(), {stream.FIELD: payload})
    valkey.xadd(stream.key(), {b"other": b"x"})
    assert consumer.step(wait_seconds=0.01) == 1
    assert not valkey.xlen(stream.key())
    reasons = list(DeadLetter.objects.order_by("pk").values_list("reason", flat=True))
    assert len(reasons) == 9
    assert reasons[0].startswith("Is no JSON")
    assert reasons[1:] == [
        "Is no list of events.",
        "Nothing counts events of the type 'nothing'.",
        "The day is not one of those whose events are known still.",
        "The event id is not a UUID.",
        "The target is not the id of a row.",
        "The target is not the id of a row.",
        "Is not [event_id, day, type, target].",
        "The entry has no field `events`, or was deleted.",
    ]
    letter = DeadLetter.objects.all()[2]
    letter.payload = letter.payload.replace("nothing", "post_view").replace(",1]", f",{post.pk}]")
    letter.save()
    assert stream.retry_dead(ids=DeadLetter.objects.values_list("pk", flat=True)) == (1, 8)
    assert views(post) == 2
    assert set(DeadLetter.objects.values_list("attempts", flat=True)) == {2}


def test_an_entry_that_kills_its_workers_is_buried(consumer, valkey, post, monkeypatch):
    stream.offer([event(post.pk)])
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0)
    for number in range(stream.MAX_DELIVERIES):
        Consumer(f"dead-{number}", valkey)._left() or Consumer("dead", valkey)._new(0.01)
    assert consumer.step(wait_seconds=0.01) == 0
    assert "times, and never settled" in DeadLetter.objects.get().reason
    assert views(post) == 0


def test_only_the_entry_that_fails_is_buried(consumer, valkey, post, monkeypatch):
    for _ in range(3):
        stream.offer([event(post.pk)])
    read, failed = stream._read, []

    def sometimes(entry, events):
        if not failed or failed == [entry.id]:
            failed[:] = [entry.id]
            raise RuntimeError("a fault of ours")
        return read(entry, events)

    monkeypatch.setattr(stream, "_read", sometimes)
    assert consumer.step(wait_seconds=0.01) == 2
    assert "RuntimeError" in DeadLetter.objects.get().reason
    assert not valkey.xlen(stream.key())
    monkeypatch.undo()
    assert stream.retry_dead(ids=[DeadLetter.objects.get().pk]) == (1, 0)
    assert views(post) == 3


def test_events_of_what_is_gone_count_nowhere(consumer, post):
    stream.offer([event(post.pk + 1_000), event(post.pk)])
    assert consumer.step(wait_seconds=0.01) == 2
    assert views(post) == 1
    assert not actions.fold()


def test_a_full_stream_refuses(settings, valkey, post):
    settings.COUNTERS_STREAM_LIMIT = 2
    stream.offer([event(post.pk)])
    with pytest.raises(stream.Full):
        stream.offer([event(post.pk) for _ in range(501)])
    assert valkey.xlen(stream.key()) == 1  # none of them went in
    person = Person("bob", ["events"])
    stream.offer([event(post.pk)])
    refused = person.send("events", {"events": [view(post.pk)]})
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "5"
    assert "send them again" in refused.json()["detail"]


def test_without_valkey_events_are_refused(monkeypatch, valkey, post):
    gone = Redis(port=1)
    monkeypatch.setattr("config.valkey.client", lambda: gone)
    refused = Person("bob", ["events"]).send("events", {"events": [view(post.pk)]})
    assert refused.status_code == 503
    assert stream.lag() is None


def test_events_come_by_the_api(consumer, post):
    person = Person("bob", ["events"])
    one = view(post.pk)
    taken = person.send("events", {"events": [one, view(post.pk)]})
    assert (taken.status_code, taken.json()) == (202, {"accepted": 2})
    assert person.send("events", {"events": [one]}).status_code == 202
    assert consumer.step(wait_seconds=0.01) == 2
    assert views(post) == 2


def test_only_with_the_scope(post, valkey):
    assert Person("bob", ["feeds"]).send("events", {"events": [view(1)]}).status_code == 403


@pytest.mark.parametrize(
    ("body", "name", "reason"),
    [
        ([], "body", "Must be a JSON object."),
        ({}, "events", "Must be a list of one event or more."),
        ({"events": []}, "events", "Must be a list of one event or more."),
        ({"events": [1]}, "events[0]", "Must be a JSON object."),
        ({"events": [view(1)], "x\x00y": 1}, "xy", "Is not a field here."),
        ({"events": [view(1, more=1)]}, "events[0].more", "Is not a field here."),
        ({"events": [{}]}, "events[0].id", "Is missing."),
        ({"events": [view(1, id="x")]}, "events[0].id", "Is not a UUID."),
        ({"events": [view(1, id=None)]}, "events[0].id", "Is not a UUID."),
        ({"events": [view(1, type="x")]}, "events[0].type", "Is none of: post_impression"),
        ({"events": [view(1, type=[])]}, "events[0].type", "Is none of: post_impression"),
        ({"events": [view(0)]}, "events[0].target", "Is not the id of anything."),
        ({"events": [view(2**63)]}, "events[0].target", "Is not the id of anything."),
        ({"events": [view("1")]}, "events[0].target", "Is not the id of anything."),
        ({"events": [view(1, at="now")]}, "events[0].at", "Is not a time"),
        ({"events": [view(1, at="2025-10-01T06:00:00")]}, "events[0].at", "Is not a time"),
        ({"events": [view(1, at="1970-01-01T00:00:00Z")]}, "events[0].at", "Is more than a day"),
        ({"events": [view(1, at="2999-01-01T00:00:00Z")]}, "events[0].at", "Lies in the future."),
        ({"events": [view(1)] * 1_001}, "events", "Holds 1,001 events"),
    ],
)
def test_hostile_events_are_refused_by_name(body, name, reason, valkey):
    refused = Person("bob", ["events"]).send("events", body)
    assert refused.status_code == 400
    error = refused.json()["errors"][0]
    assert error["name"] == name
    assert error["reason"].startswith(reason)
    assert not valkey.xlen(stream.key())


def test_yesterday_counts_and_has_its_partition(consumer, post):
    late = view(post.pk, at=(datetime.now(UTC) - timedelta(hours=23, minutes=59)).isoformat())
    assert incoming.events_of({"events": [late]})[0].day <= today()
    assert Person("bob", ["events"]).send("events", {"events": [late]}).status_code == 202
    assert consumer.step(wait_seconds=0.01) == 1


@pytest.mark.django_db(transaction=True)
def test_killed_workers_count_each_event_once(valkey, database_url):
    """Two real workers, of which one after the other is killed while they count."""
    posts = [Post.objects.create(author=profile("ann"), text="x").pk for _ in range(20)]
    environment = os.environ | {"STREAM_IDLE_SECONDS": "0.5", "DATABASE_URL": database_url}
    workers = [start_worker(environment) for _ in range(2)]
    expected = dict.fromkeys(posts, 0)
    try:
        for number in range(60):
            events = [event(posts[place % 20]) for place in range(number % 7, 500)]
            for one in events:
                expected[one.target] += 1
            stream.offer(events)
            stream.offer(events[:20])  # a client that sends again
            if number % 6 == 5:
                time.sleep(0.3)
                victim = workers.pop(0)
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                workers.append(start_worker(environment))
        until(lambda: not valkey.xlen(stream.key()), "the end of the stream")
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait(20)
    actions.fold()
    assert dict(Post.objects.values_list("pk", "views_count")) == expected
    assert not DeadLetter.objects.exists()


def start_worker(environment) -> subprocess.Popen:
    program = (
        "import django; django.setup()\n"
        "from django.db import connections\n"
        "import os, threading, signal\n"
        "from counters import stream, worker\n"
        "stream.IDLE_SECONDS = float(os.environ['STREAM_IDLE_SECONDS'])\n"
        "stop = threading.Event()\n"
        "signal.signal(signal.SIGTERM, lambda *_: stop.set())\n"
        "worker.work(stop)\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], env=environment)
