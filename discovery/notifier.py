"""The notifier: tells people of drops that fit their watches.

The unit is a watch. Of one watch one message is under way at a time; it lists what is open still,
up to DROPS_PER_MESSAGE. Quiet hours, the cooldown and the cap per hour postpone what is due, and
what has closed meanwhile is not told.

Each step commits by itself. The attempt is counted and the message named before it is sent, under a
lease; what a dead notifier had comes back when the lease ends, and is sent again under the same
name. So delivery is at least once, and the receiver can tell.
"""

import logging
import random
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from time import monotonic
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from config import loops, tally
from config.outages import insist
from config.sqlfiles import Statements
from config.tally import Count
from discovery import channels, messages
from discovery.channels import SendFailed
from discovery.models import Watch
from discovery.polls import zone_of

_sql = Statements("discovery")

logger = logging.getLogger("spyglass.discovery")

NOTIFIER = "discovery notifier"  # the Heartbeat row
POLL_SECONDS = 2
RESCUE_SECONDS = 5
DROPS_PER_MESSAGE = 50
MAX_ATTEMPTS = 5
BACKOFF = tuple(timedelta(seconds=seconds) for seconds in (30, 120, 600, 3600))
JITTER = 0.2  # up to so much more or less of a pause
LOOKED_AT = 1_000  # rows that are due, to find a watch among
SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

_DIED = "The notifier ended while it sent this: it may have arrived."
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Claim:
    """What this process tells with one message, under a lease of its own."""

    watch: dict[str, Any]
    message_id: uuid.UUID
    attempts: int
    lease: str
    drops: list[dict[str, Any]]


def work(stop: threading.Event) -> None:
    """Send what is due, DISCOVERY_SENDERS messages at once, until `stop` is set and they ended."""
    senders = [
        threading.Thread(
            target=loops.repeat,
            args=(stop, deliver_next),
            kwargs={"rest": POLL_SECONDS, "logger": logger},
            name=f"sender {number}",
            daemon=True,
        )
        for number in range(max(1, settings.DISCOVERY_SENDERS))
    ]
    for sender in senders:
        sender.start()
    beat = loops.beat(NOTIFIER)

    def look() -> None:
        beat()
        rescue()

    loops.repeat(stop, look, rest=RESCUE_SECONDS, logger=logger)
    deadline = monotonic() + channels.longest()
    for sender in senders:
        sender.join(max(0, deadline - monotonic()))


def deliver_next() -> bool:
    """Tell what one watch has to tell, or postpone it; False where nothing is due.

    Must be called outside a transaction: an attempt counts from its start.
    """
    ended: list[str] = []
    with transaction.atomic(durable=True):
        found = _sql.dicts("due_watch", looked_at=LOOKED_AT)
        claim = _claim(found[0], ended) if found else None
        _tally(ended)
    if claim is not None:
        _deliver(claim)
    return bool(found) or bool(_sql.count("forget_orphans", looked_at=LOOKED_AT))


def rescue() -> int:
    """Take back what notifiers did not end in time; returns how many rows."""
    with transaction.atomic():
        states = _sql.dicts("rescue_messages", most=MAX_ATTEMPTS, error=_DIED, limit=LOOKED_AT)
        _tally(state["state"] for state in states)
    if states:
        logger.warning("%d notifications of a notifier that ended are tried again", len(states))
    return len(states)


def retry_notifications(*, ids: Iterable[int]) -> int:
    """Try again what was given up, from the first attempt on; how many of them. For staff.

    What has closed meanwhile is marked as gone then, not sent; what lost its watch stays.
    """
    with transaction.atomic():
        retried = _sql.count("retry_dead", ids=list(ids))
        tally.add("discovery_notifications_total", retried, state="retried")
    return retried


def is_alive() -> bool:
    """Whether a notifier gave a sign of life lately."""
    return loops.is_alive(NOTIFIER)


def not_before(
    watch: dict[str, Any], now: datetime, full_since: datetime | None = None
) -> datetime:
    """The first moment from `now` on at which a watch may be told of something.

    `full_since`: when the message was sent that leaves the hour first, where the hour is full.
    """
    moment = now
    if watch["last_told_at"] is not None:
        cooldown = timedelta(seconds=watch["cooldown_seconds"])
        moment = max(moment, watch["last_told_at"] + cooldown)
    if full_since is not None:
        moment = max(moment, full_since + _HOUR)
    if watch["quiet_from"] is not None:
        zone = zone_of(watch["timezone"])
        moment = quiet_until(moment, zone, watch["quiet_from"], watch["quiet_to"]) or moment
    return moment


def quiet_until(moment: datetime, zone: ZoneInfo, begins: time, ends: time) -> datetime | None:
    """When the quiet hours end that `moment` lies in; None where it lies in none.

    They are hours of the clock on the wall, and may span midnight. Where the clock is put forward
    or back during one of the two times, the quiet lasts longer, not shorter.
    """
    today = moment.astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        first = min(_readings(datetime.combine(day, begins), zone))
        last_day = day if ends > begins else day + timedelta(days=1)
        last = max(_readings(datetime.combine(last_day, ends), zone))
        if first <= moment < last:
            return last
    return None


def backoff(attempts: int, retry_after: float | None = None) -> timedelta:
    """The pause after so many attempts, one at least; longer where the receiver asks for it."""
    pause = BACKOFF[min(attempts, len(BACKOFF)) - 1]
    pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 -- no secret
    return max(pause, timedelta(seconds=retry_after or 0))


def _readings(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """The moments at which the clock shows this: two where it is put back, and around a gap."""
    return [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]


def _claim(watch: dict[str, Any], ended: list[str]) -> Claim | None:
    """What the locked watch tells now; None where that is nothing, or must wait.

    The states of notifications that end here are added to `ended`.
    """
    watch_id = watch["id"]
    if not watch["is_active"]:
        _sql.count("forget_pending", watch=watch_id)
        return None
    ended += ["gone"] * _sql.count("mark_gone", watch=watch_id)
    if watch["channel"] == Watch.Channel.NONE:
        settled = _sql.count("settle_notifications", watch=watch_id, at=timezone.now())
        ended += ["sent"] * settled
        return None
    [load] = _sql.dicts("watch_load", watch=watch_id, most=watch["max_per_hour"])
    now = timezone.now()
    moment = not_before(watch, now, load["full_since"])
    if load["is_sending"]:
        moment = max(moment, now + timedelta(seconds=POLL_SECONDS))
    if moment > now:
        _sql.count("postpone_notifications", watch=watch_id, until=moment)
        return None
    lease = uuid.uuid4().hex
    rows = _sql.dicts(
        "claim_message",
        watch=watch_id,
        message=uuid.uuid4(),
        limit=DROPS_PER_MESSAGE,
        lease=lease,
        length=_lease_length(),
    )
    # The rest waits for this message to end, and for the cooldown that follows.
    later = now + timedelta(seconds=max(POLL_SECONDS, watch["cooldown_seconds"]))
    _sql.count("postpone_notifications", watch=watch_id, until=later)
    if not rows:
        return None
    return Claim(watch, rows[0]["message_id"], rows[0]["attempts"], lease, rows)


def _deliver(claim: Claim) -> None:
    watch = claim.watch
    try:
        channels.send(
            channel=watch["channel"],
            target=watch["target"],
            secret=watch["secret"],
            message=messages.of_drops(watch, str(claim.message_id), claim.drops),
        )
    except SendFailed as error:
        failed = error
    except Exception as error:
        logger.exception("message %s of watch %d", claim.message_id, watch["id"])
        failed = SendFailed(f"{type(error).__name__}: {error}", permanent=False)
    else:
        at = timezone.now()
        insist(lambda: _end(claim, at))  # where it fails, it is sent again when its lease ends
        return
    insist(lambda: _give_back(claim, failed))


def _end(claim: Claim, at: datetime) -> None:
    with transaction.atomic():
        [told] = _sql.dicts("end_message", watch=claim.watch["id"], lease=claim.lease, at=at)
        if told["count"]:
            waits = [(at - drop["opened_at"]).total_seconds() for drop in claim.drops]
            tally.add_all(_told(told["count"], waits))
    if not told["count"]:
        logger.warning("message %s was sent, but too late: its lease ended", claim.message_id)


def _give_back(claim: Claim, failed: SendFailed) -> None:
    with transaction.atomic():
        states = _sql.dicts(
            "give_message_back",
            watch=claim.watch["id"],
            lease=claim.lease,
            permanent=failed.permanent,
            most=MAX_ATTEMPTS,
            pause=backoff(claim.attempts, failed.retry_after),
            error=failed.reason,
        )
        _tally(state["state"] if state["state"] == "dead" else "failed" for state in states)
    state = states[0]["state"] if states else "lost"
    logger.info("message %s: %s It is %s.", claim.message_id, failed.reason, state)


def _lease_length() -> timedelta:
    """Longer than the longest attempt, with room for slow name servers and a busy machine."""
    return timedelta(seconds=max(60, channels.longest() * 2))


def _tally(states: Iterable[str]) -> None:
    """Count notifications by what became of them; the last statement of a transaction."""
    listed = list(states)
    tally.add_all(
        Count("discovery_notifications_total", {"state": state}, listed.count(state))
        for state in sorted(set(listed))
    )


def _told(count: int, waits: list[float]) -> list[Count]:
    """What counts a message that went out, and how long its drops waited for it (seconds)."""
    sums: dict[tuple[str, tuple], float] = {}
    for wait in waits:
        for one in tally.observed("discovery_delivery_seconds", wait, SECONDS):
            key = (one.name, tuple(one.labels.items()))
            sums[key] = sums.get(key, 0) + one.value
    return [
        Count("discovery_notifications_total", {"state": "sent"}, count),
        *(Count(name, dict(labels), value) for (name, labels), value in sums.items()),
    ]
