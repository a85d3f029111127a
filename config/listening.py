"""Hearing at once that there is work, by PostgreSQL's NOTIFY, where a worker may listen.

A worker looks for itself every few seconds as well, so that it works where it cannot listen
(PgBouncer in transaction mode) or a message was lost.
"""

import logging
import threading
import time
from typing import Self

import psycopg
from psycopg import sql

logger = logging.getLogger("spyglass.worker")

AGAIN_SECONDS = 30  # until it tries to listen again
_TURN_SECONDS = 0.5  # only between turns can a signal end the wait


class Ear:
    """Listens to `channel` on a connection of its own to `url`; without one it only waits."""

    def __init__(self, url: str, channel: str, name: str) -> None:
        self._url, self._channel, self._name = url, channel, name
        self._line: psycopg.Connection | None = None
        self._again = 0.0  # monotonic: when to try after a failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error) -> None:
        self.close()

    def forget(self) -> None:
        """Let go of what was said until now: a look for work follows. Connects at first."""
        if self._line is None and self._url and time.monotonic() >= self._again:
            self._connect()
        self._hear(0)

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait until something new is said, or for so long, or until `stop` is set."""
        end = time.monotonic() + seconds
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            if self._line is None:
                stop.wait(left)
            elif self._hear(min(left, _TURN_SECONDS)):
                return

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _connect(self) -> None:
        self._again = time.monotonic() + AGAIN_SECONDS
        try:
            self._line = psycopg.connect(
                self._url, autocommit=True, application_name=self._name, connect_timeout=5
            )
            self._line.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        except psycopg.Error as error:
            logger.warning("%s cannot listen, so it polls: %s", self._name, error)
            self.close()

    def _hear(self, seconds: float) -> bool:
        if self._line is None:
            return False
        try:
            return bool(list(self._line.notifies(timeout=seconds, stop_after=1)))
        except psycopg.Error as error:
            logger.warning("%s cannot listen any more: %s", self._name, error)
            self.close()
            return False
