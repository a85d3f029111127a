"""Cached answers: bytes in this process, over Valkey, over the read model.

What is cached carries the generation of the read models that it was built from, so that a
refresh invalidates it at once. Without Valkey everything answers, slower.
"""

import functools
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import OperationalError
from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags
from prometheus_client import Counter

from config import generations, valkey

CACHE_REQUESTS = Counter("cache_requests_total", "Lookups by outcome.", ["cache", "result"])

# The longest that this process serves its own copy. It is right for as long as the generation
# stands; this only bounds how far past its TTL an untouched one can get.
LOCAL_SECONDS = 30.0
LOCAL_BYTES = 32 * 1024 * 1024  # per process, for each of the two local stores
KEEP_STALE = 5  # an expired body can stand in for this many TTLs
BUILD_LOCK_SECONDS = 15  # > the statement timeout of a web process
WAIT_SECONDS = 1.0  # for somebody else's build, where no stale body exists

# Deletes a lock only while it is still ours.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"
_STORE_AND_RELEASE = "redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3]) " + _RELEASE


class _LocalStore:
    """Entries of this process, bounded in bytes; the oldest go first."""

    def __init__(self) -> None:
        self.entries: dict[Any, Any] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, key: Any, entry: Any) -> None:
        """Keep `entry` (which has a `size`), unless it is larger than an eighth of the store."""
        if entry.size > LOCAL_BYTES // 8:
            return
        with self._lock:
            old = self.entries.pop(key, None)
            self.entries[key] = entry
            self._bytes += entry.size - (old.size if old else 0)
            while self._bytes > LOCAL_BYTES:
                first = next(iter(self.entries))
                self._bytes -= self.entries.pop(first).size


@dataclass(frozen=True, slots=True)
class _Body:
    """A built body and what it was built from. `built_at`: Unix time, comparable between hosts."""

    generation: str
    built_at: float
    etag: str
    body: bytes
    taken_at: float = 0.0  # monotonic: when this process took it in

    @property
    def size(self) -> int:
        return len(self.body) + 500

    def is_fresh(self, generation: str, ttl: float) -> bool:
        return self.generation == generation and time.time() - self.built_at < ttl

    def can_stand_in(self, ttl: float) -> bool:
        return time.time() - self.built_at < ttl * KEEP_STALE

    def packed(self) -> bytes:
        return f"1 {self.generation} {self.built_at:.3f} {self.etag}\n".encode() + self.body

    @classmethod
    def unpacked(cls, data: bytes) -> "_Body | None":
        head, _, body = data.partition(b"\n")
        parts = head.decode("ascii", "replace").split(" ")
        if len(parts) != 4 or parts[0] != "1":
            return None  # written by another version of this code
        return cls(parts[1], float(parts[2]), parts[3], body, time.monotonic())


@dataclass(frozen=True, slots=True)
class Cached:
    """A body ready to send. `state`: hit, miss (just built) or stale (somebody builds anew)."""

    body: bytes
    etag: str
    state: str


class _Flights:
    """Builds that are under way in this process, so that only one thread does each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Event] = {}

    def join(self, key: str) -> tuple[bool, threading.Event]:
        """(whether the caller leads, the event that the leader sets when it is done)."""
        with self._lock:
            event = self._under_way.get(key)
            if event is not None:
                return False, event
            event = self._under_way[key] = threading.Event()
            return True, event

    def land(self, key: str) -> None:
        """The leader is done, whatever came of it."""
        with self._lock:
            self._under_way.pop(key).set()


def cached(
    key: str, *, name: str, ttl: int, models: tuple[str, ...], build: Callable[[], bytes]
) -> Cached:
    """The body under `key`, built by `build` when there is none that is fresh.

    Fresh: built less than `ttl` seconds ago from the current generations of `models`. One caller
    builds, over all processes; meanwhile the others get the last body (`stale`, up to 5 × `ttl`
    old), or wait for a second where there is none, and then build by themselves. `name` labels
    the metric. What `build` raises reaches the caller and nothing is stored.
    """
    found = _lookup(key, ttl, generations.of(models), build)
    CACHE_REQUESTS.labels(name, found.state).inc()
    return found


def _lookup(key, ttl, current, build) -> Cached:
    local = process.bodies.entries.get(key)
    if (
        local is not None
        and time.monotonic() - local.taken_at < LOCAL_SECONDS
        and local.is_fresh(current, ttl)
    ):
        return Cached(local.body, local.etag, "hit")
    stored = _fetch(key)
    if stored is not None and stored.is_fresh(current, ttl):
        process.bodies.put(key, stored)
        return Cached(stored.body, stored.etag, "hit")
    last = max(filter(None, [stored, local]), key=lambda body: body.built_at, default=None)
    if last is not None and not last.can_stand_in(ttl):
        last = None
    leads, landed = process.flights.join(key)
    if not leads:
        return _follow(key, ttl, current, last, landed, build)
    try:
        return _lead(key, ttl, current, last, build)
    finally:
        process.flights.land(key)


def _follow(key, ttl, current, last, landed, build) -> Cached:
    """Another thread of this process builds."""
    if last is not None:
        return Cached(last.body, last.etag, "stale")
    landed.wait(WAIT_SECONDS)
    local = process.bodies.entries.get(key)
    if local is not None and local.is_fresh(current, ttl):
        return Cached(local.body, local.etag, "hit")
    return _build(key, ttl, current, build)


def _lead(key, ttl, current, last, build) -> Cached:
    """This thread builds, unless another process does."""
    lock, token = valkey.prefixed(f"{key}:building"), uuid.uuid4().hex
    taken = valkey.attempt(
        lambda: bool(valkey.client().set(lock, token, nx=True, ex=BUILD_LOCK_SECONDS)), None
    )
    if taken is False:
        if last is not None:
            return Cached(last.body, last.etag, "stale")
        stored = _await(key, ttl, current)
        if stored is not None:
            return Cached(stored.body, stored.etag, "hit")
    try:
        return _build(key, ttl, current, build, held=(lock, token) if taken else None)
    except BaseException:
        if taken:
            valkey.attempt(lambda: valkey.script(_RELEASE)(keys=[lock], args=[token]), None)
        raise


def _await(key, ttl, current) -> _Body | None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.02)
        stored = _fetch(key)
        if stored is not None and stored.is_fresh(current, ttl):
            process.bodies.put(key, stored)
            return stored
    return None


def _build(key, ttl, current, build, held: tuple[str, str] | None = None) -> Cached:
    """Build and store. `held`: the lock (name, token) that goes in the same round trip.

    Raises OperationalError at once where PostgreSQL has just not answered: a request that waited
    for it in vain, or all of them one after the other, would only hold up those that need no more
    than the cache.
    """
    if generations.known.away:
        raise OperationalError("PostgreSQL did not answer a moment ago.")
    body = build()
    made = _Body(current, time.time(), etag_of(body), body, time.monotonic())
    process.bodies.put(key, made)
    lifetime = ttl * KEEP_STALE
    if held:
        lock, token = held
        keys, args = [lock, valkey.prefixed(key)], [token, made.packed(), lifetime]
        valkey.attempt(lambda: valkey.script(_STORE_AND_RELEASE)(keys=keys, args=args), None)
    else:
        name, packed = valkey.prefixed(key), made.packed()
        valkey.attempt(lambda: valkey.client().set(name, packed, ex=lifetime), False)
    return Cached(made.body, made.etag, "miss")


def _fetch(key: str) -> _Body | None:
    data = valkey.attempt(lambda: valkey.client().get(valkey.prefixed(key)), None)
    return None if data is None else _Body.unpacked(data)


def etag_of(body: bytes) -> str:
    """A strong validator of these bytes."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def respond(
    request,
    found: Cached,
    max_age: int,
    content_type: str = "application/json",
    *,
    for_all: bool = True,
) -> HttpResponse:
    """The HTTP answer for a cached body: 200, or 304 where If-None-Match knows it.

    `max_age`: seconds that clients may keep it; shared caches may too where reads are public,
    unless the answer is not `for_all`, but for those with a certain token.
    """
    scope = "public" if settings.API_PUBLIC_READS and for_all else "private"
    headers = {
        "ETag": found.etag,
        "Cache-Control": f"{scope}, max-age={max_age}",
        "X-Cache": found.state,
    }
    return conditional(request, found.body, found.etag, headers, content_type)


def conditional(
    request, body: bytes, etag: str, headers: dict[str, str], content_type: str
) -> HttpResponse:
    """200 with the body, or 304 where If-None-Match knows its `etag`; `headers` go with both."""
    known = request.META.get("HTTP_IF_NONE_MATCH")
    if known and request.method in ("GET", "HEAD") and _matches(etag, known):
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(body, content_type=content_type, headers=headers)


def _matches(etag: str, known: str) -> bool:
    # Weak comparison, as RFC 9110 wants it: a proxy that compresses weakens the validator.
    return any(known_tag in ("*", etag, f"W/{etag}") for known_tag in parse_etags(known))


@dataclass(slots=True)
class _HotEntry:
    generation: str
    expires: float
    body: bytes
    etag: str
    headers: dict[str, str]
    content_type: str
    size: int


def hot(name: str, ttl: int, models: tuple[str, ...]) -> Callable:
    """Decorate a view that answers with `respond`: repeated GETs skip it and DRF altogether.

    The raw path and query string look up bytes in this process, for at most LOCAL_SECONDS and only
    while the generations of `models` stand. Requests with a token, other methods, and everything
    where reads are not public take the normal way. Only 200 answers that are not stale are kept.
    """
    lifetime = min(float(ttl), LOCAL_SECONDS)
    hits = CACHE_REQUESTS.labels(name, "hit")

    def decorate(view):
        @functools.wraps(view)
        def quick(request, *args, **kwargs):
            meta = request.META
            if (
                request.method != "GET"
                or "HTTP_AUTHORIZATION" in meta
                or not settings.API_PUBLIC_READS
            ):
                return view(request, *args, **kwargs)
            key = (request.path_info, meta.get("QUERY_STRING", ""))
            current = generations.of(models)
            entry = process.hot.entries.get(key)
            if entry is not None and entry.generation == current:
                now = time.monotonic()
                if now < entry.expires:
                    hits.inc()
                    return conditional(
                        request, entry.body, entry.etag, entry.headers, entry.content_type
                    )
                # The first past the end renews the entry; the others need not pile up behind it.
                entry.expires = now + 0.1
            response = view(request, *args, **kwargs)
            _remember(key, response, current, lifetime)
            return response

        return quick

    return decorate


def _remember(key, response, current: str, lifetime: float) -> None:
    if response.status_code != 200 or response.get("X-Cache") not in ("hit", "miss"):
        return
    process.hot.put(
        key,
        _HotEntry(
            generation=current,
            expires=time.monotonic() + lifetime,
            body=response.content,
            etag=response["ETag"],
            headers={
                "ETag": response["ETag"],
                "Cache-Control": response["Cache-Control"],
                "X-Cache": "hit",
            },
            content_type=response["Content-Type"],
            size=len(response.content) + len(key[0]) + len(key[1]) + 1_000,
        ),
    )


class _Process:
    """What this process remembers."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.bodies = _LocalStore()
        self.hot = _LocalStore()
        self.flights = _Flights()


process = _Process()
# A child has none of its parent's threads, and may have inherited a lock that one of them held.
os.register_at_fork(after_in_child=process.forget)


def forget() -> None:
    """Drop everything that this process remembers, as if it had just started."""
    process.forget()
    generations.forget()
    valkey.breaker.reset()
