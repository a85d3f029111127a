"""Timelines: a page of what somebody follows, newest first, in three modes that agree.

`pull`: computed when read, from a window of candidates in the cache and what was posted since.
`push` and `hybrid`: kept in `user_feeds`; a page is what was delivered and what is not delivered
(by now, or ever), merged in one statement, so that there is no gap and no repetition. Below the
floor of what is kept it is computed. Somebody whose timeline is not kept is answered by computing,
and has one soon.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from django.conf import settings
from django.db import connection

from config import prepared, valkey
from config.sqlfiles import queries
from feeds import shown
from feeds.metrics import FEED_CACHE, FEED_READ_SECONDS
from feeds.models import Profile

NEWEST = (datetime(9999, 12, 30, tzinfo=UTC), 2**62)
BOTTOM = datetime(1, 1, 2, tzinfo=UTC)  # a floor with nothing below it
WINDOW = 200  # candidates in the cache
# How long after `created_at` was taken a post may commit and still be found beside a cached window;
# a transaction of the web cannot take longer.
COMMIT_SECONDS = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Position = tuple[datetime, int]


@dataclass(frozen=True)
class Page:
    """Posts as the viewer sees them; `after`: where the next page begins, None at the end.

    `how`: kept, computed or cached.
    """

    posts: list[dict[str, Any]]
    after: Position | None
    how: str


def read(*, viewer: Profile, limit: int, after: Position | None = None) -> Page:
    """A page of the viewer's timeline: three statements, a fourth below the floor.

    Somebody whose timeline is not kept yet costs two more, which have it kept.
    """
    started = time.perf_counter()
    rows, how = positions(viewer=viewer, limit=limit + 1, after=after)
    page = rows[:limit]
    posts = shown.posts([post_id for post_id, _ in page], viewer.pk)
    last = (page[-1][1], page[-1][0]) if len(rows) > limit else None
    FEED_READ_SECONDS.labels(how).observe(time.perf_counter() - started)
    return Page(posts, last, how)


def positions(
    *, viewer: Profile, limit: int, after: Position | None = None
) -> tuple[list[tuple[int, datetime]], str]:
    """(id, created_at) of a page, newest first, and how they were found."""
    asked = {"me": viewer.pk, "limit": limit}
    asked["at"], asked["id"] = after or NEWEST
    if settings.FEEDS_MODE == "pull":
        return _cached(viewer, asked) or (_computed(asked), "computed")
    rows = prepared.fetch(queries("feeds")["kept_page"], asked)
    floor = rows[0][:2]
    if floor[0] is None:
        _open(viewer)
        return _computed(asked), "computed"
    _visit(viewer)
    found = [(post_id, at) for _, _, post_id, at in rows if post_id is not None]
    if len(found) < limit and floor[0] > BOTTOM:
        below = dict(asked, limit=limit - len(found))
        below["at"], below["id"] = min((asked["at"], asked["id"]), floor)
        found += _computed(below)
    return found, "kept"


def _computed(asked: dict[str, Any]) -> list[tuple[int, datetime]]:
    return prepared.fetch(queries("feeds")["computed_page"], asked)


def _cached(
    viewer: Profile, asked: dict[str, Any]
) -> tuple[list[tuple[int, datetime]], str] | None:
    """A page out of the window in the cache; None where it does not reach so far.

    The window holds what may be there; whether it is, and what came since, is asked each time.
    """
    key = valkey.prefixed(f"feeds:window:{viewer.pk}:{viewer.timeline_version}")
    data = valkey.attempt(lambda: valkey.client().get(key), None)
    FEED_CACHE.labels("miss" if data is None else "hit").inc()
    how = "computed" if data is None else "cached"
    if data is None:
        if asked["at"] != NEWEST[0]:
            return None  # somebody turns pages: what they need lies deeper
        window = _window(viewer)
        lifetime = settings.FEEDS_CACHE_SECONDS
        if lifetime > 0:
            packed = orjson.dumps(window)
            valkey.attempt(lambda: valkey.client().set(key, packed, ex=lifetime), None)
    else:
        window = orjson.loads(data)
    ids: Sequence[int] = window["ids"]
    rows = prepared.fetch(
        queries("feeds")["page_of_candidates"],
        asked
        | {
            "ids": prepared.array(ids),
            "since": datetime.fromtimestamp(window["built_at"], UTC)
            - timedelta(seconds=COMMIT_SECONDS),
        },
    )
    if len(ids) >= WINDOW:
        end = (_EPOCH + timedelta(microseconds=window["end"][0]), window["end"][1])
        # What is older than the window may have rows between those that were found.
        rows = [row for row in rows if (row[1], row[0]) >= end]
        if len(rows) < asked["limit"]:
            return None
    return rows, how


def _window(viewer: Profile) -> dict[str, Any]:
    built_at = time.time()
    rows = prepared.fetch(
        queries("feeds")["window_of_candidates"], {"me": viewer.pk, "limit": WINDOW}
    )
    end = [(rows[-1][1] - _EPOCH) // timedelta(microseconds=1), rows[-1][0]] if rows else [0, 0]
    return {"built_at": built_at, "ids": [post_id for post_id, _ in rows], "end": end}


def _open(viewer: Profile) -> None:
    """Have the timeline kept from now on; a feed worker builds it."""
    with connection.cursor() as cursor:
        cursor.execute(queries("feeds")["open_timeline"], {"me": viewer.pk})
        if cursor.rowcount:
            cursor.execute("NOTIFY feeds")


def _visit(viewer: Profile) -> None:
    """Remember that somebody reads, once in ten minutes; in between, no statement is sent."""
    now = time.monotonic()
    if now < _visited.get(viewer.pk, 0):
        return
    if len(_visited) > 100_000:
        _visited.clear()
    _visited[viewer.pk] = now + 600
    with connection.cursor() as cursor:
        cursor.execute(queries("feeds")["visit"], {"me": viewer.pk})


_visited: dict[int, float] = {}  # of this process: until when nothing is to be remembered
