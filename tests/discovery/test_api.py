"""Polls in and drops out, over HTTP."""

from datetime import timedelta
from urllib.parse import quote

import pytest
from django.utils import timezone

from discovery import actions
from discovery.api import serializers
from discovery.models import Bucket, DropEvent, Source

pytestmark = pytest.mark.django_db(transaction=True)

BEGUN = timezone.now()


@pytest.fixture(autouse=True)
def _now(monkeypatch):
    """Polls of a test begin ten minutes before it, however long the tests have been running."""
    begun = timezone.now().replace(microsecond=0) - timedelta(minutes=10)
    monkeypatch.setitem(globals(), "BEGUN", begun)


def body(minute, *slots, **fields):
    return {
        "source": "tables",
        "polled_at": (BEGUN + timedelta(minutes=minute)).isoformat(),
        "slots": [
            {
                "slot_id": slot,
                "venue": "alba",
                "starts_at": (BEGUN + timedelta(days=1)).isoformat(),
                "party_min": 2,
                "party_max": 4,
                "payload": {"area": "terrace"},
            }
            for slot in slots
        ],
        **fields,
    }


@pytest.fixture
def polled(feeder):
    """A source with a baseline and one drop."""
    venues = [{"key": "alba", "name": "Trattoria Alba", "city": "Bonn"}]
    feeder.send("discovery/polls", body(0, "a", venues=venues))
    response = feeder.send("discovery/polls", body(1, "a", "b"))
    assert response.status_code == 200, response.content
    return response


def fields(serializer) -> set[str]:
    return set(serializer().fields)


def test_a_poll_says_what_it_changed(polled):
    report = polled.json()
    assert fields(serializers.PollReportSerializer) == set(report)
    assert (report["outcome"], report["opened"], report["closed"]) == ("recorded", ["b"], [])
    assert polled["Cache-Control"] == "no-store"


def test_a_poll_sent_again_changes_nothing(feeder, polled):
    again = feeder.send("discovery/polls", body(1, "a", "b")).json()
    assert (again["outcome"], again["opened"]) == ("replayed", [])
    assert DropEvent.objects.count() == 1


def test_a_poll_under_a_key_gets_the_same_answer(feeder, polled):
    key = {"Idempotency-Key": "poll-2"}
    first = feeder.send("discovery/polls", body(2, "a", "b", "c"), **key)
    again = feeder.send("discovery/polls", body(2, "a", "b", "c"), **key)
    assert again.json() == first.json()
    assert again["Idempotent-Replayed"] == "true"
    assert feeder.send("discovery/polls", body(2, "a"), **key).status_code == 422


def test_a_failed_poll_is_counted(feeder, polled):
    failed = {
        "source": "tables",
        "polled_at": (BEGUN + timedelta(minutes=2)).isoformat(),
        "error": "HTTP 502",
    }
    response = feeder.send("discovery/polls", failed)
    assert (response.status_code, response.json()["outcome"]) == (200, "failed")
    assert Source.objects.get().consecutive_failures == 1


def test_a_paused_source_is_a_conflict(feeder, polled):
    actions.pause_source(source_id=Source.objects.get().pk, paused=True)
    assert feeder.send("discovery/polls", body(2, "a")).status_code == 409


def test_just_opened(client, polled):
    answer = client.get("/api/v1/chat/watches/just-opened")
    assert answer.status_code == 200
    shown = answer.json()
    assert set(shown) == fields(serializers.FeedSerializer)
    [drop] = shown["results"]
    assert set(drop) == fields(serializers.FeedDropSerializer) - {"unsure"}
    assert (drop["slot_id"], drop["venue"]["name"], drop["state"]) == (
        "b",
        "Trattoria Alba",
        "open",
    )
    assert shown["sources"][0]["state"] == "fresh"
    assert shown["as_of"]
    assert client.get("/api/v1/chat/watches/just-opened")["X-Cache"] == "hit"


def test_still_open_and_the_board(client, feeder, polled, settings):
    settings.JUST_OPENED_MINUTES = 0
    feeder.send("discovery/polls", body(2, "a", "b", "c"))
    shown = client.get("/api/v1/chat/watches/still-open").json()["results"]
    assert [drop["slot_id"] for drop in shown] == ["c", "b"]
    assert set(shown[0]) == fields(serializers.FeedDropSerializer)
    [entry] = client.get("/api/v1/chat/watches/board").json()["results"]
    assert set(entry) == fields(serializers.BoardEntrySerializer)
    assert (entry["slots"], entry["venue"]["key"]) == (2, "alba")


def test_a_change_is_seen_at_once(client, feeder, polled):
    path = "/api/v1/chat/watches/just-opened"
    before = client.get(path)
    assert client.get(path, headers={"If-None-Match": before["ETag"]}).status_code == 304
    feeder.send("discovery/polls", body(2, "a", "b", "c"))
    assert [drop["slot_id"] for drop in client.get(path).json()["results"]] == ["c", "b"]


def test_what_a_frozen_source_shows_is_unknown(client, polled, settings):
    settings.DISCOVERY_OUTAGE_FAILURES = 1
    source = Source.objects.get()
    actions.record_failure(source=source, at=timezone.now(), error="down")
    from config import readmodels

    readmodels.refresh(readmodels.all()["feed_cache"])
    shown = client.get("/api/v1/chat/watches/just-opened").json()
    assert [drop["state"] for drop in shown["results"]] == ["unknown"]
    assert shown["sources"][0]["state"] == "frozen"


class TestNewDrops:
    def test_begins_where_a_poller_begins(self, client, feeder, polled):
        first = client.get("/api/v1/chat/watches/new-drops").json()
        assert set(first) == fields(serializers.NewDropsSerializer)
        assert first["results"] == []
        feeder.send("discovery/polls", body(2, "a", "b", "c", "d"))
        second = self.since(client, first["at"])
        assert sorted(drop["slot_id"] for drop in second["results"]) == ["c", "d"]
        assert set(second["results"][0]) == fields(serializers.NewDropSerializer)
        third = self.since(client, second["at"])
        assert (third["results"], third["at"]) == ([], second["at"])

    def test_pages_where_there_is_more(self, client, feeder, polled, settings):
        settings.NEW_DROPS_LIMIT = 2
        begin = client.get("/api/v1/chat/watches/new-drops").json()["at"]
        feeder.send("discovery/polls", body(2, "a", "b", "c", "d", "e"))
        page = self.since(client, begin)
        assert (len(page["results"]), page["more"]) == (2, True)
        page = self.since(client, page["at"])
        assert (len(page["results"]), page["more"]) == (1, False)

    @pytest.mark.parametrize("since", ["yesterday", "1999-01-01T00:00:00Z", "9999-01-01"])
    def test_a_since_that_is_none(self, client, since):
        answer = client.get(f"/api/v1/chat/watches/new-drops?since={quote(since)}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["name"] == "since"

    def test_a_plus_that_was_not_encoded(self, client, polled):
        url = "/api/v1/chat/watches/new-drops?since=2026-02-18T17:03:01.187204+00:00"
        assert [one["slot_id"] for one in client.get(url).json()["results"]] == ["b"]

    def since(self, client, at):
        return client.get(f"/api/v1/chat/watches/new-drops?since={quote(at)}").json()


def test_the_stream_sends_what_is_new_and_goes_on_from_an_id(client, feeder, polled, settings):
    from discovery.api import views

    begin = (BEGUN - timedelta(days=1)).isoformat()
    answer = client.get("/api/v1/chat/watches/stream", headers={"Last-Event-ID": begin})
    assert answer["Content-Type"] == "text/event-stream"
    events = iter(answer.streaming_content)
    assert next(events) == b"retry: 1000\n\n"
    event = next(events).decode()
    assert event.startswith("id: 20")
    assert '"slot_id":"b"' in event
    # Each stream holds a thread, so there are few.
    refused = client.get("/api/v1/chat/watches/stream")
    assert (refused.status_code, refused["Retry-After"]) == (503, "30")
    answer.close()
    assert views._streams.acquire(blocking=False)
    views._streams.release()
    wrong = client.get("/api/v1/chat/watches/stream", headers={"Last-Event-ID": "x"})
    assert wrong.status_code == 400


def test_the_window_and_the_last_scans(client, polled, django_assert_max_num_queries):
    answer = client.get("/api/v1/discovery/buckets?source=tables").json()
    today = timezone.now().date()
    assert len(answer["results"]) == Bucket.objects.filter(day__gte=today).count() >= 26
    assert set(answer["results"][0]) == fields(serializers.BucketSerializer)
    assert sum(bucket["open_slots"] for bucket in answer["results"]) == 2
    [source] = client.get("/api/v1/discovery/sources").json()["results"]
    assert set(source) == fields(serializers.ScanSerializer)
    assert (source["opened"], source["open_slots"]) == (1, 2)
    assert client.get("/api/v1/discovery/buckets?source=NO").status_code == 400


def test_each_read_of_health_is_one_query(polled, django_assert_num_queries):
    from discovery import queries

    for read in (queries.bucket_health, queries.last_scans, queries.freshness):
        with django_assert_num_queries(1):
            read()


def test_staff_prune_at_once(only_new_partitions, feeder, person, polled):
    assert person("ann", "read").send("watches/prune-now").status_code == 403
    assert feeder.send("watches/prune-now").status_code == 403
    feeder.user.is_staff = True
    feeder.user.save()
    done = feeder.send("watches/prune-now")
    assert done.status_code == 200
    assert {each["name"] for each in done.json()["results"]} >= {"drop_events", "venues"}
    assert set(done.json()["results"][0]) == fields(serializers.PrunedSerializer)


@pytest.mark.parametrize("offset", ["+16:00", "+23:00", "-23:59"])
def test_offsets_beyond_those_of_postgresql(feeder, offset):
    from datetime import datetime, timedelta

    from django.utils import timezone

    zone = datetime.fromisoformat(f"2026-01-01T00:00:00{offset}").tzinfo
    now = timezone.now()
    for slots in ([], [{"venue": "a", "starts_at": (now + timedelta(days=1)).astimezone(zone)}]):
        body = {"source": "far", "polled_at": timezone.now().astimezone(zone).isoformat()}
        body["slots"] = [slot | {"starts_at": slot["starts_at"].isoformat()} for slot in slots]
        assert feeder.send("discovery/polls", body).status_code == 200


def test_head_takes_no_place_in_the_streams(client):
    for _ in range(6):
        assert client.head("/api/v1/chat/watches/stream").status_code == 200


def test_text_about_a_nul_is_none(feeder):
    from django.utils import timezone

    body = {"source": "texts", "polled_at": timezone.now().isoformat()}
    fine = body | {"slots": [{"venue": "a", "slot_id": "s", "payload": {"a": "\\u0000"}}]}
    accepted = feeder.send("discovery/polls", fine)
    assert accepted.status_code == 200, accepted.content
    nul = body | {"slots": [{"venue": "a", "slot_id": "s", "payload": {"a": "\0"}}]}
    assert feeder.send("discovery/polls", nul).status_code == 400
