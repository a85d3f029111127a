"""Any JSON endpoint, through a mapping that its config declares.

    {"url": "https://…/slots", "items": "data.slots", "venue": "room.id", "starts_at": "start",
     "available": "state", "available_values": ["free"], "payload": {"price": "offer.price"}}

Everything but `url` and `available_values` is a path into the answer: `data.slots` is the member
`slots` of the member `data`, a number is a place in a list, and `.` is the whole of it. What a
mapping names must be there: an answer of another shape is a failed poll, not one where nothing is
free.
"""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson

from discovery.models import Source
from discovery.polls import TEXT_LENGTH, Poll
from discovery.providers.base import (
    Fetched,
    FetchFailed,
    check_url,
    checked_poll,
    get_json,
    plain_text,
    shown,
    unknown_keys,
)

NEEDED = ("url", "items", "venue")
OF_SLOTS = ("slot_id", "starts_at", "party_min", "party_max", "available")
OF_VENUES = ("venue_name", "latitude", "longitude")
KEYS = (*NEEDED, *OF_SLOTS, *OF_VENUES, "available_values", "payload")
PATH_LENGTH = 300
PAYLOAD_NAMES = 20
MILLISECONDS_FROM = 100_000_000_000  # as seconds, that is the year 5138

_MISSING = object()


class Mapped:
    """A list of items, each a slot; see above for the config."""

    def check(self, config: Mapping[str, Any]) -> dict[str, str]:
        errors = unknown_keys(config, KEYS)
        for key in NEEDED:
            if key not in config:
                errors[key] = "Is missing."
        if "url" in config and (wrong := check_url(config["url"])):
            errors["url"] = wrong
        for key in ("items", "venue", *OF_SLOTS, *OF_VENUES):
            if key in config and (wrong := _wrong_path(config[key])):
                errors[key] = wrong
        if "slot_id" not in config and "starts_at" not in config:
            errors["slot_id"] = "Is needed where starts_at is not given."
        if ("latitude" in config) != ("longitude" in config):
            errors["latitude"] = "Needs longitude beside it, and the other way round."
        return errors | _wrong_availability(config) | _wrong_payload(config.get("payload", {}))

    def is_standing(self, config: Mapping[str, Any]) -> bool:
        return "starts_at" not in config

    async def fetch(self, session: aiohttp.ClientSession, source: Source) -> Fetched:
        url = source.config["url"]
        answer = await get_json(session, url, source.validators.get(url, {}))
        memory = {url: answer.memory}
        if not answer.changed:
            return Fetched(None, memory)
        return Fetched(await asyncio.to_thread(_poll, source, answer.data), memory)


def _poll(source: Source, data: Any) -> Poll:
    """The poll that an answer shows. Raises FetchFailed."""
    config = source.config
    items = _at(data, config["items"])
    if items is _MISSING:
        raise FetchFailed(f"The answer has nothing at {config['items']!r} (items)")
    if not isinstance(items, list):
        raise FetchFailed(f"At {config['items']!r} (items) the answer has no list")
    free = {_written(value) for value in config.get("available_values", [True])}
    slots, venues = [], {}
    describes = any(key in config for key in OF_VENUES)
    for number, item in enumerate(items):
        here = _Item(config, item, number)
        venue = here.text("venue")
        if describes and venue not in venues:
            venues[venue] = here.described(venue)
        if "available" in config and _written(here.needed("available")) not in free:
            continue
        slots.append(here.slot(venue))
    given = {"source": source.name, "slots": slots}
    if venues:
        given["venues"] = list(venues.values())
    return checked_poll(given, what=shown(config["url"]))


class _Item:
    """One item of the list, read through the mapping. Whatever it lacks raises FetchFailed."""

    def __init__(self, config: Mapping[str, Any], item: Any, number: int):
        self._config, self._item, self._number = config, item, number

    def slot(self, venue: str) -> dict[str, Any]:
        found: dict[str, Any] = {"venue": venue}
        if "slot_id" in self._config:
            found["slot_id"] = self.text("slot_id")
        if "starts_at" in self._config:
            found["starts_at"] = self._moment()
        for key in ("party_min", "party_max"):
            found[key] = self._integer(key)
        return found | {"payload": dict(self._payload())}

    def described(self, venue: str) -> dict[str, Any]:
        place = [self._number_of(key) for key in ("latitude", "longitude")]
        return {
            "key": venue,
            "name": plain_text(self._perhaps("venue_name"))[:TEXT_LENGTH],
            "latitude": place[0] if None not in place else None,
            "longitude": place[1] if None not in place else None,
        }

    def needed(self, key: str) -> Any:
        found = _at(self._item, self._config[key])
        if found is _MISSING or (found is None and key != "available"):
            raise self._wrong(key, "has nothing")
        return found

    def text(self, key: str) -> str:
        """Text, or an integer as text: what names something may be either."""
        found = self.needed(key)
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise self._wrong(key, "has neither text nor an integer")
        return str(found)

    def _moment(self) -> str:
        """ISO 8601 as it stands; numbers are seconds or milliseconds since 1970."""
        found = self.needed("starts_at")
        if isinstance(found, str):
            return found
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self._wrong("starts_at", "has no time")
        since = found / 1000 if abs(found) >= MILLISECONDS_FROM else found
        try:
            return datetime.fromtimestamp(since, UTC).isoformat()
        except (ValueError, OverflowError, OSError) as error:
            raise self._wrong("starts_at", f"has no time but {found}") from error

    def _integer(self, key: str) -> int | None:
        found = self._perhaps(key)
        if isinstance(found, str) and found.strip().isdecimal():
            return int(found.strip()[:10])
        if found is None or (isinstance(found, int) and not isinstance(found, bool)):
            return found
        raise self._wrong(key, "has no integer")

    def _number_of(self, key: str) -> float | None:
        found = self._perhaps(key)
        if isinstance(found, bool):
            raise self._wrong(key, "has no number")
        try:
            return None if found is None else float(found)
        except (TypeError, ValueError) as error:
            raise self._wrong(key, "has no number") from error

    def _payload(self) -> Iterator[tuple[str, Any]]:
        for name, path in self._config.get("payload", {}).items():
            found = _at(self._item, path)
            if found is not _MISSING:
                yield name, found

    def _perhaps(self, key: str) -> Any:
        """What stands at the path of this key; None where it has none, or nothing stands there."""
        found = _at(self._item, self._config[key]) if key in self._config else None
        return None if found is _MISSING else found

    def _wrong(self, key: str, what: str) -> FetchFailed:
        return FetchFailed(
            f"Item {self._number} of {self._config['items']!r} {what}"
            f" at {self._config[key]!r} ({key})"
        )


def _at(data: Any, path: str) -> Any:
    """What stands at a path, or _MISSING."""
    if path == ".":
        return data
    for step in path.split("."):
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and step.isdecimal() and int(step) < len(data):
            data = data[int(step)]
        else:
            return _MISSING
    return data


def _written(value: Any) -> bytes:
    """As JSON: so that 1 is not true, as it is in Python."""
    return orjson.dumps(value)


def _wrong_path(path: Any) -> str:
    if not isinstance(path, str) or not path or len(path) > PATH_LENGTH:
        return "Must be a path (data.slots)."
    if path != "." and "" in path.split("."):
        return "Has an empty step; a path is data.slots, or . for the whole."
    return ""


def _wrong_availability(config: Mapping[str, Any]) -> dict[str, str]:
    if "available_values" not in config:
        return {}
    if "available" not in config:
        return {"available_values": "Needs available beside it."}
    values = config["available_values"]
    if not isinstance(values, list) or not values:
        return {"available_values": "Must be a list of values, such as [true] or ['free']."}
    return {}


def _wrong_payload(payload: Any) -> dict[str, str]:
    if not isinstance(payload, Mapping) or len(payload) > PAYLOAD_NAMES:
        return {"payload": f"Must be an object of {PAYLOAD_NAMES} paths by name at most."}
    for name, path in payload.items():
        if wrong := _wrong_path(path):
            return {"payload": f"{name}: {wrong}"}
    return {}
