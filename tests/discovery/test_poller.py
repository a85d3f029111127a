"""The poller against a real server that misbehaves, and while pollers are killed and frozen."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import orjson
import psycopg
import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from config import daemons
from config.models import Heartbeat
from discovery import actions, poller
from discovery.management.commands.discovery_poller import _poll_until_told
from discovery.models import Availability, DropEvent, FeedSegment, Scan, Source, Venue
from discovery.providers import base
from discovery.providers.mapped import Mapped
from tests.discovery.httpserver import (
    ALL,
    bomb,
    breaking_off,
    conditional,
    good,
    hanging,
    raw,
    redirect,
    serving,
    status,
)
from tests.processes import exit_code, kill, until

pytestmark = pytest.mark.django_db(transaction=True)

PROJECT = Path(__file__).resolve().parents[2]
STANDING = {"items": "free", "slot_id": "id", "venue": "room"}


@pytest.fixture(autouse=True)
def _settings(settings, monkeypatch):
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.OUTGOING_TIMEOUT_SECONDS = 20  # a busy machine must not look like a slow host
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    settings.DISCOVERY_COOLDOWN_SECONDS = 0
    monkeypatch.setattr(poller, "LOOK_SECONDS", 0.05)


@pytest.fixture
def server():
    with serving() as known:
        yield known


@pytest.fixture
def fork(fork):
    """`fork()` is the id of a poller that runs in a fork, with leases that are short."""

    def work():
        poller.LEASE = timedelta(seconds=2)
        poller.HEARTBEAT_SECONDS = 0.4
        asyncio.run(_poll_until_told())

    return lambda: fork(work)


def showing(*ids):
    """What the source answers when these are free."""
    return {"free": [{"id": each, "room": f"room of {each}"} for each in ids]}


def add_source(server, path="/slots", **fields):
    given = {"name": path.strip("/"), "provider": "json", "window_days": 0, "poll_seconds": 1}
    config = {"url": server.url(path), **STANDING}
    return Source.objects.create(**given | {"config": config} | fields)


@contextmanager
def polling():
    """A poller runs in this process for the time of the block."""
    told, failed = [], []

    async def main():
        stop = asyncio.Event()
        told.append((asyncio.get_running_loop(), stop))
        await poller.poll(stop)

    def run():
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: told or failed, what="the poller")
    try:
        yield
    finally:
        loop, stop = told[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
    assert not failed
    assert not thread.is_alive()


def make_due(source):
    Source.objects.filter(pk=source.pk).update(next_poll_at=timezone.now(), last_attempt_at=None)


def poll_once(source):
    """Let the source be polled now; the scan that came of it."""
    before = Scan.objects.filter(source=source).count()
    make_due(source)
    with polling():
        until(lambda: Scan.objects.filter(source=source).count() > before, what="a poll")
    source.refresh_from_db()
    return Scan.objects.filter(source=source).order_by("-pk")[0]


def opened():
    return sorted(DropEvent.objects.values_list("slot_id", flat=True))


def is_open():
    return sorted(Availability.objects.values_list("slot_id", flat=True))


def pause_of(source):
    """Seconds from the last attempt to the next poll."""
    return (source.next_poll_at - source.last_attempt_at).total_seconds()


# --- One poll ---------------------------------------------------------------------------------


def test_what_opens_is_a_drop_and_stands_in_the_feed(server):
    source = add_source(server)
    server.answers["/slots"] = good(showing("a", "b"))
    assert poll_once(source).outcome == "recorded"
    assert (opened(), is_open()) == ([], ["a", "b"])
    server.answers["/slots"] = good(showing("b", "c"))
    scan = poll_once(source)
    assert (scan.opened, scan.closed) == (1, 1)
    assert (opened(), is_open()) == (["c"], ["b", "c"])
    [segment] = FeedSegment.objects.filter(segment="just_opened")
    assert [each["slot_id"] for each in orjson.loads(bytes(segment.payload))["results"]] == ["c"]
    assert source.lease_owner == ""
    assert source.lease_expires_at is None
    assert 1 <= pause_of(source) < 2


BAD = {
    "hangs": (hanging, "gave no whole answer within 0.5 s"),
    "500": (status(500), "answered 500"),
    "429": (status(429, Retry_After="120"), "answered 429"),
    "truncated JSON": (raw(b'{"free": [{"id": "a", "ro'), "is not JSON"),
    "broken off": (breaking_off, "broke off"),
    "NaN": (raw(b'{"free": [NaN]}'), "is not JSON"),
    "HTML": (raw(b"<p>maintenance</p>", kind="text/html"), "answered text/html, not JSON"),
    "nothing": (raw(b""), "answered with nothing"),
    "a bomb": (bomb(3 * 1024**2), "larger than 2 MiB"),
    "to a private address": (redirect("http://10.1.2.3/free"), "is not asked"),
    "another shape": (good({"error": "quota"}), "has nothing at 'free' (items)"),
    "an item without venue": (good({"free": [{"id": "x"}]}), "has nothing at 'room' (venue)"),
    "an id of 1 MB": (good({"free": [{"id": "x" * 10**6, "room": "r"}]}), "200 characters"),
    "an id twice": (good(showing("x", "x")), "Repeats the slot_id 'x'"),
    "304 unasked": (status(304), "was not asked"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_failure_opens_and_closes_nothing_and_the_next_answer_goes_on(
    server, monkeypatch, settings, name
):
    monkeypatch.setattr(base, "BODY_BYTES", 2 * 1024**2)
    answer, reason = BAD[name]
    source = add_source(server)
    server.answers["/slots"] = good(showing("a", "b", "c"))
    poll_once(source)
    server.answers["/slots"] = answer
    settings.OUTGOING_TIMEOUT_SECONDS = 0.5 if name == "hangs" else 20
    for failures in (1, 2):
        scan = poll_once(source)
        assert scan.outcome == "failed"
        assert reason in scan.error
        assert (source.consecutive_failures, source.last_error) == (failures, scan.error)
        assert source.last_success_at < source.last_attempt_at
    assert (opened(), is_open()) == ([], ["a", "b", "c"])
    settings.OUTGOING_TIMEOUT_SECONDS = 20
    server.answers["/slots"] = good(showing("a", "b", "d"))
    assert poll_once(source).outcome == "recorded"
    assert (source.consecutive_failures, source.last_error) == (0, "")
    assert (opened(), is_open()) == (["d"], ["a", "b", "d"])


def test_an_empty_list_must_be_confirmed(server):
    source = add_source(server)
    server.answers["/slots"] = good(showing("a", "b"))
    poll_once(source)
    server.answers["/slots"] = good(showing())
    assert poll_once(source).outcome == "recorded"
    assert is_open() == ["a", "b"]
    poll_once(source)
    assert is_open() == []


def test_a_network_of_bikes(server):
    def stations(**vehicles):
        each = [
            {"station_id": key, "num_vehicles_available": count, "is_renting": True}
            for key, count in vehicles.items()
        ]
        return good({"ttl": 45, "data": {"stations": each}})

    names = ("station_information", "station_status")
    feeds = [{"name": name, "url": server.url(f"/{name}.json")} for name in names]
    places = [{"station_id": "s1", "name": "Gare", "lat": 45.76, "lon": 4.86}]
    server.answers |= {
        "/gbfs.json": good({"data": {"feeds": feeds}}),
        "/station_information.json": good({"ttl": 0, "data": {"stations": places}}),
        "/station_status.json": stations(s1=0, s2=3, s3=1),
    }
    source = add_source(server, "/gbfs.json", name="bikes", provider="gbfs")
    Source.objects.filter(pk=source.pk).update(config={"url": server.url("/gbfs.json")})
    poll_once(source)
    assert 45 <= pause_of(source) < 51  # its ttl, not poll_seconds
    server.answers["/station_status.json"] = stations(s1=2, s2=3)
    poll_once(source)
    assert opened() == ["s1"]
    assert is_open() == ["s1", "s2", "s3"]  # s3 has not answered
    server.answers["/station_status.json"] = stations(s1=2, s2=3, s3=0)
    poll_once(source)  # of a calendar that had something, nothing is not believed at first
    poll_once(source)
    assert is_open() == ["s1", "s2"]
    assert Venue.objects.get(key="s1").name == "Gare"


def test_the_demo_goes_on_by_itself():
    source = Source.objects.create(name="demo", provider="demo", config={"seed": 3})
    assert poll_once(source).slots > 50
    assert Availability.objects.count() > 50
    assert source.consecutive_failures == 0


# --- Not modified -----------------------------------------------------------------------------


def test_what_was_not_modified_is_a_success(server):
    source = add_source(server)
    modified = "Tue, 05 Nov 2024 08:00:00 GMT"
    server.answers["/slots"] = conditional(showing("a"), etag='"v1"', modified=modified)
    poll_once(source)
    server.answers["/slots"] = status(500)
    poll_once(source)
    server.answers["/slots"] = conditional(showing("a"), etag='"v1"', modified=modified)
    scan = poll_once(source)
    assert scan.outcome == "unchanged"
    headers = server.asked("/slots")[-1].headers
    assert headers["If-None-Match"] == '"v1"'
    assert headers["If-Modified-Since"] == modified
    assert source.consecutive_failures == 0
    assert source.last_success_at == scan.polled_at
    assert (opened(), is_open()) == ([], ["a"])


def test_a_slot_that_is_missed_once_is_asked_for_in_full(server, settings):
    """Otherwise "not modified" would keep it open for ever."""
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 2
    source = add_source(server)
    server.answers["/slots"] = conditional(showing("a", "b"), etag='"v1"')
    poll_once(source)
    server.answers["/slots"] = conditional(showing("b"), etag='"v2"')
    poll_once(source)
    assert is_open() == ["a", "b"]
    assert poll_once(source).outcome == "recorded"
    assert "If-None-Match" not in server.asked("/slots")[-1].headers
    assert is_open() == ["b"]
    assert poll_once(source).outcome == "unchanged"


def test_another_set_up_is_asked_in_full(server):
    source = add_source(server)
    server.answers["/slots"] = conditional(showing("a"), etag='"v1"')
    poll_once(source)
    config = source.config | {"payload": {"name": "id"}}
    Source.objects.filter(pk=source.pk).update(config=config)
    assert poll_once(source).outcome == "recorded"


# --- When -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor", "failures", "retry_after", "least"),
    [
        (60, 0, None, 60),
        (60, 1, None, 60),
        (60, 2, None, 120),
        (60, 4, None, 480),
        (60, 5, None, 900),
        (1, 1_000_000, None, 900),
        (3_600, 9, None, 3_600),
        (60, 1, 120, 120),
        (60, 0, 10, 60),
    ],
)
def test_pauses(floor, failures, retry_after, least):
    for _ in range(50):
        pause = poller.pause_after(floor=floor, failures=failures, retry_after=retry_after)
        assert least <= pause <= least * 1.1


def test_failures_make_the_pauses_longer_and_one_success_ends_that(server):
    source = add_source(server, poll_seconds=10)
    server.answers["/slots"] = status(500)
    for least in (10, 20, 40, 80):
        poll_once(source)
        assert least <= pause_of(source) < least * 1.1 + 2
    server.answers["/slots"] = status(503, Retry_After="600")
    poll_once(source)
    assert 600 <= pause_of(source) < 662
    server.answers["/slots"] = good(showing("a"))
    poll_once(source)
    assert 10 <= pause_of(source) < 13


def test_a_source_is_never_asked_too_soon_whoever_wants_it(server):
    source = add_source(server, poll_seconds=3)
    server.answers["/slots"] = good(showing("a"))
    poll_once(source)
    for paused in (True, False):  # which makes it due
        actions.pause_source(source_id=source.pk, paused=paused)
    assert poller.claim(limit=8) == []
    attempted = source.last_attempt_at
    with polling():  # a poller that was started anew
        until(lambda: len(server.asked("/slots")) == 2, what="the second poll")
    source.refresh_from_db()
    assert source.last_attempt_at - attempted >= timedelta(seconds=3)

    # The same for what the source itself asks for.
    kept = {"floor_seconds": 3_600}
    past = timezone.now() - timedelta(seconds=3_590)
    Source.objects.filter(pk=source.pk).update(
        validators=kept, last_attempt_at=past, next_poll_at=past
    )
    assert poller.claim(limit=8) == []
    Source.objects.filter(pk=source.pk).update(last_attempt_at=past - timedelta(seconds=11))
    assert len(poller.claim(limit=8)) == 1


def test_what_is_claimed(server):
    due = [add_source(server, f"/s{number}") for number in range(3)]
    add_source(server, "/paused", is_paused=True)
    add_source(server, "/pushed", provider="push")
    add_source(server, "/later", next_poll_at=timezone.now() + timedelta(minutes=1))
    first = poller.claim(limit=2)
    second = poller.claim(limit=8)
    assert sorted(each.source.pk for each in first + second) == [each.pk for each in due]
    assert len(first) == 2
    assert poller.claim(limit=8) == []
    assert set(poller.keep(first + second).values()) == {"s0", "s1", "s2"}
    Source.objects.filter(pk=first[0].source.pk).update(lease_owner="another")
    assert first[0].source.pk not in poller.keep(first + second)


# --- Several sources, and faults in here ------------------------------------------------------


def test_who_hangs_stops_nobody_else(server, monkeypatch, settings):
    settings.OUTGOING_TIMEOUT_SECONDS = 2
    monkeypatch.setattr(poller, "AT_ONCE", 3)
    for number in range(2):
        server.answers[f"/hang{number}"] = hanging
        add_source(server, f"/hang{number}")
    server.answers["/slots"] = good(showing("a"))
    source = add_source(server)
    with polling():
        until(lambda: Scan.objects.filter(source=source).count() >= 3, what="three polls")
        failed = Scan.objects.filter(source__name="hang0")
        until(failed.exists, what="the end of who hangs")
    assert {scan.outcome for scan in failed} == {"failed"}
    assert not Scan.objects.filter(source=source).exclude(outcome="recorded").exists()


def test_no_more_at_once_than_may_be(server, monkeypatch):
    monkeypatch.setattr(poller, "AT_ONCE", 2)
    for number in range(6):
        server.answers[f"/s{number}"] = good(showing("a"), after=0.15)
        add_source(server, f"/s{number}", poll_seconds=3600)
    with polling():
        recorded = Scan.objects.filter(outcome="recorded")
        until(lambda: recorded.count() == 6, what="a poll of each")
    assert server.most_at_once[ALL] == 2


def test_a_source_that_is_set_up_wrongly_says_so(server):
    source = add_source(server, config={"url": server.url("/slots"), "items": "free"})
    assert "venue: Is missing." in poll_once(source).error
    source = add_source(server, "/other", window_days=14)
    assert "window_days: Must be 0" in poll_once(source).error
    assert not server.requests


@pytest.mark.parametrize("broken", ["provider", "recording"])
def test_an_error_in_here_is_a_failed_poll_too(server, monkeypatch, broken):
    async def fetch(*_args):
        raise KeyError("surprise")

    def tick(*_args, **_options):
        raise KeyError("surprise")

    source = add_source(server)
    server.answers["/slots"] = good(showing("a"))
    with monkeypatch.context() as patched:
        if broken == "provider":
            patched.setattr(Mapped, "fetch", fetch)
        else:
            patched.setattr(actions, "tick", tick)
        assert "KeyError: 'surprise'" in poll_once(source).error
    assert source.consecutive_failures == 1
    assert source.lease_owner == ""
    assert poll_once(source).outcome == "recorded"


def test_a_source_whose_failure_cannot_be_written_down_is_left_alone(server):
    add_source(server, timezone="Mars/Olympus")
    later = Source.objects.filter(next_poll_at__gt=timezone.now() + timedelta(minutes=10))
    with polling():
        until(later.exists, what="a long pause")
    assert not server.requests


def test_a_recording_is_tried_again(server, monkeypatch):
    monkeypatch.setattr(poller, "PAUSES", (0.1, 0.1, 0.1))
    source = add_source(server)
    server.answers["/slots"] = good(showing("a"))
    poll_once(source)
    calls, plain = itertools.count(), actions.publish_drops

    def publish():
        if next(calls) < 2:  # after the buckets are recorded
            raise OperationalError("the server closed the connection")
        return plain()

    monkeypatch.setattr(actions, "publish_drops", publish)
    server.answers["/slots"] = good(showing("a", "b"))
    make_due(source)
    with polling():
        until(lambda: DropEvent.objects.filter(published_at__isnull=False).exists())
        until(lambda: not Source.objects.exclude(lease_owner="").exists(), what="the end")
    assert opened() == ["b"]
    source.refresh_from_db()
    assert source.consecutive_failures == 0


def test_cut_connections_are_made_again(server):
    source = add_source(server)
    server.answers["/slots"] = good(showing("a"))
    scans = Scan.objects.filter(source=source, outcome="recorded")
    with polling():
        until(scans.exists, what="the first poll")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert cursor.fetchone()[0] >= 2
        polled = scans.count()
        until(lambda: scans.count() > polled + 1, what="polls after that")
    assert not Scan.objects.filter(outcome="failed").exists()


# --- Processes --------------------------------------------------------------------------------


def test_it_is_a_daemon_of_the_worker(settings):
    daemon = daemons.all()["discovery poller"]
    assert (daemon.command, daemon.count()) == ("discovery_poller", settings.DISCOVERY_POLLERS)


def test_two_pollers_never_ask_one_source_at_once(fork, server):
    for number in range(6):
        server.answers[f"/s{number}"] = good(showing("a"), after=0.3)
        add_source(server, f"/s{number}")
    fork()
    time.sleep(0.05)  # they are told apart by their start, which counts in steps of 10 ms
    fork()
    owners = set()

    def is_enough():
        owners.update(Source.objects.exclude(lease_owner="").values_list("lease_owner", flat=True))
        return min(len(server.asked(f"/s{number}")) for number in range(6)) >= 5

    until(is_enough, what="five polls of each")
    assert len({owner.split()[-1] for owner in owners}) == 2, "one of them did all"
    for number in range(6):
        path = f"/s{number}"
        assert server.most_at_once[path] == 1
        times = [each.at for each in server.asked(path)]
        assert min(later - sooner for sooner, later in itertools.pairwise(times)) > 0.95
    assert not Scan.objects.exclude(outcome="recorded").exists()


def test_what_a_killed_poller_had_is_taken_over(fork, server):
    source = add_source(server)
    server.answers["/slots"] = hanging
    first = fork()
    until(lambda: server.asked("/slots"), what="the first poller's question")
    second = fork()
    with pytest.raises(AssertionError):
        until(lambda: len(server.asked("/slots")) > 1, seconds=3)  # the lease is kept
    server.answers["/slots"] = good(showing("a"))
    kill(first)
    killed_at = time.monotonic()
    until(lambda: Scan.objects.filter(source=source).exists(), what="the other one's poll")
    assert 0.5 < time.monotonic() - killed_at < 10
    assert set(Scan.objects.values_list("outcome", flat=True)) == {"recorded"}
    os.kill(second, signal.SIGTERM)
    assert exit_code(second) == 0


def test_killed_again_and_again_it_makes_no_drop_twice(fork, server):
    """What is free changes all the time; each change is one drop, whoever saw it."""
    source = add_source(server)
    server.answers["/slots"] = good(showing("s0"))
    shown = [0]
    fork()
    until(Scan.objects.exists, what="the baseline")
    for number in range(1, 6):
        pid = fork()
        server.answers["/slots"] = good(showing(*(f"s{each}" for each in range(number + 1))))
        shown.append(number)
        until(lambda number=number: f"s{number}" in is_open(), what=f"drop {number}")
        kill(pid)
    actions.publish_drops()
    assert opened() == [f"s{number}" for number in shown[1:]]
    assert Scan.objects.filter(source=source, outcome="failed").count() == 0


def test_a_frozen_poller_that_wakes_up_records_nothing(fork, server):
    source = add_source(server)
    server.answers["/slots"] = good(showing("old"), after=1.0)
    frozen = fork()
    until(lambda: server.asked("/slots"), what="the first question")
    os.kill(frozen, signal.SIGSTOP)
    server.answers["/slots"] = good(showing("new"))
    fork()
    until(lambda: Scan.objects.filter(source=source).exists(), what="the other one's poll")
    actions.pause_source(source_id=source.pk, paused=True)
    until(lambda: not Source.objects.exclude(lease_owner="").exists(), what="its end")
    before = list(Scan.objects.values_list("pk", flat=True))
    os.kill(frozen, signal.SIGCONT)
    beats = Heartbeat.objects.filter(name=poller.POLLER)
    time.sleep(1.5)  # there is nothing to wait for: nothing may happen
    assert beats.exists()
    assert list(Scan.objects.values_list("pk", flat=True)) == before
    assert is_open() == ["new"]


def test_told_to_stop_it_gives_back_what_hangs(spawn, server):
    source = add_source(server, poll_seconds=60)
    server.answers["/slots"] = hanging
    process = spawn(
        ["discovery_poller"],
        stdout=None,
        stderr=None,
        OUTGOING_ALLOWED_HOSTS="127.0.0.1",
        OUTGOING_TIMEOUT_SECONDS="20",
    )
    until(lambda: server.asked("/slots"), what="the question")
    assert poller.is_alive()
    process.terminate()
    told_at = time.monotonic()
    assert process.wait(timeout=20) == 0
    assert time.monotonic() - told_at < 5
    source.refresh_from_db()
    assert (source.lease_owner, source.consecutive_failures) == ("", 0)
    assert not Scan.objects.exists()


@pytest.mark.slow
def test_a_database_that_is_restarted(server, postgres):
    """A poller outlives its PostgreSQL, and goes on when it is back."""
    environment = os.environ | {
        "DATABASE_URL": postgres.url,
        "OUTGOING_ALLOWED_HOSTS": "127.0.0.1",
        "PROCESS_ROLE": "worker",
    }
    manage = [sys.executable, str(PROJECT / "manage.py")]
    subprocess.run([*manage, "migrate", "-v", "0"], env=environment, check=True, cwd=PROJECT)
    server.answers["/slots"] = good(showing("a"))
    config = orjson.dumps({"url": server.url("/slots"), **STANDING}).decode()
    with psycopg.connect(postgres.url) as line:
        line.execute(
            "INSERT INTO discovery_sources (name, provider, config, window_days, poll_seconds)"
            " VALUES ('slots', 'json', %s, 0, 1)",
            [config],
        )
    process = subprocess.Popen([*manage, "discovery_poller"], env=environment, cwd=PROJECT)

    def scans():
        with psycopg.connect(postgres.url) as line:
            return line.execute(
                "SELECT count(*), count(*) FILTER (WHERE outcome = 'failed') FROM discovery_scans"
            ).fetchone()

    try:
        until(lambda: scans()[0] > 0, what="the first poll")
        for _ in range(2):
            postgres.stop()
            time.sleep(1.5)  # looks fail meanwhile
            postgres.start()
            before = scans()[0]
            until(lambda before=before: scans()[0] > before + 1, what="polls after a restart")
        assert scans()[1] == 0
        assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
