"""Delivery: posts into the timelines of those who follow, and timelines that are built or filled.

Each step is a transaction that may be repeated: what was delivered is delivered again without
effect, and until a step is committed, readers look up what it would bring.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from config import tally
from config.sqlfiles import Statements, queries
from config.tally import Count
from config.text import storable

_sql = Statements("feeds")

logger = logging.getLogger("spyglass.feeds")

CHUNK_FOLLOWERS = 5_000  # of one transaction
LATELY = timedelta(hours=24)  # who read since gets a post before the others
VISIT_TAKES = timedelta(minutes=1)  # longer than a statement of the web may last
LEASE = timedelta(seconds=30)  # of a delivery, prolonged with each chunk
LONGEST_PAUSE_SECONDS = 600  # between attempts that fail
TRIM_EVERY = 100  # deliveries to one person
BUILDS_AT_ONCE = 20
FILLS_AT_ONCE = 100
IDLE_AT_ONCE = 200
ERROR_LENGTH = 500
SECONDS = (0.05, 0.1, 0.2, 0.4, 1, 2, 5, 10, 30, 60, 300, 1800)


@dataclass
class Delivery:
    """A post on its way, claimed for as long as LEASE."""

    post_id: int
    author_id: int
    created_at: datetime
    queued_at: datetime
    tier: int
    after_id: int
    delivered: int
    attempts: int


def deliver_next(*, rows: int = CHUNK_FOLLOWERS, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Deliver one post to all who follow; False where none is due.

    Those who read lately come first. `go_on` is asked after every chunk. Must run outside a
    transaction. What raises is counted, and tried again after a pause that grows.
    """
    with transaction.atomic(durable=True):
        found = _sql.row("claim_fanout", lease=LEASE)
    if found is None:
        return False
    one = Delivery(*found)
    try:
        while _deliver_chunk(one, rows):
            if not go_on():
                with transaction.atomic():
                    _sql.count("fanout_released", post=one.post_id)
                break
    except Exception as error:
        logger.exception("the delivery of post %d, attempt %d", one.post_id, one.attempts)
        pause = timedelta(seconds=min(LONGEST_PAUSE_SECONDS, 2**one.attempts))
        with transaction.atomic():
            text = storable(f"{type(error).__name__}: {error}", ERROR_LENGTH)
            _sql.count("fanout_failed", post=one.post_id, pause=pause, error=text)
            tally.add("feed_deliveries_failed_total", 1)
    return True


def _deliver_chunk(one: Delivery, rows: int) -> bool:
    """Deliver to the next followers; False after the last of them."""
    with transaction.atomic(durable=True):
        looked_at, last, put = _sql.row(
            "deliver",
            author=one.author_id,
            after=one.after_id,
            tier=one.tier,
            lately=one.queued_at - LATELY,
            # A visit takes its time at its start, and commits later.
            queued_at=one.queued_at - VISIT_TAKES,
            rows=rows,
            post=one.post_id,
            created_at=one.created_at,
        )
        if looked_at:
            _trim_some(one, last)
        if looked_at == rows:
            one.after_id = last
        elif one.tier == 0:
            one.tier, one.after_id = 1, 0
        else:
            return _finish(one, put)
        moved = _sql.count(
            "fanout_moved",
            post=one.post_id,
            tier=one.tier,
            after=one.after_id,
            delivered=put,
            lease=LEASE,
        )
        tally.add("feed_delivered_total", put)
    return bool(moved)  # else the post was deleted, or is delivered


def _finish(one: Delivery, put: int) -> bool:
    gone = _sql.row("fanout_done", post=one.post_id)
    lag = (timezone.now() - one.queued_at).total_seconds()
    if gone is not None:  # else another worker has finished it, or the post was deleted
        tally.add_all(
            [
                Count("feed_delivered_total", {}, put),
                Count("feed_fanouts_total", {}, 1),
                *tally.observed("feed_fanout_lag_seconds", max(0.0, lag), SECONDS),
            ]
        )
    return False


def _trim_some(one: Delivery, last: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            queries("feeds")["trim_candidates"],
            {
                "author": one.author_id,
                "after": one.after_id,
                "until": last,
                "post": one.post_id,
                "every": TRIM_EVERY,
            },
        )
        users = [user for (user,) in cursor.fetchall()]
    if users:
        trim(users)


def trim(users: list[int]) -> int:
    """Cut the timelines of these people to FEEDS_CAP posts; returns how many rows went."""
    return _sql.count("trim", users=users, cap=settings.FEEDS_CAP)


def build_timelines(limit: int = BUILDS_AT_ONCE, *, at_once: int = 1) -> int:
    """Build the timelines of people who have begun to read; returns how many.

    `at_once`: of one transaction.
    """
    built = 0
    while built < limit:
        with transaction.atomic(durable=True):
            people = _column("unbuilt_timelines", limit=min(at_once, limit - built))
            for person in people:
                _sql.count("build_timeline", me=person, cap=settings.FEEDS_CAP)
        if not people:
            break
        built += len(people)
    return built


def fill_follows(limit: int = FILLS_AT_ONCE) -> int:
    """Put what followees had posted before into kept timelines; returns how many follows."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(queries("feeds")["claim_fills"], {"limit": limit})
        claimed = cursor.fetchall()
        for follower, followee, is_kept in claimed:
            if is_kept:
                _sql.count("fill_follow", me=follower, author=followee, cap=settings.FEEDS_CAP)
    return len(claimed)


def drop_idle(*, go_on: Callable[[], bool] = lambda: True) -> int:
    """Drop the timelines of those who have not read for FEEDS_IDLE_DAYS; returns how many.

    Nothing is lost: whoever returns is answered by computing, and has a timeline built.
    """
    before = timezone.now() - timedelta(days=settings.FEEDS_IDLE_DAYS)
    dropped = 0
    while go_on():
        with transaction.atomic(durable=True):
            count = _sql.count("drop_idle", before=before, limit=IDLE_AT_ONCE)
        dropped += count
        if count < IDLE_AT_ONCE:
            break
    return dropped


def decide_delivery() -> int:
    """Decide anew, from what was measured, which authors are pulled; returns how many changed."""
    with transaction.atomic():
        return _sql.count(
            "decide_delivery",
            considered=settings.FEEDS_PULL_CONSIDERED,
            most=settings.FEEDS_PULL_FOLLOWERS,
        )


def drain(*, budget_seconds: float = 60) -> int:
    """Deliver, build and fill until nothing is due; returns how many steps. For jobs and tests."""
    deadline = time.monotonic() + budget_seconds
    steps = 0
    while time.monotonic() < deadline:
        done = int(deliver_next()) + build_timelines() + fill_follows()
        if not done:
            break
        steps += done
    return steps


def _column(name: str, **parameters: Any) -> list[Any]:
    return [value for (value,) in _sql.rows(name, **parameters)]
