"""What everybody may see of hot items, denormalised: a hash in Valkey, one JSON text an item.

The newest MATCHING_PUBLIC_ITEMS open items of each kind, for feeds that would else join and filter
per request (CQRS). PostgreSQL is the truth: the hash is built from it, and an item that the hash
lacks is read from there. Without Valkey all are. An item that changes is forgotten at once.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from django.conf import settings
from django.db import connection

from config import valkey
from config.rendering import dumps
from config.sqlfiles import queries
from matching import queries as reads

HASH = "items:public"
_FORGOTTEN = "items:public:changed"  # a sorted set: by when they were forgotten, Valkey's seconds
_FORGOTTEN_SECONDS = 600  # longer than a build takes: what changed meanwhile must not come back
_BUILD_SECONDS = 600  # until a half-built hash of a killed process goes
_BATCH = 500

# Puts a new hash in the place of the old one, without what was forgotten since its build began.
_SWAP = """
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PERSIST', KEYS[2])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], ARGV[1], '+inf')) do
    redis.call('HDEL', KEYS[2], id)
end
return redis.call('HLEN', KEYS[2])
"""
_FORGET = """
local now = redis.call('TIME')
local seconds = now[1] + now[2] / 1000000
for at = 2, #ARGV do
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('ZADD', KEYS[2], seconds, ARGV[at])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', seconds - ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
"""


def hot() -> list[int]:
    """The ids of the items that the projection holds, as of the last refresh of the view."""
    with connection.cursor() as cursor:
        cursor.execute(
            queries("matching")["newest_public_each"],
            {"kinds": settings.MATCHING_PUBLIC_KINDS, "limit": settings.MATCHING_PUBLIC_ITEMS},
        )
        return [item_id for (item_id,) in cursor.fetchall()]


def rebuild() -> int:
    """Build the hash anew out of PostgreSQL and put it in place; how many items it has."""
    building = valkey.prefixed(f"{HASH}:{uuid.uuid4().hex}")
    began = valkey.attempt(_now, None)
    built = 0
    ids = hot()
    for first in range(0, len(ids), _BATCH):
        found = reads.public_items(ids[first : first + _BATCH])
        if found:
            body = {item_id: dumps(item) for item_id, item in found.items()}
            valkey.attempt(lambda body=body: _fill(building, body), None)
            built += len(found)
    if not built:
        valkey.attempt(lambda: valkey.client().delete(valkey.prefixed(HASH)), None)
        return 0
    keys = [building, valkey.prefixed(HASH), valkey.prefixed(_FORGOTTEN)]
    if began is not None:
        valkey.attempt(lambda: valkey.script(_SWAP)(keys=keys, args=[began]), None)
    return built


def forget(item_ids: Iterable[int]) -> None:
    """Drop items that changed. Call it after the commit of the change."""
    ids = [str(item_id) for item_id in item_ids]
    if ids:
        valkey.attempt(lambda: _drop(ids), None)


def read(item_ids: Sequence[int]) -> list[dict[str, Any]]:
    """What everybody may see of the live ones of these items, in their order, as JSON has it."""
    if not item_ids:
        return []
    found = stored(item_ids)
    missing = [item_id for item_id in item_ids if item_id not in found]
    if missing:
        current = reads.public_items(missing)
        found |= {item_id: orjson.loads(dumps(item)) for item_id, item in current.items()}
    return [found[item_id] for item_id in item_ids if item_id in found]


def size() -> int | None:
    """How many items the hash has; None where Valkey does not answer."""
    return valkey.attempt(lambda: int(valkey.client().hlen(valkey.prefixed(HASH))), None)


def stored(item_ids: Sequence[int]) -> dict[int, Any]:
    """The items that the hash has among these, as they stand there."""
    texts = valkey.attempt(
        lambda: valkey.client().hmget(valkey.prefixed(HASH), list(item_ids)), [None] * len(item_ids)
    )
    pairs = zip(item_ids, texts, strict=True)
    return {item_id: orjson.loads(text) for item_id, text in pairs if text is not None}


def _fill(key: str, body: dict[int, bytes]) -> None:
    pipeline = valkey.client().pipeline(transaction=False)
    pipeline.hset(key, mapping=body)
    pipeline.expire(key, _BUILD_SECONDS)
    pipeline.execute()


def _drop(ids: list[str]) -> None:
    keys = [valkey.prefixed(HASH), valkey.prefixed(_FORGOTTEN)]
    for first in range(0, len(ids), _BATCH):
        valkey.script(_FORGET)(keys=keys, args=[_FORGOTTEN_SECONDS, *ids[first : first + _BATCH]])


def _now() -> float:
    seconds, microseconds = valkey.client().time()
    return seconds + microseconds / 1_000_000
