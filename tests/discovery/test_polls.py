"""What a poll may say: hostile ones get an answer that names the field, and change nothing."""

import json
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import prepared
from discovery import polls
from discovery.models import Bucket, DropEvent, Source
from discovery.polls import BucketKey, InvalidPoll, Slot, clean_poll, place, window

GOOD = {"source": "tables", "polled_at": "2026-02-18T17:00:00Z", "slots": []}
SLOT = {"venue": "v", "slot_id": "a"}


def wrong(**changes) -> set[str]:
    with pytest.raises(InvalidPoll) as refused:
        clean_poll(GOOD | changes)
    return set(refused.value.errors)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"source": "No Capitals"}, {"source"}),
        ({"source": 7}, {"source"}),
        ({"polled_at": "1970-01-01T00:00:00Z"}, {"polled_at"}),
        ({"polled_at": "2999-01-01T00:00:00Z"}, {"polled_at"}),
        ({"polled_at": "2026-02-18T17:00:00"}, {"polled_at"}),
        ({"polled_at": "yesterday"}, {"polled_at"}),
        ({"polled_at": 17}, {"polled_at"}),
        ({"slots": "many"}, {"slots"}),
        ({"slots": [SLOT, SLOT]}, {"slots.1"}),
        ({"slots": [{"slot_id": "a"}]}, {"slots.0"}),
        ({"slots": [{"venue": "v"}]}, {"slots.0"}),
        ({"slots": [SLOT | {"slot_id": "x" * 1_000_000}]}, {"slots.0"}),
        ({"slots": [SLOT | {"slot_id": "a\x00b"}]}, {"slots.0"}),
        ({"slots": [SLOT | {"slot_id": 3}]}, {"slots.0"}),
        ({"slots": [SLOT | {"starts_at": "never"}]}, {"slots.0"}),
        ({"slots": [SLOT | {"starts_at": "1970-01-01T00:00"}]}, {"slots.0"}),
        ({"slots": [SLOT | {"party_min": 4, "party_max": 2}]}, {"slots.0"}),
        ({"slots": [SLOT | {"party_min": True}]}, {"slots.0"}),
        ({"slots": [SLOT | {"payload": {"x": "y" * 3_000}}]}, {"slots.0"}),
        ({"slots": [SLOT | {"payload": []}]}, {"slots.0"}),
        ({"slots": [SLOT | {"colour": "red"}]}, {"slots.0"}),
        ({"slots": ["a"]}, {"slots.0"}),
        ({"calendars": []}, {"calendars"}),
        ({"calendars": ["w"], "slots": [SLOT]}, {"slots.0"}),
        ({"venues": [{"key": "v", "latitude": 91, "longitude": 0}]}, {"venues.0"}),
        ({"venues": [{"key": "v", "latitude": 1.0}]}, {"venues.0"}),
        ({"venues": [{"key": "v", "latitude": float("nan"), "longitude": 0}]}, {"venues.0"}),
        ({"nonsense": 1}, {"nonsense"}),
    ],
)
def test_each_wrong_field_is_named(changes, names):
    assert wrong(**changes) == names


def test_too_many_slots_are_refused(settings):
    settings.DISCOVERY_SLOTS_PER_POLL = 3
    assert wrong(slots=[SLOT | {"slot_id": str(n)} for n in range(4)]) == {"slots"}


def test_no_more_errors_are_listed_than_people_read():
    assert len(wrong(slots=[{}] * 5_000)) == polls.ERRORS


def test_without_an_id_venue_and_time_are_it():
    [slot] = clean_poll(GOOD | {"slots": [{"venue": "v", "starts_at": "2026-02-20T19:30"}]}).slots
    assert slot.slot_id == "v|2026-02-20T19:30:00"


def test_a_slot_is_of_the_part_of_its_local_day():
    berlin = ZoneInfo("Europe/Berlin")
    late = Slot("a", "v", datetime(2026, 7, 1, 22, 30, tzinfo=UTC))
    key, local, _ = place(late, berlin, standing=False)
    assert (key, local) == (BucketKey(date(2026, 7, 2), "00:00"), "00:30")
    naive = Slot("a", "v", datetime.fromisoformat("2026-07-01T15:00"))
    key, local, moment = place(naive, berlin, standing=False)
    assert (key.time_slot, local, moment.astimezone(UTC).hour) == ("15:00", "15:00", 13)


def test_a_slot_of_no_day_is_in_no_window():
    key, _, _ = place(Slot("a", "v"), ZoneInfo("UTC"), standing=False)
    assert key not in window(date(2026, 1, 1), 14)


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40).filter(
    lambda text: text == text.strip()
)


@pytest.mark.django_db
@given(st.lists(st.one_of(TEXTS, st.none()), max_size=20))
def test_any_text_goes_through_an_array(texts):
    [(back,)] = prepared.fetch("SELECT %(texts)s::text[]", {"texts": prepared.array(texts)})
    assert back == texts


@pytest.mark.django_db(transaction=True)
class TestOverHttp:
    @pytest.mark.parametrize(
        "body",
        [
            GOOD | {"slots": [SLOT | {"slot_id": "x" * 1_000_000}]},
            GOOD | {"slots": [SLOT, SLOT]},
            GOOD | {"polled_at": "2999-01-01T00:00:00Z"},
            GOOD | {"polled_at": "1970-01-01T00:00:00Z"},
            [GOOD],
            "poll",
            {"source": "tables"},
            GOOD | {"error": "and slots"},
            {"source": "tables", "polled_at": GOOD["polled_at"], "error": ""},
        ],
    )
    def test_hostile_polls_change_nothing(self, feeder, body):
        response = feeder.send("discovery/polls", body)
        assert response.status_code == 400
        assert response.json()["errors"]
        assert not Source.objects.exists()
        assert not Bucket.objects.exists()
        assert not DropEvent.objects.exists()

    def test_a_hundred_thousand_and_one_slots(self, feeder):
        slots = [{"venue": "v", "slot_id": str(number)} for number in range(100_001)]
        response = feeder.send("discovery/polls", GOOD | {"slots": slots})
        assert response.status_code == 400
        assert response.json()["errors"][0]["name"] == "slots"

    def test_what_is_no_json(self, feeder):
        for body in (b"{", b'{"source": NaN}', b"\xff\xfe"):
            assert feeder.send("discovery/polls", body).status_code == 400

    def test_who_may(self, client, person):
        body = json.dumps(GOOD)
        url = "/api/v1/discovery/polls"
        assert client.post(url, body, content_type="application/json").status_code == 401
        assert person("reader", "read").send("discovery/polls", GOOD).status_code == 403
