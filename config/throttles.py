"""Request limits per address and per token, counted in Valkey.

A sliding window made of two fixed ones: the count of the previous window, weighted by how much
of it the window still covers, plus the count of this one. One atomic script per request, two
small keys per caller. Source: https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
Answers from the in-process cache (`caching.hot`) cost less than counting them and pass uncounted.
"""

import hashlib
import ipaddress
import math
import time
from dataclasses import dataclass

from django.conf import settings
from prometheus_client import Counter
from rest_framework.throttling import BaseThrottle

from config import valkey

THROTTLED = Counter("throttled_total", "Requests refused with 429.", ["scope"])
BYPASSED = Counter("throttle_bypassed_total", "Requests let through because Valkey was away.")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# KEYS: this window's counter, the previous one's. ARGV: limit, window ms, ms into the window.
# Returns the weighted count before this request; counts the request only when it is allowed.
_COUNT = """
local before = tonumber(redis.call('GET', KEYS[2]) or '0') * (ARGV[2] - ARGV[3]) / ARGV[2]
local used = before + tonumber(redis.call('GET', KEYS[1]) or '0')
if used < tonumber(ARGV[1]) then
  if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2]) end
end
return tostring(used)
"""


@dataclass(frozen=True)
class Usage:
    """Where a caller stands: `remaining` requests now, `reset` seconds until the window ends."""

    scope: str
    limit: int
    window: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        """RateLimit fields, draft-ietf-httpapi-ratelimit-headers-10."""
        return {
            "RateLimit-Policy": f'"{self.scope}";q={self.limit};w={self.window}',
            "RateLimit": f'"{self.scope}";r={self.remaining};t={self.reset}',
        }


def parse_rate(text: str) -> tuple[int, int] | None:
    """`600/min` → (600, 60): requests, seconds. Empty or `off` → None, no limit.

    Raises ValueError for anything else.
    """
    if text.strip().lower() in ("", "off", "none"):
        return None
    count, _, period = text.partition("/")
    seconds = _SECONDS.get(period.strip()[:1].lower())
    if seconds is None or not count.strip().isdecimal() or int(count) < 1:
        raise ValueError(f"{text!r} is not a rate; write for example 600/min, or off.")
    return int(count), seconds


def count(scope: str, caller: str, limit: int, window: int) -> float | None:
    """What `caller` has used of the window, and count one more where that is below `limit`.

    None while Valkey is away.
    """
    now = time.time()
    answer = valkey.attempt(
        lambda: valkey.script(_COUNT)(
            keys=_keys(scope, caller, window, now),
            args=[limit, window * 1000, int(now % window * 1000)],
        ),
        fallback=None,
    )
    return None if answer is None else float(answer)


def forget(scope: str, caller: str, window: int) -> bool:
    """Start `caller` from 0 again; False while Valkey is away."""
    keys = _keys(scope, caller, window, time.time())
    return valkey.attempt(lambda: valkey.client().delete(*keys) >= 0, fallback=False)


def _keys(scope: str, caller: str, window: int, now: float) -> list[str]:
    """The counters of the window at `now` and of the one before."""
    index = int(now // window)
    prefix = valkey.prefixed(f"throttle:{scope}:{caller}")
    return [f"{prefix}:{index}", f"{prefix}:{index - 1}"]


class SlidingThrottle(BaseThrottle):
    """Base of the throttles below; `scope` names a rate in DEFAULT_THROTTLE_RATES."""

    scope: str

    def caller(self, request) -> str | None:
        """Whom to count, or None where this throttle does not apply."""
        raise NotImplementedError

    def allow_request(self, request, view) -> bool:
        rates = settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"]
        rate = parse_rate(rates.get(self.scope, ""))
        caller = self.caller(request) if rate else None
        if caller is None:
            return True
        limit, window = rate
        used = self._count(caller, limit, window)
        if used is None:
            BYPASSED.inc()
            return True
        allowed = used < limit
        self.usage = Usage(
            scope=self.scope,
            limit=limit,
            window=window,
            remaining=max(0, math.floor(limit - used - 1)) if allowed else 0,
            reset=math.ceil(window - time.time() % window),
        )
        # The guard middleware copies this to the answer's headers.
        getattr(request, "_request", request).rate_usage = self.usage
        if not allowed:
            THROTTLED.labels(self.scope).inc()
        return allowed

    def wait(self) -> float:
        """Seconds until one more request fits, at most: the rest of this window."""
        return self.usage.reset

    def _count(self, caller: str, limit: int, window: int) -> float | None:
        return count(self.scope, caller, limit, window)


class AddressThrottle(SlidingThrottle):
    """Limits callers without a token by address; an IPv6 network /64 counts as one address.

    X-Forwarded-For is believed for as many proxies as NUM_PROXIES says, else not at all.
    """

    scope = "address"

    def caller(self, request) -> str | None:
        # `_auth` and not `auth`: authentication itself charges failed tokens here.
        if getattr(request, "_auth", None) is not None:
            return None
        return normalized_address(self.get_ident(request) or "")


class TokenThrottle(SlidingThrottle):
    """Limits callers with a token by that token."""

    scope = "token"

    def caller(self, request) -> str | None:
        return None if request.auth is None else request.auth.digest[:32]


def address_of(request) -> str:
    """The address that a request came from; X-Forwarded-For is believed as in AddressThrottle."""
    return (BaseThrottle().get_ident(request) or "")[:100]


def normalized_address(text: str) -> str:
    """A short safe key for an address: IPv4 as it is, IPv6 as its /64, anything else hashed."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)
