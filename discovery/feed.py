"""The feed: what pollers read, rendered once for all of them and kept in `feed_cache`.

Rebuilt after a poll that opened or closed something, and every minute, as time alone changes it.
Small: each segment is capped, and a drop is a few hundred bytes.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from config.rendering import dumps
from config.sqlfiles import queries
from discovery import queries as reads

FEED = "feed_cache"  # the read model


def segments() -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """Each segment with what is in it."""
    return {
        "just_opened": lambda: reads.just_opened(limit=settings.FEED_JUST_OPENED_LIMIT),
        "still_open": lambda: reads.still_open(limit=settings.FEED_STILL_OPEN_LIMIT),
        "board": lambda: reads.ranked_board(limit=settings.FEED_BOARD_LIMIT),
    }


def rendered(results: list[dict[str, Any]], sources: list[dict[str, Any]]) -> bytes:
    """A segment as clients get it: `as_of`, how each source is, and the results."""
    return dumps({"as_of": timezone.now(), "sources": sources, "results": results})


def rebuild() -> int:
    """Build every segment anew and raise the generation; returns how many items. Commits by itself.

    One process at a time, so that what was built later is also what stays.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(queries("discovery")["lock_feed"])
        sources, items = reads.freshness(), 0
        for segment, results in segments().items():
            found = results()
            items += len(found)
            cursor.execute(
                queries("discovery")["write_segment"],
                {
                    "segment": segment,
                    "payload": rendered(found, sources),
                    "items": len(found),
                },
            )
        cursor.execute(queries("discovery")["raise_generation"], {"name": FEED})
    return items
