"""A counter worker: counts the events of the stream, and folds what waits, every second.

Any number of them may run, on any number of hosts.
"""

import logging
import os
import socket
import threading
import uuid

from django.conf import settings

from config import loops
from counters import actions
from counters.stream import Consumer

logger = logging.getLogger("spyglass.counters")

WORKER = "counter worker"  # the Heartbeat row
FOLD_BUDGET_SECONDS = 5


def work(stop: threading.Event) -> None:
    """Count and fold until `stop` is set and what is at work is done.

    Folds in a thread of its own, so that neither a full stream nor a Valkey that is away keeps
    the counts from being folded.
    """
    folder = threading.Thread(target=_fold_until, args=(stop,), name="fold", daemon=True)
    folder.start()
    consumer = Consumer(f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        # It waits for entries by itself.
        loops.repeat(stop, consumer.step, rest=0, logger=logger)
    finally:
        consumer.close()
        folder.join(FOLD_BUDGET_SECONDS * 2)


def is_alive() -> bool:
    """Whether a counter worker gave a sign of life lately."""
    return loops.is_alive(WORKER)


def _fold_until(stop: threading.Event) -> None:
    beat = loops.beat(WORKER)

    def step() -> None:
        beat()
        actions.fold(budget_seconds=FOLD_BUDGET_SECONDS)

    loops.repeat(stop, step, rest=settings.COUNTERS_FOLD_SECONDS, logger=logger)
