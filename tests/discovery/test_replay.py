"""Replays of recordings: what they read, how they go on after a kill, and the command."""

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from bench.drop_oracle import Oracle, Rules
from config.files import SourceError
from discovery import queries
from discovery.models import Availability, Bucket, DropEvent, Scan, Source, Venue
from discovery.replay import replay

pytestmark = pytest.mark.django_db(transaction=True)

PROJECT = Path(__file__).resolve().parents[2]
UTC_ZONE = ZoneInfo("UTC")
DAY = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def recording(tmp_path):
    """A recording of 60 polls of three calendars, seeded; and its polls."""
    chance, lines, polls = random.Random(4), ["source_id,location_id,polled_at,free_slots"], []
    starts = [
        f"{DAY + timedelta(days=d, hours=h):%Y-%m-%d %H:%M}" for d in (1, 2) for h in range(24)
    ]
    free = {venue: set(chance.sample(starts, 20)) for venue in ("10", "11", "12")}
    for number in range(60):
        moment = DAY + timedelta(minutes=15 * number)
        answered = {}
        for venue, slots in free.items():
            slots ^= set(chance.sample(starts, 2))
            if chance.random() < 0.2:
                continue  # it does not answer
            answered[venue] = {f"{venue}|{start}": utc(start) for start in slots}
            lines.append(f"impf,{venue},{moment:%Y-%m-%d %H:%M:%S},{'|'.join(sorted(slots))}")
        if answered:
            polls.append((moment, answered))
    path = tmp_path / "calendars.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path, polls


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def expected(polls, rules):
    """Each drop, as (slot, minute), by the oracle; and what is open at last."""
    oracle, drops = Oracle(rules), set()
    for moment, answered in polls:
        opened, _ = oracle.poll(moment, answered)
        drops |= {(slot, moment) for slot in opened}
    return drops, {slot for each in oracle.calendars.values() for slot in each.open}


def stored():
    drops = set(DropEvent.objects.values_list("slot_id", "opened_at"))
    return drops, set(Availability.objects.values_list("slot_id", flat=True))


@pytest.fixture
def plain(settings):
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    settings.DISCOVERY_COOLDOWN_SECONDS = 0
    settings.DISCOVERY_EMPTY_CONFIRMATIONS = 0
    return Rules()


def test_a_replay_gives_what_the_oracle_says(recording, plain):
    path, polls = recording
    totals = replay(path=str(path), zone=UTC_ZONE)
    assert totals.polls == len(polls)
    assert stored() == expected(polls, plain)
    assert queries.unpublished() == 0


def test_replaying_again_changes_nothing(recording, plain):
    path, _ = recording
    replay(path=str(path), zone=UTC_ZONE)
    before = stored()
    totals = replay(path=str(path), zone=UTC_ZONE)
    assert (totals.opened, totals.closed) == (0, 0)
    assert stored() == before


@pytest.mark.slow
def test_killed_at_random_points_and_begun_again_it_is_complete(recording, plain, database_url):
    """kill -9 of the command, again and again, until one run gets through."""
    path, polls = recording
    chance, kills = random.Random(9), 0
    command = [sys.executable, str(PROJECT / "manage.py"), "replay_polls", str(path), "-v", "0"]
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "DISCOVERY_CLOSE_AFTER_MISSES": "1",
        "DISCOVERY_COOLDOWN_SECONDS": "0",
        "DISCOVERY_EMPTY_CONFIRMATIONS": "0",
    }
    for _ in range(12):
        process = subprocess.Popen(command, cwd=PROJECT, env=environment)
        before = Scan.objects.filter(outcome="recorded").count()
        target = before + chance.randint(3, 12)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if Scan.objects.filter(outcome="recorded").count() >= target and kills < 6:
                time.sleep(chance.random() * 0.05)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        if process.wait(60) == 0:
            break
    assert kills >= 3
    assert stored() == expected(polls, plain)
    for bucket in Bucket.objects.all():
        assert bucket.open_slots == Availability.objects.filter(bucket=bucket).count()


def test_counts_are_one_slot_a_place(tmp_path, plain):
    path, venues = tmp_path / "counts.csv", tmp_path / "places.csv"
    path.write_text(
        "polled_at,place_id,free\n"
        "2026-03-02T00:00:00+00:00,a,5\n2026-03-02T00:00:00+00:00,b,0\n"
        "2026-03-02T00:05:00+00:00,b,3\n2026-03-02T00:10:00+00:00,a,0\n"
        "2026-03-02T00:15:00+00:00,a,-2\n2026-03-02T00:20:00+00:00,a,many\n"
    )
    venues.write_text(
        "place_id,place_name,city_name,num_all,latitude,longitude\na,Mitte,Bonn,80,50.7,7.1\n"
    )
    totals = replay(path=str(path), zone=UTC_ZONE, source="parking", venues=str(venues))
    assert (totals.opened, totals.closed, totals.rejected) == (1, 1, 1)
    assert stored()[1] == {"b"}
    assert Source.objects.get().window_days == 0
    venue = Venue.objects.get(key="a")
    assert (venue.name, venue.city, venue.capacity, venue.latitude) == ("Mitte", "Bonn", 80, 50.7)


def test_until_now_ends_today(recording, plain):
    path, polls = recording
    replay(path=str(path), zone=UTC_ZONE, until_now=True)
    last = Scan.objects.latest("polled_at").polled_at
    assert timedelta(0) <= timezone.now() - last < timedelta(days=1)
    assert last.time() == polls[-1][0].time()


def test_an_accelerated_replay_takes_its_time(recording, plain):
    path, _ = recording
    started = time.monotonic()
    replay(path=str(path), zone=UTC_ZONE, speed=3_600, limit=9)  # 2 hours
    assert time.monotonic() - started >= 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,price\na,1\n", "no recording"),
        ("", "empty"),
        ("place_id,polled_at,free\na,never,1\n", "no poll"),
    ],
)
def test_what_is_no_recording_says_why(tmp_path, text, reason):
    path = tmp_path / "file.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=reason):
        replay(path=str(path), zone=UTC_ZONE, source="x")


def test_the_command_reports(recording, plain, capsys):
    path, _ = recording
    call_command("replay_polls", str(path), "--limit", "5")
    said = capsys.readouterr().out
    assert "5 polls" in said
    with pytest.raises(CommandError, match="time zone"):
        call_command("replay_polls", str(path), "--timezone", "Mars/Olympus")
    with pytest.raises(CommandError):
        call_command("replay_polls", str(path.with_name("none.csv")))
