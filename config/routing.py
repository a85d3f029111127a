"""Reads from a streaming standby, where REPLICA_URL names one.

A view whose class says `reads_replica = True` is answered out of the standby while that is within
REPLICA_MAX_LAG_SECONDS of the primary; all else goes to the primary. Who has written is answered
by the primary until the standby has replayed that write. Whatever goes wrong over there (it is
gone, it cancels a statement that stands in the way of its recovery, the view wants to write after
all), the request is done again on the primary: a GET may be.

For the time of the view, the thread's connection "default" is the standby's: ORM, cursors and
`config.prepared` follow without knowing.
"""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.db import Error, connections
from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric

from config import valkey
from config.sqlfiles import queries

log = logging.getLogger("spyglass.routing")

ALIAS = "replica"
SAMPLE_SECONDS = 1.0  # the lag is known to this
REMEMBER_SECONDS = 60  # how long a writer's position is kept; far longer than any lag allowed
_SAFE = ("GET", "HEAD")

READS = Counter("db_routed_reads_total", "Requests that a standby might answer.", ["alias"])
FALLBACKS = Counter(
    "db_replica_fallbacks_total", "Those that the primary answered instead.", ["reason"]
)


def is_on() -> bool:
    """Whether there is a standby to read from."""
    return ALIAS in connections.settings


class Standby:
    """How far behind the standby is, as this process sees it. Safe to use from several threads.

    The primary's position in the log is noted again and again. The lag is the age of the newest
    note that the standby has reached: right also while nothing is written, and where the standby
    has lost its primary without noticing. While this process cannot ask the primary either, the
    lag stays what it was: what the standby has is the best there is.
    """

    def __init__(self) -> None:
        self._sampling = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._notes: deque[tuple[float, int]] = deque(maxlen=600)
        self._sampled_at = -SAMPLE_SECONDS
        self._lag: float | None = None
        self.replayed = 0  # position in bytes

    @property
    def lag(self) -> float | None:
        """Seconds behind the primary; None where the standby cannot be used."""
        if time.monotonic() - self._sampled_at >= SAMPLE_SECONDS and self._sampling.acquire(
            blocking=False
        ):
            try:
                self._sample()
            finally:
                self._sampling.release()
        return self._lag

    def failed(self) -> None:
        """Use it no more until the next sample says that it is there."""
        self._lag = None
        self._sampled_at = time.monotonic()

    def _sample(self) -> None:
        self._sampled_at = time.monotonic()
        try:
            self._notes.append((time.monotonic(), _ask("default", "wal_position")))
            is_primary_there = True
        except Error as error:
            log.debug("The primary's position is not known: %s", error)
            is_primary_there = False
        try:
            self.replayed = _ask(ALIAS, "replayed_position")
        except Error as error:
            log.log(
                logging.WARNING if self._lag is not None else logging.INFO,
                "The standby cannot be used: %s",
                error,
            )
            self._lag = None
            return
        if is_primary_there or self._lag is None:
            self._lag = self._age_of_what_is_replayed()

    def _age_of_what_is_replayed(self) -> float | None:
        now = time.monotonic()
        if not self._notes:
            return None
        # Up to date with the newest note is a lag of nothing, for as long as notes are taken.
        newest_at, newest = self._notes[-1]
        if newest <= self.replayed:
            age = now - newest_at
            return 0.0 if age < SAMPLE_SECONDS else age
        reached = [at for at, position in self._notes if position <= self.replayed]
        return now - (reached[-1] if reached else self._notes[0][0])


standby = Standby()


def _ask(alias: str, name: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute(queries("config")[name])
        [position] = cursor.fetchone()
    if position is None:  # it is no standby (any more)
        raise Error("REPLICA_URL does not name a standby")
    return int(position)


class ReplicaMiddleware:
    """Sends the reads of some views to the standby, and notes who has written."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        if not is_on():
            raise MiddlewareNotUsed
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if request.method not in _SAFE and response.status_code < 500:
            _note_write(request)
        return response

    def process_view(self, request: HttpRequest, view: Callable, args, kwargs):
        """The standby's answer, or None: then the view runs on the primary."""
        chosen = getattr(view, "cls", None) or getattr(view, "view_class", None)
        if request.method not in _SAFE or not getattr(chosen, "reads_replica", False):
            return None
        reason = _reason_against(request)
        response = None if reason else _on_standby(view, request, args, kwargs)
        if response is None:
            FALLBACKS.labels(reason or "failed").inc()
            READS.labels("default").inc()
            return None
        READS.labels(ALIAS).inc()
        return response


def _reason_against(request: HttpRequest) -> str:
    """Why the primary must answer, or ""."""
    lag = standby.lag
    if lag is None:
        return "away"
    if lag > settings.REPLICA_MAX_LAG_SECONDS:
        return "lag"
    key = _key(request)
    if not key:
        return ""
    wrote = valkey.attempt(lambda: valkey.client().get(key) or b"0", None)
    if wrote is None:
        return "unknown writer"
    return "own write" if int(wrote) > standby.replayed else ""


def _on_standby(view: Callable, request: HttpRequest, args, kwargs) -> HttpResponse | None:
    try:
        with reading():
            response = view(request, *args, **kwargs)
            if not getattr(response, "is_rendered", True):
                response.render()
    except Error as error:
        log.info("Done again on the primary: %s", error)
        standby.failed()
        return None
    if response.status_code >= 500:
        standby.failed()
        return None
    return response


@contextmanager
def reading() -> Iterator[None]:
    """In this block, this thread's connection "default" is the standby's."""
    primary = connections["default"]
    connections["default"] = connections[ALIAS]
    try:
        yield
    finally:
        connections["default"] = primary


def _note_write(request: HttpRequest) -> None:
    """Keep how far the standby must have come before it may answer this caller."""
    key = _key(request)
    if not key:
        return
    try:
        position = _ask("default", "wal_position")
    except Error as error:
        log.warning("What was written is not noted: %s", error)
        return
    valkey.attempt(lambda: valkey.client().set(key, position, ex=REMEMBER_SECONDS), None)


def _key(request: HttpRequest) -> str:
    """Where a caller's last write is kept; "" for callers without a token, who cannot write."""
    token = request.headers.get("Authorization", "")
    if not token:
        return ""
    return valkey.prefixed(f"wrote:{hashlib.sha256(token.encode()).hexdigest()}")


def metrics() -> Iterable[Metric]:
    """How far behind the standby is; without one no samples."""
    lag = GaugeMetricFamily(
        "db_replica_lag_seconds", "How far the standby is behind; none where it is away."
    )
    up = GaugeMetricFamily("db_replica_up", "1 where the standby can be asked.")
    if is_on():
        if (seconds := standby.lag) is not None:
            lag.add_metric([], seconds)
        up.add_metric([], float(seconds is not None))
    return [lag, up]
