"""A counter worker: counts the events of the stream, and folds what waits, every second.

Any number of them may run, on any number of hosts.
"""

import logging
import os
import socket
import threading
import time
import uuid

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connections
from redis.exceptions import RedisError

from config import runs
from counters import actions
from counters.stream import Consumer

logger = logging.getLogger("spyglass.counters")

WORKER = "counter worker"  # the Heartbeat row
BEAT_SECONDS = 15
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
        while not stop.is_set():
            try:
                close_old_connections()
                consumer.step()
            except RedisError as error:
                logger.warning("cannot use Valkey: %s", error)
                stop.wait(1)
            except (OperationalError, InterfaceError) as error:
                _without_database(error, stop)
            except Exception:
                logger.exception("the counter worker goes on after an error")
                stop.wait(1)
    finally:
        consumer.close()
        folder.join(FOLD_BUDGET_SECONDS * 2)


def is_alive() -> bool:
    """Whether a counter worker gave a sign of life lately."""
    return runs.is_alive(WORKER, within=30 + BEAT_SECONDS)


def _fold_until(stop: threading.Event) -> None:
    beat_due = 0.0
    try:
        while not stop.is_set():
            try:
                close_old_connections()
                if time.monotonic() >= beat_due:
                    runs.beat(WORKER)
                    beat_due = time.monotonic() + BEAT_SECONDS
                actions.fold(budget_seconds=FOLD_BUDGET_SECONDS)
                stop.wait(settings.COUNTERS_FOLD_SECONDS)
            except (OperationalError, InterfaceError) as error:
                _without_database(error, stop)
            except Exception:
                logger.exception("the fold goes on after an error")
                stop.wait(1)
    finally:
        connections.close_all()  # of this thread


def _without_database(error: Exception, stop: threading.Event) -> None:
    logger.warning("cannot use the database: %s", str(error).partition("\n")[0])
    connections.close_all()
    stop.wait(1)
