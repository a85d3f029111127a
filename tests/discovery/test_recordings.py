"""Real recordings, through the API, against the oracle: every event, and no other."""

from datetime import datetime, timedelta
from itertools import islice

import pytest

from bench.drop_oracle import Oracle, Rules
from bench.recordings import BERLIN, DATA, calendars, counts
from discovery import actions
from discovery.models import Availability, DropEvent, Source

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the recordings are not in {DATA}"),
]


@pytest.fixture
def rules(settings):
    """Sets the settings as the oracle's rules have them."""

    def use(given: Rules) -> Rules:
        settings.DISCOVERY_CLOSE_AFTER_MISSES = given.misses_to_close
        settings.DISCOVERY_COOLDOWN_SECONDS = int(given.cooldown.total_seconds())
        settings.DISCOVERY_EMPTY_CONFIRMATIONS = given.confirmations
        settings.DISCOVERY_WINDOW_DAYS = given.window_days or 14
        settings.DISCOVERY_TIME_SLOTS = list(given.parts)
        return given

    return use


PLAIN = {"misses_to_close": 1, "cooldown": timedelta(0), "confirmations": 0}
CAUTIOUS = {"misses_to_close": 2, "cooldown": timedelta(minutes=40), "confirmations": 1}
RECORDINGS = {
    "vaccine_slots": (lambda: calendars("vaccine_slots"), 40, {}),
    "office_slots": (
        lambda: calendars("office_slots", {"kreisbergstrasse", "leun", "bonnbau", "ilmkreis"}),
        80,
        {},
    ),
    "parking": (lambda: counts("parking"), 120, {"window_days": 0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plain", "cautious"])
@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_gives_what_the_oracle_says(name, how, feeder, rules):
    polls, length, special = RECORDINGS[name]
    rule = rules(Rules(**(PLAIN if how == "plain" else CAUTIOUS) | special, zone=BERLIN))
    oracles: dict[str, Oracle] = {}
    events = spared = 0
    for source, polled_at, answered in islice(polls(), length):
        if source not in oracles:
            oracles[source] = Oracle(rule)
            window = {"window_days": rule.window_days} if not rule.window_days else {}
            actions.ensure_source(name=source, timezone="Europe/Berlin", **window)
        response = feeder.send("discovery/polls", as_poll(source, polled_at, answered))
        assert response.status_code == 200, response.content
        got = response.json()
        opened, closed = oracles[source].poll(polled_at, answered)
        assert (set(got["opened"]), set(got["closed"])) == (opened, closed), polled_at
        events += len(opened) + len(closed)
        spared += got["spared"]
    for source, oracle in oracles.items():
        shown = Availability.objects.filter(bucket__source__name=source, bucket__checked_at=None)
        assert not shown.exists()
        known = Source.objects.get(name=source)
        held = set(
            Availability.objects.filter(bucket__source=known).values_list("slot_id", flat=True)
        )
        assert held == {slot for each in oracle.calendars.values() for slot in each.open}
    assert events
    assert spared == sum(oracle.spared for oracle in oracles.values())
    assert not DropEvent.objects.filter(published_at=None).exists()


def as_poll(source: str, polled_at: datetime, answered: dict) -> dict:
    return {
        "source": source,
        "polled_at": polled_at.isoformat(),
        "calendars": list(answered),
        "slots": [
            {
                "slot_id": slot,
                "venue": venue,
                "starts_at": start.isoformat() if start else None,
            }
            for venue, slots in answered.items()
            for slot, start in slots.items()
        ],
    }


def test_a_calendar_that_does_not_answer_closes_nothing(feeder, rules):
    """In vaccine_slots only 42 to 65 of 77 calendars answer a poll."""
    rules(Rules(**PLAIN, zone=BERLIN))
    seen: dict[str, set[str]] = {}
    absent = 0
    for source, polled_at, answered in islice(calendars("vaccine_slots"), 12):
        actions.ensure_source(name=source, timezone="Europe/Berlin")
        response = feeder.send("discovery/polls", as_poll(source, polled_at, answered)).json()
        absent += len(seen.keys() - answered.keys())
        closed = {slot.partition("|")[0] for slot in response["closed"]}
        assert closed <= answered.keys()
        seen |= {venue: set(slots) for venue, slots in answered.items()}
    assert absent > 20
