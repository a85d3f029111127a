"""Generations of read models: numbers that tell whether what was made from one still stands.

Each change of a read model raises its generation in the same transaction. A process learns them
from PostgreSQL (`ReadModelState`), every 2 s; Valkey only announces them sooner.
"""

import logging
import os
import re
import threading
import time

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from redis import Redis
from redis.exceptions import RedisError

from config import valkey

log = logging.getLogger("spyglass.generations")

POLL_SECONDS = 2.0  # how old a generation number may be
RETRY_SECONDS = 0.5  # until PostgreSQL is asked again after it did not answer
AGAIN_SECONDS = 1.0  # until a lost subscription is tried again

_ANNOUNCEMENT = re.compile(rb"([\x21-\x7e]{1,200}) (\d{1,18})")


class _Generations:
    """The read models' generations as this process knows them."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.joined: dict[tuple[str, ...], str] = {}
        self.fresh_until = 0.0
        self.away = False  # whether PostgreSQL did not answer the last poll
        self._polling = threading.Lock()
        self._changing = threading.Lock()
        self._pushes = 0
        self._listener: threading.Thread | None = None

    def push(self, model: str, generation: int) -> None:
        """Take an announced generation."""
        with self._changing:
            self._pushes += 1
            if generation > self.values.get(model, 0):
                self.values[model] = generation
                self.joined = {}

    def hear(self, announcement: bytes) -> None:
        """Take `name generation` as `announce` publishes it; skip anything else."""
        match = _ANNOUNCEMENT.fullmatch(announcement)
        if match:
            self.push(match[1].decode(), int(match[2]))

    def poll(self) -> None:
        """Read all generations from PostgreSQL; only the first reader of a process waits."""
        if not self._polling.acquire(blocking=not self.fresh_until):
            return
        try:
            now = time.monotonic()
            if now < self.fresh_until:
                return
            self._listen()
            pushes = self._pushes
            found = self._read()
            self.away = found is None
            if found is None:
                # From the end of the wait, or the next caller would wait as well.
                self.fresh_until = time.monotonic() + RETRY_SECONDS
            else:
                self._adopt(found, pushes)
                self.fresh_until = now + POLL_SECONDS
        finally:
            self._polling.release()

    def _adopt(self, found: dict[str, int], pushes: int) -> None:
        with self._changing:
            if pushes != self._pushes:
                # An announcement overtook the query; PostgreSQL's word alone could be older.
                found = {
                    name: max(found.get(name, 0), self.values.get(name, 0))
                    for name in found | self.values
                }
            if found != self.values:
                self.values, self.joined = found, {}

    @staticmethod
    def _read() -> dict[str, int] | None:
        from config.models import ReadModelState

        try:
            return dict(ReadModelState.objects.values_list("name", "generation"))
        except (DatabaseError, InterfaceError) as error:
            log.warning("Read-model generations are not readable: %s", error)
            return None

    def _listen(self) -> None:
        if self._listener is None or not self._listener.is_alive():
            self._listener = threading.Thread(
                target=_listen_forever, args=[self], name="generations", daemon=True
            )
            self._listener.start()


def _listen_forever(generations: _Generations) -> None:
    """Hand announcements to `generations` for as long as it is the process's current one."""
    while generations is known:
        try:
            _listen_once(generations)
        except (RedisError, OSError) as error:
            log.debug("Subscription to generations lost: %s", error)
            time.sleep(AGAIN_SECONDS)


def _listen_once(generations: _Generations) -> None:
    with (
        Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=5) as client,
        client.pubsub(ignore_subscribe_messages=True) as subscription,
    ):
        subscription.subscribe(valkey.prefixed("generations"))
        heard_at = time.monotonic()
        while generations is known:
            message = subscription.get_message(timeout=1)
            if message and message["type"] == "message":
                generations.hear(message["data"])
            elif time.monotonic() - heard_at > 10:
                subscription.ping()  # finds out about a peer that vanished without a word
                heard_at = time.monotonic()


def announce(model: str, generation: int) -> None:
    """Tell every process that `model` has a new generation. Call it after the commit."""
    known.push(model, generation)
    channel, text = valkey.prefixed("generations"), f"{model} {generation}"
    valkey.attempt(lambda: valkey.client().publish(channel, text), 0)


def of(models: tuple[str, ...]) -> str:
    """The generations of these read models, joined by dots: part of what a cached body is.

    Right at once where Valkey announces it, and never more than POLL_SECONDS old. Take it before
    you read the data that it shall describe.
    """
    current = known
    if time.monotonic() >= current.fresh_until:
        current.poll()
    joined = current.joined.get(models)
    if joined is None:
        table, values = current.joined, current.values
        joined = table[models] = ".".join(str(values.get(model, 0)) for model in models)
    return joined


known = _Generations()


def forget() -> None:
    """Drop what this process knows, as if it had just started."""
    global known  # noqa: PLW0603 - another object, so that the thread of the old one ends
    known = _Generations()


# A child has none of its parent's threads, and may have inherited a lock that one of them held.
os.register_at_fork(after_in_child=forget)
