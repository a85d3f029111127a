"""GBFS, the open standard of shared bikes and scooters (https://gbfs.org), versions 1, 2 and 3.

A station with enough vehicles is one open slot, whose time is now. `gbfs.json` names the feeds;
it and `station_information` are read again once an hour, and after a failure. A station that
`station_status` leaves out has not answered: its slot stays as it is.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp

from discovery.models import Source
from discovery.polls import TEXT_LENGTH, Poll
from discovery.providers.base import (
    Answer,
    Fetched,
    FetchFailed,
    Memory,
    check_url,
    checked_poll,
    get_json,
    plain_text,
    seconds,
    unknown_keys,
)

logger = logging.getLogger("spyglass.discovery")

REREAD_SECONDS = 3_600  # what seldom changes: which feeds there are, where stations stand
RETRY_SECONDS = 300
FEEDS = ("station_status", "station_information")
KEYS = ("url", "min_available", "language", "city")
URL_LENGTH = 2_000
PREFERRED_LANGUAGE = "en"


class Gbfs:
    """`{"url": "https://…/gbfs.json", "min_available": 1, "language": "de", "city": "Ulm"}`; only
    the URL is needed. `city` is what the stations' place is called here: GBFS does not say."""

    def check(self, config: Mapping[str, Any]) -> dict[str, str]:
        errors = unknown_keys(config, KEYS)
        if wrong := check_url(config.get("url")):
            errors["url"] = wrong
        least = config.get("min_available", 1)
        if isinstance(least, bool) or not isinstance(least, int) or not 1 <= least <= 10_000:
            errors["min_available"] = "Must be an integer from 1 to 10,000."
        for key in ("language", "city"):
            value = config.get(key, "")
            if not isinstance(value, str) or len(value) > TEXT_LENGTH:
                errors[key] = f"Must be text of {TEXT_LENGTH} characters at most."
        return errors

    def is_standing(self, config: Mapping[str, Any]) -> bool:
        return True

    async def fetch(self, session: aiohttp.ClientSession, source: Source) -> Fetched:
        old = source.validators
        found = await _feeds(session, source)
        feeds = found["feeds"]
        stations, information = await _information(session, source, feeds)
        # Names and places come with a poll: then it is asked in full.
        conditions = old.get("station_status", {}) if stations is None else {}
        answer = await get_json(session, feeds["station_status"], conditions)
        status = _kept(answer, conditions)
        memory = {
            source.config["url"]: found,
            "station_information": information,
            "station_status": status,
        }
        if not answer.changed:
            return Fetched(None, memory, status["ttl"])
        poll = await asyncio.to_thread(_poll, source, answer.data, stations)
        return Fetched(poll, memory, status["ttl"])


async def _feeds(session: aiohttp.ClientSession, source: Source) -> Memory:
    """What is known of `gbfs.json`: its validators, and the URLs of the feeds."""
    url, old = source.config["url"], source.validators.get(source.config["url"], {})
    if old and not source.consecutive_failures and not _is_due(old):
        return old
    answer = await get_json(session, url, old)
    kept = _kept(answer, old)
    if answer.changed:
        kept["feeds"] = _named_feeds(answer.data, source.config.get("language", ""))
    return kept


async def _information(
    session: aiohttp.ClientSession, source: Source, feeds: Mapping[str, str]
) -> tuple[list | None, Memory]:
    """The stations with names and places; None where they are not due, or not to be had.

    Asked in full: a venue may have been pruned since, and needs its name again.
    """
    old = source.validators.get("station_information", {})
    if "station_information" not in feeds or (old and not _is_due(old)):
        return None, old
    try:
        answer = await get_json(session, feeds["station_information"], {})
        return _stations(answer.data, "station_information"), _kept(answer, {})
    except FetchFailed as failure:
        # What is free matters more than what it is called.
        logger.warning("%s: polled without names: %s", source.name, failure.reason)
        return None, {"read_at": int(time.time()) - REREAD_SECONDS + RETRY_SECONDS}


def _kept(answer: Answer, old: Memory) -> Memory:
    """The memory of an answer: `ttl` as it said, or as the one said that still holds."""
    if not answer.changed:
        return old | {"read_at": int(time.time())}
    ttl = seconds(answer.data.get("ttl")) if isinstance(answer.data, dict) else 0
    return answer.memory | {"ttl": ttl, "read_at": int(time.time())}


def _is_due(old: Memory) -> bool:
    age = time.time() - old.get("read_at", 0)
    return not 0 <= age < max(REREAD_SECONDS, old.get("ttl", 0))


def _named_feeds(data: Any, language: str) -> dict[str, str]:
    """The URLs of the feeds that are read here, by name. Raises FetchFailed.

    Since version 3 the feeds stand in `data.feeds`; before, for each language apart.
    """
    content = data.get("data") if isinstance(data, dict) else None
    if not isinstance(content, dict) or not content:
        raise FetchFailed("gbfs.json has no data: is this the auto-discovery file?")
    if "feeds" not in content:
        if language and language not in content:
            known = ", ".join(map(str, list(content)[:20]))
            raise FetchFailed(f"gbfs.json has no language {language!r}; it has {known}")
        content = content.get(language or PREFERRED_LANGUAGE) or next(iter(content.values()))
    feeds = content.get("feeds") if isinstance(content, dict) else None
    found = {
        feed["name"]: feed["url"]
        for feed in (feeds if isinstance(feeds, list) else [])
        if isinstance(feed, dict) and feed.get("name") in FEEDS and isinstance(feed.get("url"), str)
    }
    if "station_status" not in found:
        raise FetchFailed("gbfs.json names no feed station_status: has this network stations?")
    return found


def _poll(source: Source, status: Any, stations: list | None) -> Poll:
    """The poll that `station_status` shows. Raises FetchFailed."""
    least = source.config.get("min_available", 1)
    answered = dict(filter(None, map(_counted, _stations(status, "station_status"))))
    if not answered:
        raise FetchFailed("station_status names no station with its number of vehicles")
    slots = [
        {"slot_id": key, "venue": key, "payload": _payload(station, vehicles)}
        for key, (station, vehicles) in answered.items()
        if vehicles >= least and _is_true(station.get("is_renting", True))
    ]
    given = {"source": source.name, "slots": slots, "calendars": list(answered)}
    if stations is not None:
        given["venues"] = list(_described(stations, source.config.get("city", "")))
    return checked_poll(given, what="station_status")


def _stations(data: Any, feed: str) -> list:
    content = data.get("data") if isinstance(data, dict) else None
    stations = content.get("stations") if isinstance(content, dict) else None
    if not isinstance(stations, list):
        raise FetchFailed(f"{feed} has no list data.stations")
    return stations


def _counted(station: Any) -> tuple[str, tuple[dict, int]] | None:
    """(station_id, (station, vehicles)); None where it does not say both: it has not answered."""
    if not isinstance(station, dict):
        return None
    key = _key(station)
    vehicles = station.get("num_vehicles_available", station.get("num_bikes_available"))
    return (key, (station, vehicles)) if key and _is_count(vehicles) else None


def _payload(station: Mapping[str, Any], vehicles: int) -> dict[str, int]:
    docks = station.get("num_docks_available")
    return {"vehicles": vehicles} | ({"docks": docks} if _is_count(docks) else {})


def _described(stations: list, city: str) -> Iterator[dict[str, Any]]:
    for station in stations:
        if not isinstance(station, dict) or not (key := _key(station)):
            continue
        latitude, longitude = station.get("lat"), station.get("lon")
        is_placed = _is_degrees(latitude, 90) and _is_degrees(longitude, 180)
        uris, capacity = station.get("rental_uris"), station.get("capacity")
        url = _text(uris.get("web")) if isinstance(uris, dict) else ""
        yield {
            "key": key,
            "name": _text(station.get("name"))[:TEXT_LENGTH],
            "city": city,
            "latitude": latitude if is_placed else None,
            "longitude": longitude if is_placed else None,
            "url": url if len(url) <= URL_LENGTH else "",
            "capacity": capacity if _is_count(capacity) else None,
        }


def _key(station: Mapping[str, Any]) -> str:
    key = station.get("station_id")
    return str(key).strip() if isinstance(key, str | int) and not isinstance(key, bool) else ""


def _text(value: Any) -> str:
    """Text without control characters; since version 3 the first of its translations."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0].get("text")
    return plain_text(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000


def _is_degrees(value: Any, limit: int) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -limit <= value <= limit


def _is_true(value: Any) -> bool:
    """Version 1 writes 0 and 1."""
    return value is True or value == 1
