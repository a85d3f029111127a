"""Valkey: its client, and Django's cache on it, where an unreachable Valkey is no error."""

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache import cache
from django_redis import get_redis_connection
from django_redis.cache import RedisCache
from django_redis.exceptions import ConnectionInterrupted
from django_redis.serializers.json import JSONSerializer
from prometheus_client import Counter
from redis import Redis
from redis.exceptions import ConnectionError as ValkeyUnreachable
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as ValkeyTimeout

from config.breakers import Breaker

log = logging.getLogger("spyglass.valkey")
T = TypeVar("T")

CACHE_ERRORS = Counter("cache_errors_total", "Valkey operations that failed.")
BREAKER_SECONDS = 1.0  # for which it is left alone after it failed


breaker = Breaker("Valkey", seconds=BREAKER_SECONDS)


def attempt(operation: Callable[[], T], fallback: T) -> T:
    """What `operation` returns, or `fallback` while Valkey is away (a metric and a log line)."""
    if not breaker.allows():
        return fallback
    try:
        result = operation()
    except (RedisError, ConnectionInterrupted, OSError) as error:
        CACHE_ERRORS.inc()
        cause = error.__cause__ if isinstance(error, ConnectionInterrupted) else error
        if isinstance(cause, ValkeyUnreachable | ValkeyTimeout | OSError):
            breaker.failed(cause)
        else:
            log.error("Valkey refused a command: %s", cause)
        return fallback
    breaker.succeeded()
    return result


def client() -> Redis:
    """The client behind the default cache. Wrap what you do with it in `attempt`."""
    return get_redis_connection("default")


@functools.cache
def _registered(text: str) -> Any:
    return client().register_script(text)


def script(text: str) -> Callable[..., Any]:
    """A Lua script, called with `keys=[…], args=[…]`; its text is sent once per server."""
    registered = _registered(text)
    return lambda keys, args: registered(keys=keys, args=args, client=client())


def _guarded(name: str, fallback: Callable[[], Any]) -> Callable[..., Any]:
    original = getattr(RedisCache, name)

    @functools.wraps(original)
    def method(self, *args, **kwargs):
        return attempt(lambda: original(self, *args, **kwargs), fallback())

    return method


def _none() -> None:
    return None


class PlainSerializer(JSONSerializer):
    """JSON and not pickle: whoever writes to Valkey must not run code here.

    What cannot be read, as what earlier versions pickled, is None.
    """

    def loads(self, value: bytes) -> Any:
        try:
            return super().loads(value)
        except ValueError:
            return None


class ResilientCache(RedisCache):
    """Django's cache on Valkey, where an unreachable Valkey is a miss.

    Then `get` returns its default, `get_many` {}, `set`, `add`, `delete`, `touch` and `has_key`
    False, `incr`, `decr` and `ttl` None. What is not Django's cache interface raises as it does in
    django-redis.
    """

    set = _guarded("set", bool)
    add = _guarded("add", bool)
    delete = _guarded("delete", bool)
    touch = _guarded("touch", bool)
    has_key = _guarded("has_key", bool)
    get_many = _guarded("get_many", dict)
    set_many = _guarded("set_many", list)
    delete_many = _guarded("delete_many", int)
    incr = _guarded("incr", _none)
    decr = _guarded("decr", _none)
    clear = _guarded("clear", _none)
    ttl = _guarded("ttl", _none)
    expire = _guarded("expire", bool)

    def get(self, key, default=None, version=None, client=None):
        return attempt(
            lambda: super(ResilientCache, self).get(key, default, version, client), default
        )


def prefixed(key: str) -> str:
    """`key` as Django's cache would write it, so that `cache.clear` and patterns find it too."""
    return cache.make_key(key)


# A child may have inherited a lock that a thread of its parent held.
os.register_at_fork(after_in_child=breaker.reset)
