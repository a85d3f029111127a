"""The stream of events: offered by the API, counted by workers, each event once.

An entry of the stream is a batch of events, as JSON: [[event_id, day, type, target], …]. A worker
reads entries as a member of the consumer group, counts them in one transaction that also remembers
the ids of their events, and only then acknowledges and deletes the entries. Killed before the
commit, nothing was counted, and another worker claims the entries once they lay idle for
IDLE_SECONDS; killed after it, the ids are known and nothing is counted again.

What cannot be counted goes to `counter_dead_letters`, with the reason, in the same transaction.

Valkey must keep what it accepted: `appendonly yes`, as the embedded one is started. With
`appendfsync everysec` a host that loses power loses the last second; a killed Valkey loses nothing.
"""

import logging
import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import orjson
from django.conf import settings
from django.db import connection, transaction
from redis import Redis
from redis.exceptions import ResponseError

from config import partitions, tally, valkey
from config.fields import MAX_ID
from config.outages import AWAY
from config.sqlfiles import queries
from config.tally import Count
from config.text import storable
from counters import declared
from counters.actions import Event, apply_events
from counters.models import DeadLetter

logger = logging.getLogger("spyglass.counters")

GROUP = "counters"
FIELD = b"events"
EVENTS_PER_ENTRY = 500
ENTRIES_AT_ONCE = 20  # of one transaction: up to 10,000 events
IDLE_SECONDS = 30  # an entry that its consumer has not settled by then goes to another one
MAX_DELIVERIES = 10  # an entry that was delivered more often kills its workers
GONE_SECONDS = 600  # a consumer that has nothing and was silent so long is forgotten
SOCKET_SECONDS = 5
PAST = timedelta(days=1)  # how late an event may come; the days kept must cover twice of it
PAYLOAD_LENGTH = 100_000  # of a dead letter
REASON_LENGTH = 1_000
RETRY_SECONDS = 5  # of a request of staff
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")


class Full(Exception):
    """The stream holds as many entries as it may: the workers are behind."""


class Unavailable(Exception):
    """Valkey did not take the events: they may be sent again, as they were."""


@dataclass(frozen=True)
class Entry:
    """What was read of the stream; `deliveries` counts this one."""

    id: str
    payload: bytes | None
    deliveries: int = 1


def key() -> str:
    """The stream's key in Valkey."""
    return valkey.prefixed("counters:events")


def waiting_client() -> Redis:
    """A connection to Valkey that may wait for it, for workers: requests use the cache's."""
    return Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=SOCKET_SECONDS,
    )


def offer(events: Sequence[Event]) -> None:
    """Put events into the stream, all or none of them.

    Raises Full where COUNTERS_STREAM_LIMIT entries wait already, Unavailable where Valkey did not
    confirm; then they may be there all the same, and are known by their ids when they come again.
    """
    rows = [[one.event_id, one.day, one.type, one.target] for one in events]
    parts = [
        orjson.dumps(rows[at : at + EVENTS_PER_ENTRY])
        for at in range(0, len(rows), EVENTS_PER_ENTRY)
    ]
    limit = settings.COUNTERS_STREAM_LIMIT
    offered = valkey.attempt(
        lambda: valkey.script(_OFFER)(keys=[key()], args=[limit, FIELD, *parts]), None
    )
    if offered is None:
        raise Unavailable("The stream of events is not available.")
    if not offered:
        raise Full(f"{limit:,} batches of events wait to be counted.")


# All or none, and never beyond the limit: trimming would lose what was accepted.
_OFFER = """
if redis.call('XLEN', KEYS[1]) + #ARGV - 2 > tonumber(ARGV[1]) then return 0 end
for part = 3, #ARGV do redis.call('XADD', KEYS[1], '*', ARGV[2], ARGV[part]) end
return 1
"""


class Consumer:
    """One member of the group. `step` may be killed at any line."""

    def __init__(self, name: str, client: Redis | None = None) -> None:
        self.name = name
        self._valkey = client or waiting_client()
        self._claim_due = 0.0

    def step(self, *, wait_seconds: float = 1) -> int:
        """Count what others left and what is new; returns how many events were counted.

        Waits up to `wait_seconds` where there is nothing. Raises RedisError, django.db.Error; then
        nothing is lost, and the next step goes on.
        """
        with connection.cursor() as cursor:  # where it is away nothing is read, and none delivered
            cursor.execute("SELECT 1")
        try:
            entries = self._left() or self._new(wait_seconds)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            make_group(self._valkey)
            return 0
        if not entries:
            return 0
        counted = _count_carefully(entries)
        ids = [entry.id for entry in entries]
        with self._valkey.pipeline(transaction=True) as pipeline:
            pipeline.xack(key(), GROUP, *ids)
            pipeline.xdel(key(), *ids)
            pipeline.execute()
        return counted

    def close(self) -> None:
        """Let go of the connection."""
        self._valkey.close()

    def _new(self, wait_seconds: float) -> list[Entry]:
        read = self._valkey.xreadgroup(
            GROUP,
            self.name,
            {key(): ">"},
            count=ENTRIES_AT_ONCE,
            block=max(1, round(min(wait_seconds, SOCKET_SECONDS / 2) * 1000)),
        )
        return [_entry(one) for _, found in read for one in found]

    def _left(self) -> list[Entry]:
        """What another member, or this one before an error, read and did not settle."""
        if time.monotonic() < self._claim_due:
            return []
        _, found, *_ = self._valkey.xautoclaim(
            key(), GROUP, self.name, round(IDLE_SECONDS * 1000), "0-0", count=ENTRIES_AT_ONCE
        )
        if not found:
            self._claim_due = time.monotonic() + IDLE_SECONDS / 3
            self._forget_gone()
            return []
        tally.add("counter_redelivered_total", len(found))
        logger.warning("%d entries of the stream were left by a worker: counted now", len(found))
        first, last = found[0][0], found[-1][0]
        pending = self._valkey.xpending_range(key(), GROUP, first, last, len(found), self.name)
        times = {one["message_id"]: one["times_delivered"] for one in pending}
        return [_entry(one, times.get(one[0], 2)) for one in found]

    def _forget_gone(self) -> None:
        for member in self._valkey.xinfo_consumers(key(), GROUP):
            if not member["pending"] and member["idle"] > GONE_SECONDS * 1000:
                self._valkey.xgroup_delconsumer(key(), GROUP, member["name"])


def _count_carefully(entries: list[Entry]) -> int:
    """Count entries; where that fails, one by one, and bury the one that is to blame."""
    try:
        return count(entries)
    except AWAY:
        raise  # none of them is to blame
    except Exception:
        logger.exception("entries of the stream are counted one by one after an error")
    counted = 0
    for entry in entries:
        try:
            counted += count([entry])
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever it is, staff read it there
            text = (entry.payload or b"").decode("utf-8", "replace")
            with transaction.atomic():
                _bury([(entry, text, f"{type(error).__name__}: {error}")])
                tally.add("counter_consumer_errors_total", 1)
    return counted


def make_group(client: Redis) -> None:
    """Make the stream and its group, from its beginning, where Valkey has none."""
    try:
        client.xgroup_create(key(), GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def count(entries: Iterable[Entry]) -> int:
    """Count entries, or bury them, in one transaction; returns how many events were counted."""
    events: list[Event] = []
    dead: list[tuple[Entry, str, str]] = []
    for entry in entries:
        for payload, reason in _read(entry, events):
            dead.append((entry, payload, reason))
    _make_days(events)
    with transaction.atomic():
        counted, known = apply_events(events)
        _bury(dead)
        tally.add_all(
            Count("counter_events_total", {"outcome": outcome}, number)
            for outcome, number in (("counted", counted), ("repeated", known), ("dead", len(dead)))
        )
    return counted


def retry_dead(*, ids: Iterable[int], budget_seconds: float = RETRY_SECONDS) -> tuple[int, int]:
    """Count dead letters again; returns (how many went, how many are as dead as before).

    For staff, after whatever was wrong is mended. Each letter is deleted in the transaction in
    which it is counted; what the budget leaves waits for the next time.
    """
    deadline = time.monotonic() + budget_seconds
    gone = kept = 0
    for letter_id in ids:
        if time.monotonic() > deadline:
            break
        letter = DeadLetter.objects.filter(pk=letter_id).first()
        if letter is None:
            continue
        events: list[Event] = []
        reasons = _read(Entry(letter.entry, letter.payload.encode()), events)
        if reasons:
            DeadLetter.objects.filter(pk=letter_id).update(
                attempts=letter.attempts + 1, reason=reasons[0][1]
            )
            kept += 1
            continue
        _make_days(events)
        with transaction.atomic():
            if not DeadLetter.objects.filter(pk=letter_id).delete()[0]:
                continue  # somebody else has retried it
            counted, known = apply_events(events)
            gone += 1
            tally.add_all(
                Count("counter_events_total", {"outcome": outcome}, number)
                for outcome, number in (("counted", counted), ("repeated", known))
            )
    return gone, kept


def lag() -> dict[str, float] | None:
    """`entries` that wait or are at work, and `seconds` since the oldest came; None: no Valkey."""

    def look() -> dict[str, float]:
        client = valkey.client()
        length = client.xlen(key())
        oldest = client.xrange(key(), count=1) if length else []
        seconds = time.time() - int(oldest[0][0].split(b"-")[0]) / 1000 if oldest else 0.0
        return {"entries": length, "seconds": max(0.0, seconds)}

    return valkey.attempt(look, None)


def _make_days(events: list[Event]) -> None:
    """Make the partitions that remember these events. Must run outside the transaction."""
    if events:
        days = [date.fromisoformat(event.day) for event in events]
        partitions.ensure("counter_events", min(days), max(days))


def _entry(found: tuple[bytes, dict | None], deliveries: int = 1) -> Entry:
    name, fields = found
    return Entry(name.decode(), (fields or {}).get(FIELD), deliveries)


def _read(entry: Entry, events: list[Event]) -> list[tuple[str, str]]:
    """Adds what an entry says to `events`; returns what it says wrong: (payload, reason)."""
    if entry.payload is None:
        return [("", "The entry has no field `events`, or was deleted.")]
    text = entry.payload.decode("utf-8", "replace")
    if entry.deliveries > MAX_DELIVERIES:
        return [(text, f"Delivered {entry.deliveries} times, and never settled.")]
    try:
        rows = orjson.loads(entry.payload)
    except orjson.JSONDecodeError as error:
        return [(text, f"Is no JSON: {error}")]
    if not isinstance(rows, list):
        return [(text, "Is no list of events.")]
    wrong, types = [], declared.events()
    for row in rows:
        try:
            events.append(_event(row, types))
        except ValueError as error:
            wrong.append((orjson.dumps([row]).decode(), str(error)))
    return wrong


def _event(row: object, types: Collection[str]) -> Event:
    """Raises ValueError that says what is wrong."""
    if not isinstance(row, list) or len(row) != 4:
        raise ValueError("Is not [event_id, day, type, target].")
    event_id, day, kind, target = row
    if type(target) is not int or not 0 < target <= MAX_ID:
        raise ValueError("The target is not the id of a row.")
    if not isinstance(kind, str) or kind not in types:
        raise ValueError(f"Nothing counts events of the type {kind!r}.")
    if not isinstance(day, str) or not _DAY.match(day):
        raise ValueError("The day is not YYYY-MM-DD.")
    today = datetime.now(UTC).date()
    if not today - 2 * PAST <= date.fromisoformat(day) <= today + PAST:
        raise ValueError("The day is not one of those whose events are known still.")
    try:
        return Event(str(UUID(event_id)), day, kind, target)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError("The event id is not a UUID.") from error


def _bury(dead: list[tuple[Entry, str, str]]) -> None:
    if not dead:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            queries("counters")["bury"],
            {
                "entries": [entry.id for entry, _, _ in dead],
                "payloads": [storable(payload, PAYLOAD_LENGTH) for _, payload, _ in dead],
                "reasons": [storable(reason, REASON_LENGTH) for *_, reason in dead],
                "attempts": [entry.deliveries for entry, _, _ in dead],
            },
        )
