"""A feed worker: delivers posts, builds and fills timelines, and indexes posts for the search.

It hears of new posts at once where it may listen, and looks for itself every second. Any number may
run, on any number of hosts.
"""

import logging
import threading
import time
from collections.abc import Callable

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from config import runs
from config.listening import Ear
from feeds import fanout, indexing

logger = logging.getLogger("spyglass.feeds")

WORKER = "feed worker"  # the Heartbeat row
CHANNEL = "feeds"
BEAT_SECONDS = 15
POLL_SECONDS = 1
TURN_SECONDS = 5  # of one delivery, after which others have theirs


def work(stop: threading.Event) -> None:
    """Work until `stop` is set and the step at work is done.

    The index has a thread of its own: embedding must not hold up a delivery.
    """
    indexer = threading.Thread(target=_repeat, args=(stop, _index), name="index", daemon=True)
    indexer.start()
    beat_due = 0.0
    with Ear(settings.FEEDS_LISTEN_URL, CHANNEL, WORKER) as ear:

        def step() -> bool:
            nonlocal beat_due
            if time.monotonic() >= beat_due:
                runs.beat(WORKER)
                beat_due = time.monotonic() + BEAT_SECONDS
            ear.forget()
            turn = time.monotonic() + TURN_SECONDS
            delivered = fanout.deliver_next(
                go_on=lambda: not stop.is_set() and time.monotonic() < turn
            )
            return bool(delivered + fanout.build_timelines() + fanout.fill_follows())

        _repeat(stop, step, lambda: ear.wait(POLL_SECONDS, stop))
    indexer.join(30)


def is_alive() -> bool:
    """Whether a feed worker gave a sign of life lately."""
    return runs.is_alive(WORKER, within=30 + BEAT_SECONDS)


def _index() -> bool:
    return bool(indexing.index_next())


def _repeat(
    stop: threading.Event, step: Callable[[], bool], rest: Callable[[], None] | None = None
) -> None:
    """Call `step` until `stop` is set; where it had nothing to do or failed, rest first."""
    rest = rest or (lambda: stop.wait(POLL_SECONDS))
    try:
        while not stop.is_set():
            try:
                close_old_connections()
                if not step():
                    rest()
            except (OperationalError, InterfaceError) as error:
                logger.warning("cannot use the database: %s", str(error).partition("\n")[0])
                connections.close_all()  # of this thread
                stop.wait(1)
            except Exception:
                logger.exception("the feed worker goes on after an error")
                stop.wait(1)
    finally:
        connections.close_all()  # of this thread
