"""What a poll may say, and to which bucket each slot belongs. Pure: no database.

A poll is what a source showed at one moment: its slots, and where venues answer one by one, which
of them did (`calendars`). `clean_poll` checks it whole before anything is written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from django.conf import settings
from django.utils import timezone

from config.fields import InvalidFields, Refused, degrees, entries, integer, optional, text

ID_LENGTH = 200  # of slot ids and venue keys
TEXT_LENGTH = 300
PAYLOAD_BYTES = 2_000  # as JSON
PARTY_MAX = 1_000
VENUES = CALENDARS = 10_000  # of one poll
FIRST_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_SKEW = timedelta(minutes=5)
ERRORS = 100  # listed at most
ERROR_LENGTH = 1_000
WHOLE = ""  # the calendar of a bucket that is polled as one

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# As JSON writes it; behind an even number of backslashes, else it is text about it.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_UNWANTED = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class InvalidPoll(InvalidFields):
    """A poll that cannot be recorded."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Something bookable. `starts_at`: aware, or naive and then of the source's time zone; None for
    what is free now. `payload`: plain data for who reads it."""

    slot_id: str
    venue: str
    starts_at: datetime | None = None
    party_min: int | None = None
    party_max: int | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VenueDetails:
    """What a source says of a venue besides its key."""

    key: str
    name: str = ""
    city: str = ""
    latitude: float | None = None
    longitude: float | None = None
    url: str = ""
    capacity: int | None = None


@dataclass(frozen=True)
class Poll:
    """What a source showed at `polled_at` (aware). `calendars`: the venues that answered, where
    they answer one by one; None where the poll is of everything."""

    source: str
    polled_at: datetime
    slots: Sequence[Slot]
    calendars: Sequence[str] | None = None
    venues: Sequence[VenueDetails] = ()


@dataclass(frozen=True)
class BucketKey:
    """A part of a day; `day` None for the standing bucket."""

    day: date | None
    time_slot: str


def clean_poll(given: Mapping[str, Any]) -> Poll:
    """A poll out of plain data, as JSON has it. Raises InvalidPoll with up to 100 wrong fields.

    Fields: source, polled_at, slots, and perhaps calendars and venues. A slot has a venue, and a
    `slot_id` or `starts_at` or both: without an id, venue and time are it.
    """
    errors: dict[str, str] = {}
    unknown = [str(name)[:60] for name in given if name not in _FIELDS]
    errors |= {name: f"Is not a field here; known: {', '.join(_FIELDS)}." for name in unknown}
    taken: dict[str, Any] = {}
    for name, (read, required) in _FIELDS.items():
        if name not in given:
            if required:
                errors[name] = "Is missing."
            continue
        try:
            taken[name] = read(given[name], name, errors)
        except Refused as refused:
            errors[name] = str(refused)
    if not errors:
        errors |= _contradictions(taken)
    if errors:
        raise InvalidPoll(dict(list(errors.items())[:ERRORS]))
    return Poll(**taken)


def clean_name(value: Any) -> str:
    """The name of a source. Raises InvalidPoll."""
    try:
        return _source(value, "source", {})
    except Refused as refused:
        raise InvalidPoll({"source": str(refused)}) from refused


def is_key(text: str) -> bool:
    """Whether a text can be a slot id or the key of a venue."""
    return 0 < len(text) <= ID_LENGTH and not _UNWANTED.search(text)


def clean_failure(given: Mapping[str, Any]) -> tuple[Poll, str]:
    """A poll that failed, out of source, polled_at and error; and why. Raises InvalidPoll."""
    extra = given.keys() - {"source", "polled_at", "error"}
    if extra:
        raise InvalidPoll({str(name)[:60]: "Does not go with error." for name in extra})
    poll = clean_poll({**{name: given[name] for name in given if name != "error"}, "slots": []})
    try:
        return poll, _text(given["error"], ERROR_LENGTH)
    except Refused as refused:
        raise InvalidPoll({"error": str(refused)}) from refused


def window(first: date, days: int) -> list[BucketKey]:
    """The buckets of `days` days from `first` on; the standing one where there are none."""
    if not days:
        return [BucketKey(None, "")]
    return [
        BucketKey(first + timedelta(days=number), part)
        for number in range(days)
        for part in settings.DISCOVERY_TIME_SLOTS
    ]


def place(slot: Slot, zone: ZoneInfo, *, standing: bool) -> tuple[BucketKey, str, datetime | None]:
    """The bucket of a slot, its local time of day (`19:30`, "" without), and its moment.

    A slot that names no day is of the standing bucket, or of none where there are days: then of
    the day 0001-01-01, which no window has.
    """
    if slot.starts_at is None:
        return BucketKey(None if standing else date.min, ""), "", None
    moment = slot.starts_at if slot.starts_at.tzinfo else slot.starts_at.replace(tzinfo=zone)
    local = moment.astimezone(zone)
    text = f"{local:%H:%M}"
    if standing:
        return BucketKey(None, ""), text, moment
    return BucketKey(local.date(), _part(text)), text, moment


def local_day(moment: datetime, zone: ZoneInfo) -> date:
    return moment.astimezone(zone).date()


@cache
def zone_of(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError) as error:
        raise ValueError(f"{name} is no time zone (Europe/Berlin)") from error


def _part(text: str) -> str:
    """The part of the day that a local time lies in: the last that begins before it."""
    parts = sorted(settings.DISCOVERY_TIME_SLOTS)
    return max((part for part in parts if part <= text), default=parts[0])


def _text(value: Any, limit: int, *, blank: bool = False) -> str:
    given = text(value, limit)
    if found := _UNWANTED.search(given):
        raise Refused(f"Contains the character U+{ord(found[0]):04X}.")
    given = given.strip()
    if not given and not blank:
        raise Refused("May not be blank.")
    return given


def _source(value: Any, _name: str, _errors: dict) -> str:
    name = _text(value, 63)
    if not NAME.fullmatch(name):
        raise Refused("Must be up to 63 of a-z, 0-9, _ and -, a letter or digit first.")
    return name


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise Refused("Must be a time (2026-02-18T19:00:00Z).")
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        raise Refused("Is not a time (2026-02-18T19:00:00Z).") from error


def _polled_at(value: Any, _name: str, _errors: dict) -> datetime:
    moment = _moment(value) if not isinstance(value, datetime) else value
    if moment.tzinfo is None:
        raise Refused("Is a time without its offset (2026-02-18T19:00:00Z).")
    if moment < FIRST_MOMENT:
        raise Refused("Lies before 2000-01-01.")
    if moment > timezone.now() + CLOCK_SKEW:
        raise Refused("Lies in the future.")
    return moment.astimezone(UTC)  # PostgreSQL reads no offsets of 16 hours and more


def _starts_at(value: Any) -> datetime | None:
    if value is None:
        return None
    moment = _moment(value) if not isinstance(value, datetime) else value
    if not 2000 <= moment.year <= 2200:
        raise Refused("Must lie in the years 2000 to 2200.")
    return moment.astimezone(UTC) if moment.tzinfo else moment


def _payload(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Refused("Must be an object.")
    try:
        size = len(orjson.dumps(value))
    except (orjson.JSONEncodeError, TypeError) as error:
        raise Refused("Cannot be written as JSON.") from error
    if size > PAYLOAD_BYTES:
        raise Refused(f"Must be {PAYLOAD_BYTES:,} bytes of JSON at most, not {size:,}.")
    if _NUL.search(orjson.dumps(value)):
        raise Refused("Contains the character U+0000.")
    return dict(value)


def _slots(value: Any, name: str, errors: dict[str, str]) -> list[Slot]:
    given = entries(value, settings.DISCOVERY_SLOTS_PER_POLL)
    return _each(given, name, errors, _slot)


def _slot(given: Any) -> Slot:
    values = _members(given, _SLOT_FIELDS)
    if "venue" not in values:
        raise Refused("Has no venue.")
    starts_at = values.get("starts_at")
    slot_id = values.get("slot_id")
    if slot_id is None:
        if starts_at is None:
            raise Refused("Has neither slot_id nor starts_at.")
        slot_id = f"{values['venue']}|{starts_at.isoformat()}"[-ID_LENGTH:]
    least, most = values.get("party_min"), values.get("party_max")
    if least is not None and most is not None and least > most:
        raise Refused("party_min is greater than party_max.")
    return Slot(slot_id, values["venue"], starts_at, least, most, values.get("payload", {}))


def _venues(value: Any, name: str, errors: dict[str, str]) -> list[VenueDetails]:
    return _each(entries(value, VENUES), name, errors, _venue)


def _venue(given: Any) -> VenueDetails:
    values = _members(given, _VENUE_FIELDS)
    if "key" not in values:
        raise Refused("Has no key.")
    if (values.get("latitude") is None) != (values.get("longitude") is None):
        raise Refused("Has one of latitude and longitude alone.")
    return VenueDetails(**values)


def _calendars(value: Any, _name: str, _errors: dict) -> list[str] | None:
    if value is None:
        return None
    keys = [_text(each, ID_LENGTH) for each in entries(value, CALENDARS)]
    if not keys:
        raise Refused("Is empty: a poll that nobody answered is a failed one.")
    return list(dict.fromkeys(keys))


def _each(given: Sequence[Any], name: str, errors: dict[str, str], read) -> list:
    found = []
    for place, entry in enumerate(given):
        try:
            found.append(read(entry))
        except Refused as refused:
            errors[f"{name}.{place}"] = str(refused)
            if len(errors) >= ERRORS:
                break
    return found


def _members(given: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise Refused("Must be an object.")
    values = {}
    for name, value in given.items():
        if name not in known:
            raise Refused(f"Has no field {str(name)[:60]!r}; known: {', '.join(known)}.")
        try:
            values[name] = known[name](value)
        except Refused as refused:
            raise Refused(f"{name}: {refused}") from refused
    return values


def _contradictions(taken: Mapping[str, Any]) -> dict[str, str]:
    errors = {}
    seen: set[str] = set()
    if len({slot.venue for slot in taken["slots"]}) > VENUES:
        return {"slots": f"Are at more than {VENUES:,} venues."}
    answered = None if taken.get("calendars") is None else set(taken["calendars"])
    for number, slot in enumerate(taken["slots"]):
        if slot.slot_id in seen:
            errors[f"slots.{number}"] = f"Repeats the slot_id {slot.slot_id[:60]!r}."
        elif answered is not None and slot.venue not in answered:
            errors[f"slots.{number}"] = "Is of a venue that is not among calendars."
        seen.add(slot.slot_id)
        if len(errors) >= ERRORS:
            break
    return errors


_SLOT_FIELDS = {
    "slot_id": lambda value: _text(value, ID_LENGTH),
    "venue": lambda value: _text(value, ID_LENGTH),
    "starts_at": _starts_at,
    "party_min": optional(lambda value: integer(value, 1, PARTY_MAX)),
    "party_max": optional(lambda value: integer(value, 1, PARTY_MAX)),
    "payload": _payload,
}
_VENUE_FIELDS = {
    "key": lambda value: _text(value, ID_LENGTH),
    "name": lambda value: _text(value, TEXT_LENGTH, blank=True),
    "city": lambda value: _text(value, TEXT_LENGTH, blank=True),
    "latitude": optional(lambda value: degrees(value, 90)),
    "longitude": optional(lambda value: degrees(value, 180)),
    "url": lambda value: _text(value, 2_000, blank=True),
    "capacity": optional(lambda value: integer(value, 0, 10_000_000)),
}
_FIELDS = {
    "source": (_source, True),
    "polled_at": (_polled_at, True),
    "slots": (_slots, True),
    "calendars": (_calendars, False),
    "venues": (_venues, False),
}
