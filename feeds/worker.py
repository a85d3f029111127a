"""A feed worker: delivers posts, builds and fills timelines, and indexes posts for the search.

It hears of new posts at once where it may listen, and looks for itself every second. Any number may
run, on any number of hosts.
"""

import logging
import threading
import time

from django.conf import settings

from config import loops
from config.listening import Ear
from feeds import fanout, indexing

logger = logging.getLogger("spyglass.feeds")

WORKER = "feed worker"  # the Heartbeat row
CHANNEL = "feeds"
POLL_SECONDS = 1
TURN_SECONDS = 5  # of one delivery, after which others have theirs


def work(stop: threading.Event) -> None:
    """Work until `stop` is set and the step at work is done.

    The index has a thread of its own: embedding must not hold up a delivery.
    """
    indexer = threading.Thread(target=_index_until, args=(stop,), name="index", daemon=True)
    indexer.start()
    beat = loops.beat(WORKER)
    with Ear(settings.FEEDS_LISTEN_URL, CHANNEL, WORKER) as ear:

        def step() -> int:
            beat()
            ear.forget()
            turn = time.monotonic() + TURN_SECONDS
            delivered = fanout.deliver_next(
                go_on=lambda: not stop.is_set() and time.monotonic() < turn
            )
            return delivered + fanout.build_timelines() + fanout.fill_follows()

        loops.repeat(stop, step, rest=lambda: ear.wait(POLL_SECONDS, stop), logger=logger)
    indexer.join(30)


def is_alive() -> bool:
    """Whether a feed worker gave a sign of life lately."""
    return loops.is_alive(WORKER)


def _index_until(stop: threading.Event) -> None:
    loops.repeat(stop, indexing.index_next, rest=POLL_SECONDS, logger=logger)
