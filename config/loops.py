"""What daemons do again and again, although PostgreSQL or Valkey is away for a while."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import close_old_connections, connections
from redis.exceptions import RedisError

from config import runs
from config.logs import first_line
from config.outages import AWAY

BEAT_SECONDS = 15  # between two signs of life
ALIVE_SECONDS = 30 + BEAT_SECONDS
FAILED_SECONDS = 1.0  # until a step that failed is tried again


def repeat(
    stop: threading.Event,
    step: Callable[[], Any],
    *,
    rest: float | Callable[[], Any],
    logger: logging.Logger,
) -> None:
    """Call `step` until `stop` is set, whatever it raises; that is told to the domain's `logger`.

    Where it had nothing to do (what it returns is false), rest first: for so many seconds, or by
    calling `rest`. At the end this thread's connections are closed.
    """
    try:
        while not stop.is_set():
            try:
                close_old_connections()
                if not step():
                    rest() if callable(rest) else stop.wait(rest)
            except AWAY as error:
                logger.warning("cannot use the database: %s", first_line(error))
                connections.close_all()  # of this thread
                stop.wait(FAILED_SECONDS)
            except RedisError as error:
                logger.warning("cannot use Valkey: %s", first_line(error))
                stop.wait(FAILED_SECONDS)
            except Exception:
                logger.exception("the worker goes on after an error")
                stop.wait(FAILED_SECONDS)
    finally:
        connections.close_all()


def every(seconds: float, do: Callable[[], Any]) -> Callable[[], None]:
    """For a step: a function that calls `do` at first, and then when so much time has passed."""
    due = 0.0

    def look() -> None:
        nonlocal due
        if time.monotonic() >= due:
            do()
            due = time.monotonic() + seconds

    return look


def beat(name: str) -> Callable[[], None]:
    """For a step: gives a sign of life under this name, every 15 s."""
    return every(BEAT_SECONDS, lambda: runs.beat(name))


def is_alive(name: str) -> bool:
    """Whether something gave a sign of life by `beat` lately."""
    return runs.is_alive(name, within=ALIVE_SECONDS)
