"""Providers against a real server that misbehaves: an answer that is not whole is a failed poll."""

import asyncio
import email.utils
import time
from datetime import UTC, datetime, timedelta

import pytest

from config import outgoing
from discovery import providers
from discovery.models import Source
from discovery.polls import Slot, VenueDetails, place, zone_of
from discovery.providers import base
from discovery.providers.base import Fetched, FetchFailed
from discovery.providers.demo import RESTAURANTS, shown_at
from tests.discovery.httpserver import (
    babbling,
    bomb,
    breaking_off,
    conditional,
    dripping,
    good,
    hanging,
    huge,
    raw,
    redirect,
    serving,
    status,
)

ITEMS = [
    {"id": "a1", "room": {"id": 7, "name": " Blue\nroom "}, "from": "2030-05-01T10:00:00Z"},
    {"id": "a2", "room": {"id": 8, "name": "Red room"}, "from": "2030-05-01T11:00:00Z"},
]
MAPPING = {"items": "data.slots", "slot_id": "id", "venue": "room.id", "starts_at": "from"}


@pytest.fixture(autouse=True)
def _allowed(settings):
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.OUTGOING_TIMEOUT_SECONDS = 1.0


@pytest.fixture
def server():
    with serving() as known:
        yield known


def fetch(source) -> Fetched:
    async def ask():
        async with base.session() as session:
            return await providers.PROVIDERS[source.provider]().fetch(session, source)

    return asyncio.run(ask())


def mapped(server, **config) -> Source:
    config = {"url": server.url("/slots"), **MAPPING} | config
    config = {key: value for key, value in config.items() if value is not None}
    return Source(name="rooms", provider="json", config=config)


def failure(source) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        fetch(source)
    return caught.value


# --- What every provider shares: HTTP ---------------------------------------------------------


def test_what_it_asks_for(server):
    server.answers["/slots"] = good({"data": {"slots": ITEMS}})
    fetch(mapped(server))
    [asked] = server.asked("/slots")
    assert asked.headers["User-Agent"].startswith("Spyglass/")
    assert asked.headers["Accept"] == "application/json"
    assert "If-None-Match" not in asked.headers
    assert "Cookie" not in asked.headers


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(500), "answered 500 Internal Server Error"),
        (status(404), "answered 404 Not Found"),
        (status(204), "answered 204 No Content"),
        (status(304), "says that nothing changed, but was not asked"),
        (raw(b'{"data": {"slots": ['), "is not JSON: "),
        (raw(b'{"data": {"slots": [{"id": NaN}]}}'), "is not JSON: "),
        (raw(b'\xff{"data": {}}'), "is not JSON: "),
        (raw(b"[" * 100_000 + b"]" * 100_000), "is not JSON: "),
        (raw(b""), "answered with nothing"),
        (raw(b"<html>Be right back", kind="text/html; charset=utf-8"), "answered text/html, not"),
        (breaking_off, "broke off"),
        (babbling, "does not speak HTTP well"),
        (redirect("/slots"), "redirects more than 5 times"),
        (redirect(""), "redirects to nowhere"),
    ],
)
def test_no_whole_answer_is_a_failure_with_its_reason(server, answer, reason):
    server.answers["/slots"] = answer
    found = failure(mapped(server, url=server.url("/slots?key=secret")))
    assert reason in found.reason
    assert server.url("/slots") in found.reason
    assert "secret" not in found.reason
    assert found.retry_after is None


@pytest.mark.parametrize("answer", [hanging, dripping])
def test_who_takes_too_long_is_not_waited_for(server, answer):
    server.answers["/slots"] = answer
    started = time.monotonic()
    assert "no whole answer within 1 s" in failure(mapped(server)).reason
    assert 0.9 < time.monotonic() - started < 3


def test_nobody_listens(server):
    with serving() as gone:
        url = gone.url("/slots")
    assert "Cannot connect to" in failure(mapped(server, url=url)).reason


@pytest.mark.parametrize("answer", [huge(4 * 1024**2), bomb(4 * 1024**2)])
def test_a_body_is_read_up_to_a_limit(server, monkeypatch, answer):
    monkeypatch.setattr(base, "BODY_BYTES", 1024**2)
    server.answers["/slots"] = answer
    assert "larger than 1 MiB" in failure(mapped(server)).reason


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("120", 120, 120), ("999999999999", 86_400, 86_400), ("soon", None, None), ("-5", None, None)],
)
def test_retry_after_in_seconds(server, header, least, most):
    server.answers["/slots"] = status(429, Retry_After=header)
    found = failure(mapped(server))
    assert "429 Too Many Requests" in found.reason
    if least is None:
        assert found.retry_after is None
    else:
        assert least <= found.retry_after <= most


def test_retry_after_as_a_date(server):
    moment = datetime.now(UTC) + timedelta(seconds=90)
    server.answers["/slots"] = status(503, Retry_After=email.utils.format_datetime(moment, True))
    assert 80 < failure(mapped(server)).retry_after <= 90
    past = datetime.now(UTC) - timedelta(days=1)
    server.answers["/slots"] = status(503, Retry_After=email.utils.format_datetime(past, True))
    assert failure(mapped(server)).retry_after == 0


@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/slots",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]:8000/slots",
        "file:///etc/passwd",
        "http://me:secret@127.0.0.1/slots",
    ],
)
def test_a_redirect_to_where_nobody_may_go(server, target):
    server.answers["/slots"] = redirect(target)
    assert "is not asked: " in failure(mapped(server)).reason


def test_a_redirect_is_followed(server):
    server.answers["/slots"] = redirect("/moved")
    server.answers["/moved"] = good({"data": {"slots": ITEMS}})
    assert len(fetch(mapped(server)).poll.slots) == 2


def test_a_private_address_is_not_asked(server, settings):
    settings.OUTGOING_ALLOWED_HOSTS = []
    server.answers["/slots"] = good({"data": {"slots": ITEMS}})
    assert "is not asked: " in failure(mapped(server)).reason
    assert not server.requests


def test_a_name_that_resolves_otherwise_a_moment_later(server, monkeypatch, settings):
    """The check is passed, the connection is not made: DNS rebinding does not help."""
    settings.OUTGOING_ALLOWED_HOSTS = []
    monkeypatch.setattr(outgoing, "check_url", lambda url: None)
    server.answers["/slots"] = good({"data": {"slots": ITEMS}})
    url = server.url("/slots").replace("127.0.0.1", "localhost")
    assert "is not asked: " in failure(mapped(server, url=url)).reason
    assert not server.requests


@pytest.mark.parametrize(
    ("validators", "header", "value"),
    [
        ({"etag": '"v1"'}, "If-None-Match", '"v1"'),
        (
            {"modified": "Tue, 05 Nov 2030 08:00:00 GMT"},
            "If-Modified-Since",
            "Tue, 05 Nov 2030 08:00:00 GMT",
        ),
    ],
)
def test_what_did_not_change_is_not_sent_again(server, validators, header, value):
    server.answers["/slots"] = conditional({"data": {"slots": ITEMS}}, **validators)
    source = mapped(server)
    first = fetch(source)
    assert len(first.poll.slots) == 2
    source.validators = first.memory
    second = fetch(source)
    assert second.poll is None
    assert second.memory == first.memory
    assert server.asked("/slots")[1].headers[header] == value


def test_a_reason_can_be_stored():
    assert FetchFailed("odd \udc80 and \x00").reason == "odd \\udc80 and \\x00"


# --- JSON by a mapping ------------------------------------------------------------------------


def test_items_become_slots(server):
    items = [
        ITEMS[0] | {"seats": {"min": 1, "max": "4"}, "price": 12.5, "tags": ["quiet", "window"]},
        ITEMS[1] | {"lat": "45.76", "lon": 4.83},
    ]
    server.answers["/slots"] = good({"data": {"slots": items}})
    source = mapped(
        server,
        party_min="seats.min",
        party_max="seats.max",
        venue_name="room.name",
        latitude="lat",
        longitude="lon",
        payload={"price": "price", "first": "tags.0", "third": "tags.2"},
    )
    poll = fetch(source).poll
    assert poll.calendars is None
    assert poll.slots == [
        Slot(
            "a1",
            "7",
            datetime(2030, 5, 1, 10, tzinfo=UTC),
            1,
            4,
            {"price": 12.5, "first": "quiet"},
        ),
        Slot("a2", "8", datetime(2030, 5, 1, 11, tzinfo=UTC)),
    ]
    assert poll.venues == [
        VenueDetails("7", "Blue room"),
        VenueDetails("8", "Red room", latitude=45.76, longitude=4.83),
    ]


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2030-05-01T10:00", datetime(2030, 5, 1, 8, tzinfo=UTC)),  # of the source's time zone
        ("2030-05-01T10:00:00+09:00", datetime(2030, 5, 1, 1, tzinfo=UTC)),
        (1_903_860_000, datetime(2030, 5, 1, 10, tzinfo=UTC)),
        (1_903_860_000_000, datetime(2030, 5, 1, 10, tzinfo=UTC)),
    ],
)
def test_times(server, given, moment):
    server.answers["/slots"] = good([{"venue": "x", "at": given}])
    source = mapped(server, items=".", slot_id=None, venue="venue", starts_at="at")
    [slot] = fetch(source).poll.slots
    assert place(slot, zone_of("Europe/Berlin"), standing=False)[2] == moment


def test_the_item_itself_may_be_the_venue(server):
    server.answers["/slots"] = good({"free": ["bay-1", "bay-2"]})
    source = mapped(server, items="free", slot_id=".", venue=".", starts_at=None)
    assert [slot.slot_id for slot in fetch(source).poll.slots] == ["bay-1", "bay-2"]


def test_what_counts_as_available(server):
    states = ["free", "taken", True, 1, None]
    server.answers["/slots"] = good([{"id": f"s{n}", "is": is_} for n, is_ in enumerate(states)])
    options = {"items": ".", "slot_id": "id", "venue": "id", "starts_at": None, "available": "is"}

    def found(**more):
        return [slot.slot_id for slot in fetch(mapped(server, **options, **more)).poll.slots]

    assert found() == ["s2"]  # 1 is not true
    assert found(available_values=["free", 1]) == ["s0", "s3"]


def test_an_empty_list_is_a_poll(server):
    server.answers["/slots"] = good({"data": {"slots": []}})
    poll = fetch(mapped(server)).poll
    assert poll.slots == []
    assert poll.calendars is None


@pytest.mark.parametrize(
    ("answer", "config", "reason"),
    [
        ({"data": {}}, {}, "nothing at 'data.slots' (items)"),
        ([], {}, "nothing at 'data.slots' (items)"),
        ({"data": {"slots": {"a": 1}}}, {}, "at 'data.slots' (items) the answer has no list"),
        ({"data": {"slots": None}}, {}, "at 'data.slots' (items) the answer has no list"),
        ({"data": {"slots": [*ITEMS, {"id": "b"}]}}, {}, "item 2 of 'data.slots' has nothing at"),
        ({"data": {"slots": [*ITEMS, None]}}, {}, "at 'room.id' (venue)"),
        (
            {"data": {"slots": [ITEMS[0] | {"room": {"id": True}}]}},
            {},
            "has neither text nor an integer at 'room.id' (venue)",
        ),
        ({"data": {"slots": ITEMS}}, {"available": "free"}, "has nothing at 'free' (available)"),
        ({"data": {"slots": ITEMS}}, {"starts_at": "at"}, "has nothing at 'at' (starts_at)"),
        (
            {"data": {"slots": [ITEMS[0] | {"from": 1e300}]}},
            {},
            "has no time but 1e+300 at 'from' (starts_at)",
        ),
        ({"data": {"slots": ITEMS}}, {"party_min": "room.name"}, "has no integer at 'room.name'"),
        ({"data": {"slots": ITEMS}}, {"starts_at": "id"}, "starts_at: is not a time"),
        ({"data": {"slots": [ITEMS[0]] * 2}}, {}, "repeats the slot_id 'a1'"),
        (
            {"data": {"slots": [ITEMS[0] | {"id": "x" * 1_000_000}]}},
            {},
            "slot_id: must be 200 characters at most",
        ),
    ],
)
def test_an_answer_of_another_shape_fails_as_a_whole(server, answer, config, reason):
    server.answers["/slots"] = good(answer)
    assert reason in failure(mapped(server, **config)).reason.lower()


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, "url"),
        ({"url": "ftp://example.com", **MAPPING}, "url"),
        ({"url": "http://127.0.0.2/", **MAPPING}, "url"),
        ({"url": 3, **MAPPING}, "url"),
        ({"url": "http://127.0.0.1/", **MAPPING, "items": "a..b"}, "items"),
        ({"url": "http://127.0.0.1/", **MAPPING, "venue": 3}, "venue"),
        ({"url": "http://127.0.0.1/", **MAPPING, "colour": "red"}, "colour"),
        ({"url": "http://127.0.0.1/", "items": ".", "venue": "id"}, "slot_id"),
        ({"url": "http://127.0.0.1/", **MAPPING, "latitude": "lat"}, "latitude"),
        ({"url": "http://127.0.0.1/", **MAPPING, "available_values": [1]}, "available_values"),
        (
            {"url": "http://127.0.0.1/", **MAPPING, "available": "a", "available_values": []},
            "available_values",
        ),
        ({"url": "http://127.0.0.1/", **MAPPING, "payload": {"a": ""}}, "payload"),
        ({"url": "http://127.0.0.1/", **MAPPING, "payload": ["a"]}, "payload"),
    ],
)
def test_a_config_that_is_wrong_names_the_key(config, key):
    errors = providers.check(provider="json", config=config, window_days=None)
    assert key in errors
    assert errors[key].endswith(".")


def test_a_config_that_is_right():
    config = {"url": "http://127.0.0.1/", **MAPPING, "payload": {"a": "b.0.c"}}
    assert providers.check(provider="json", config=config, window_days=None) == {}
    standing = {key: value for key, value in config.items() if key != "starts_at"}
    assert "window_days" in providers.check(provider="json", config=standing, window_days=None)
    assert providers.check(provider="json", config=standing, window_days=0) == {}
    assert providers.check(provider="push", config={"any": 1}, window_days=None) == {}
    assert "config" in providers.check(provider="json", config=[], window_days=None)


# --- GBFS -------------------------------------------------------------------------------------


def station(key, vehicles, **more):
    return {"station_id": key, "num_bikes_available": vehicles, "is_renting": True} | more


def network(server, stations, *, version="2.3", ttl=60, information=None):
    """Put a GBFS network on the server; the source that polls it."""
    feeds = [
        {"name": name, "url": server.url(f"/{name}.json")}
        for name in ("system_information", "station_information", "station_status")
    ]
    data = {"feeds": feeds} if version.startswith("3") else {"fr": {"feeds": feeds}}
    if information is None:
        information = [
            {"station_id": "s1", "name": "Gare", "lat": 45.76, "lon": 4.86, "capacity": 20},
            {"station_id": "s2", "name": "Opéra", "lat": 45.77, "lon": 4.84},
        ]
    server.answers |= {
        "/gbfs.json": good({"version": version, "ttl": 0, "data": data}),
        "/station_information.json": good({"ttl": 60, "data": {"stations": information}}),
        "/station_status.json": good({"ttl": ttl, "data": {"stations": stations}}),
    }
    config = {"url": server.url("/gbfs.json"), "city": "Lyon"}
    return Source(name="bikes", provider="gbfs", config=config, window_days=0)


def test_stations_with_vehicles_are_open_slots(server):
    source = network(
        server,
        [
            station("s1", 3, num_docks_available=5),
            station("s2", 0),
            station("s3", 9, is_renting=False),
            station("s4", 1, is_renting=1),  # as version 1 has it
            station("s5", 1, is_renting=0),
            station("s6", None),  # has not answered
            {"num_bikes_available": 4},
            "not a station",
        ],
    )
    found = fetch(source)
    assert found.poll.slots == [
        Slot("s1", "s1", payload={"vehicles": 3, "docks": 5}),
        Slot("s4", "s4", payload={"vehicles": 1}),
    ]
    assert found.poll.calendars == ["s1", "s2", "s3", "s4", "s5"]
    assert found.poll.venues == [
        VenueDetails("s1", "Gare", "Lyon", 45.76, 4.86, capacity=20),
        VenueDetails("s2", "Opéra", "Lyon", 45.77, 4.84),
    ]
    assert found.floor_seconds == 60


def test_version_3(server):
    stations = [{"station_id": "s1", "num_vehicles_available": 2, "is_renting": True}]
    names = [{"text": "Central\tStation\x00", "language": "en"}]
    information = [
        {"station_id": "s1", "name": names, "lat": 200, "lon": "?", "rental_uris": {"web": "u"}}
    ]
    source = network(server, stations, version="3.0", information=information)
    poll = fetch(source).poll
    assert poll.slots == [Slot("s1", "s1", payload={"vehicles": 2})]
    assert poll.venues == [VenueDetails("s1", "Central Station", "Lyon", url="u")]


def test_how_many_vehicles_it_takes(server):
    source = network(server, [station("s1", 3), station("s2", 2)])
    source.config["min_available"] = 3
    assert [slot.slot_id for slot in fetch(source).poll.slots] == ["s1"]


def test_languages(server):
    source = network(server, [station("s1", 3)])
    source.config["language"] = "de"
    assert "has no language 'de'; it has fr" in failure(source).reason
    source.config["language"] = "fr"
    assert fetch(source).poll.slots


@pytest.mark.parametrize(
    ("path", "answer", "reason"),
    [
        ("/gbfs.json", {"data": {}}, "gbfs.json has no data"),
        ("/gbfs.json", [], "gbfs.json has no data"),
        ("/gbfs.json", {"data": {"feeds": []}}, "names no feed station_status"),
        ("/gbfs.json", {"data": {"en": 3}}, "names no feed station_status"),
        ("/station_status.json", {"data": {}}, "station_status has no list data.stations"),
        ("/station_status.json", [], "station_status has no list data.stations"),
        ("/station_status.json", {"data": {"stations": []}}, "names no station"),
        ("/station_status.json", {"data": {"stations": [{}]}}, "names no station"),
    ],
)
def test_a_network_of_another_shape_fails(server, path, answer, reason):
    source = network(server, [station("s1", 3)])
    server.answers[path] = good(answer)
    assert reason in failure(source).reason


def test_a_feed_on_a_private_host_is_not_asked(server):
    source = network(server, [station("s1", 3)])
    feeds = [{"name": "station_status", "url": "http://192.168.0.1/station_status.json"}]
    server.answers["/gbfs.json"] = good({"data": {"feeds": feeds}})
    assert "is not asked" in failure(source).reason


def test_names_are_not_needed(server):
    source = network(server, [station("s1", 3)])
    server.answers["/station_information.json"] = status(500)
    found = fetch(source)
    assert len(found.poll.slots) == 1
    assert list(found.poll.venues) == []
    source.validators = found.memory
    fetch(source)
    assert len(server.asked("/station_information.json")) == 1  # not again at once


def test_what_seldom_changes_is_seldom_asked_for(server, monkeypatch):
    source = network(server, [station("s1", 3)])
    stations = {"ttl": 30, "data": {"stations": [station("s1", 3)]}}
    server.answers["/station_status.json"] = conditional(stations, etag='"s"')
    first = fetch(source)
    source.validators = first.memory
    second = fetch(source)
    assert second.poll is None
    assert second.floor_seconds == 30  # as said before
    asked = [each.path for each in server.requests]
    assert asked == [
        "/gbfs.json",
        "/station_information.json",
        "/station_status.json",
        "/station_status.json",
    ]
    assert server.requests[-1].headers["If-None-Match"] == '"s"'

    later = time.time() + 3_700
    monkeypatch.setattr(time, "time", lambda: later)
    source.validators = second.memory
    assert [venue.name for venue in fetch(source).poll.venues] == ["Gare", "Opéra"]
    assert "If-None-Match" not in server.requests[-1].headers  # names come with a whole poll


def test_after_a_failure_the_feeds_are_looked_up_again(server):
    source = network(server, [station("s1", 3)])
    source.validators = fetch(source).memory
    moved = [{"name": "station_status", "url": server.url("/moved.json")}]
    server.answers["/gbfs.json"] = good({"data": {"feeds": moved}})
    server.answers["/moved.json"] = server.answers.pop("/station_status.json")
    assert "404" in failure(source).reason
    source.consecutive_failures = 1
    assert fetch(source).poll.slots


@pytest.mark.parametrize("ttl", [-5, 10**12, "60", None, True])
def test_a_strange_ttl(server, ttl):
    floor = fetch(network(server, [station("s1", 3)], ttl=ttl)).floor_seconds
    assert floor == (86_400 if ttl == 10**12 else 0)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, "url"),
        ({"url": "http://10.0.0.1/gbfs.json"}, "url"),
        ({"url": "http://127.0.0.1/", "min_available": 0}, "min_available"),
        ({"url": "http://127.0.0.1/", "min_available": True}, "min_available"),
        ({"url": "http://127.0.0.1/", "language": 3}, "language"),
        ({"url": "http://127.0.0.1/", "ttl": 3}, "ttl"),
    ],
)
def test_a_gbfs_config_that_is_wrong_names_the_key(config, key):
    assert key in providers.check(provider="gbfs", config=config, window_days=0)


def test_gbfs_has_no_days():
    config = {"url": "http://127.0.0.1/"}
    assert "window_days" in providers.check(provider="gbfs", config=config, window_days=14)
    assert providers.check(provider="gbfs", config=config, window_days=0) == {}


# --- Demo -------------------------------------------------------------------------------------


def test_the_demo_is_a_function_of_seed_and_time():
    at = datetime(2026, 5, 4, 9, tzinfo=UTC)
    one = Source(name="demo", provider="demo", config={"seed": 1}, timezone="Europe/Paris")
    other = Source(name="demo", provider="demo", config={"seed": 2}, timezone="Europe/Paris")
    first = shown_at(one, at)
    assert shown_at(one, at) == first
    assert {slot.slot_id for slot in shown_at(other, at).slots} != {
        slot.slot_id for slot in first.slots
    }
    assert {slot.venue for slot in first.slots} <= {place.key for place in RESTAURANTS}
    assert all(slot.starts_at > at for slot in first.slots)
    assert 50 < len(first.slots) < 600
    assert fetch(one).poll.slots

    # Some open and some close within a quarter of an hour; most stay.
    ids = {slot.slot_id for slot in first.slots}
    later = {slot.slot_id for slot in shown_at(one, at + timedelta(minutes=15)).slots}
    assert later - ids
    assert ids - later
    assert len(ids & later) > len(ids) / 2
    assert "seed" in providers.check(provider="demo", config={"seed": "x"}, window_days=None)
