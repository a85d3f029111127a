"""Events as clients send them: checked here, field by field, before they go into the stream."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from config.fields import MAX_ID, printable
from counters import declared
from counters.actions import Event
from counters.stream import PAST

EVENTS_AT_ONCE = 1_000
AHEAD = timedelta(minutes=5)  # by which a client's clock may be fast
REASONS = 100  # in one answer
FIELDS = ("id", "type", "target", "at")


class InvalidEvents(ValueError):
    """`errors`: {"name": where, "reason": what} for each field that is wrong, up to REASONS."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__(f"{len(errors)} fields are wrong")
        self.errors = errors


def events_of(body: Any) -> list[Event]:
    """The events of a request's body: {"events": [{"id", "type", "target", "at"}, …]}.

    `at` belongs to the identity of an event: sent again, both must be the same. Raises
    InvalidEvents, and then takes none of them.
    """
    if not isinstance(body, dict):
        raise InvalidEvents([_wrong("body", "Must be a JSON object.")])
    if unknown := sorted(set(body) - {"events"}):
        raise InvalidEvents(
            [_wrong(printable(name), "Is not a field here.") for name in unknown[:10]]
        )
    given = body.get("events")
    if not isinstance(given, list) or not given:
        raise InvalidEvents([_wrong("events", "Must be a list of one event or more.")])
    if len(given) > EVENTS_AT_ONCE:
        reason = f"Holds {len(given):,} events; {EVENTS_AT_ONCE:,} at once are the most."
        raise InvalidEvents([_wrong("events", reason)])
    now, types = datetime.now(UTC), declared.events()
    events: list[Event] = []
    errors: list[dict[str, str]] = []
    for number, one in enumerate(given):
        wrong = _check(one, types, now, events)
        errors += [_wrong(f"events[{number}]{name}", reason) for name, reason in wrong]
        if len(errors) >= REASONS:
            break
    if errors:
        raise InvalidEvents(errors[:REASONS])
    return events


def _check(one: Any, types, now: datetime, events: list[Event]) -> list[tuple[str, str]]:
    if not isinstance(one, dict):
        return [("", "Must be a JSON object.")]
    wrong = [(f".{printable(name)}", "Is not a field here.") for name in one if name not in FIELDS]
    wrong += [(f".{name}", "Is missing.") for name in FIELDS if name not in one]
    if wrong:
        return wrong
    event_id, at = _uuid(one["id"]), _moment(one["at"])
    if event_id is None:
        wrong.append((".id", "Is not a UUID."))
    if not isinstance(one["type"], str) or one["type"] not in types:
        wrong.append((".type", f"Is none of: {', '.join(types)}."))
    if type(one["target"]) is not int or not 0 < one["target"] <= MAX_ID:
        wrong.append((".target", "Is not the id of anything."))
    if at is None:
        wrong.append((".at", "Is not a time with its offset (2025-10-01T06:00:00Z)."))
    elif at > now + AHEAD:
        wrong.append((".at", "Lies in the future."))
    elif at < now - PAST:
        wrong.append((".at", "Is more than a day ago: it could not be told from a repetition."))
    if not wrong:
        day = at.astimezone(UTC).date().isoformat()
        events.append(Event(event_id, day, one["type"], one["target"]))
    return wrong


def _uuid(value: Any) -> str | None:
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _wrong(name: str, reason: str) -> dict[str, str]:
    return {"name": name, "reason": reason}
