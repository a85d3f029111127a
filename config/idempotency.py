"""`Idempotency-Key`: a POST that is sent again has its effect once and gets the same answer.

The answer is stored in the transaction of the effect, so that either both exist or none.
Follows draft-ietf-httpapi-idempotency-key-header-07: 409 while the first request is at work, 422
where the key comes back with another request.
"""

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import Error, connection, transaction
from django.http import HttpResponse
from rest_framework.response import Response

from config import leases
from config.models import IdempotencyRecord
from config.problems import CONTENT_TYPE, Problem, invalid
from config.rendering import dumps
from config.sqlfiles import queries

log = logging.getLogger("spyglass.idempotency")

HEADER = "Idempotency-Key"
LIFETIME = timedelta(hours=24)
CLAIM_LIFETIME = timedelta(seconds=60)  # a request at work for longer counts as dead
_RELEASE_SECONDS = 0.5  # between two attempts, while PostgreSQL is away
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
_KEPT_HEADERS = ("Location", "Retry-After")


class Once:
    """One request under a key. Return `replay` where it is set; else do the work and `store`."""

    def __init__(self, record: dict[str, Any] | None, replay: HttpResponse | None) -> None:
        self._record = record
        self.replay = replay
        self.stored = False

    def store(self, response: HttpResponse) -> HttpResponse:
        """Keep `response` for replay; call it inside the transaction of the effect.

        Returns `response`. Raises a 409 Problem where another request took the claim over, so
        that the transaction rolls back. Without a key it does nothing.
        """
        if self._record is None:
            return response
        if not transaction.get_connection().in_atomic_block:
            raise RuntimeError("store() belongs into the transaction that has the effect.")
        body = dumps(response.data) if isinstance(response, Response) else response.content
        kept = {name: response[name] for name in _KEPT_HEADERS if name in response}
        updated = IdempotencyRecord.objects.filter(
            owner=self._record["owner"],
            endpoint=self._record["endpoint"],
            key=self._record["key"],
            claim=self._record["claim"],
            status=None,
        ).update(status=response.status_code, headers=kept, body=body)
        if not updated:
            raise _in_flight()
        self.stored = True
        return response

    def release(self) -> None:
        """Give the key back after a request without effect, so that it can be tried at once."""
        if self._record is not None:
            IdempotencyRecord.objects.filter(
                claim=self._record["claim"], key=self._record["key"], status=None
            ).delete()


@contextmanager
def idempotent(request, endpoint: str) -> Iterator[Once]:
    """Guard a write. Without the header everything runs as if this were not here.

    ::

        with idempotent(request, "snapshots") as once:
            if once.replay:
                return once.replay
            with transaction.atomic():
                …
                return once.store(Response(…))

    Enter it before anything reads `request.data`. Raises Problem: 400 for a bad key, 409 in
    flight, 422 for another request under the same key, 413 for a body over the limit. A request
    that raises, or stores nothing, frees its key.
    """
    key = request.headers.get(HEADER)
    if key is None:
        yield Once(None, None)
        return
    if not _KEY.match(key):
        raise invalid(**{HEADER: "Must be 1 to 255 visible ASCII characters."})
    record = {
        "owner": _owner(request),
        "endpoint": endpoint,
        "key": key,
        "request_hash": _request_hash(request),
        "claim": f"{leases.new_owner()} {os.getpid()}",
    }
    once = Once(record, None) if _claim(record) else Once(None, _replay(record))
    try:
        yield once
    except BaseException:
        # Also after store(): its transaction may have been rolled back since.
        _release_quietly(once)
        raise
    if not once.stored:
        once.release()


def _release_quietly(once: Once) -> None:
    """Release without hiding the error that is on its way; later where PostgreSQL is away now."""
    try:
        if not connection.needs_rollback:
            once.release()
            return
    except Error:
        log.warning("An idempotency key is not released yet", exc_info=True)
    threading.Thread(target=_release_later, args=[once], daemon=True).start()


def _release_later(once: Once) -> None:
    """Try until the claim would be dead anyway: whoever sends the request again waits for it."""
    deadline = time.monotonic() + CLAIM_LIFETIME.total_seconds()
    while time.monotonic() < deadline:
        time.sleep(_RELEASE_SECONDS)
        try:
            once.release()
            return
        except Error:
            log.debug("An idempotency key is still not released", exc_info=True)
        finally:
            connection.close()


def _owner(request) -> str:
    """The user, so that a renewed token still knows its requests; else the address."""
    if request.user is not None and request.user.is_authenticated:
        return f"user:{request.user.pk}"
    return f"address:{request.META.get('REMOTE_ADDR', '')}"


def _request_hash(request) -> str:
    inner = getattr(request, "_request", request)
    digest = hashlib.sha256()
    for part in (inner.method, inner.get_full_path(), inner.content_type or ""):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    digest.update(inner.body)
    return digest.hexdigest()


def _claim(record: dict[str, Any]) -> bool:
    """Take the key: new, expired, or left by a dead request with the same content.

    A request counts as dead after CLAIM_LIFETIME, and at once where its process is seen to be gone.
    """
    if _compare_and_set(record, dead_claim=None):
        return True
    held = _held(record)
    if held is None or held.status is not None or not _is_dead(held.claim):
        return False
    return _compare_and_set(record, dead_claim=held.claim)


def _compare_and_set(record: dict[str, Any], dead_claim: str | None) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            queries("config")["claim_idempotency_key"],
            {
                **record,
                "lifetime": LIFETIME,
                "claim_lifetime": CLAIM_LIFETIME,
                "dead_claim": dead_claim,
            },
        )
        return cursor.fetchone() is not None


def _is_dead(claim: str) -> bool:
    owner, _, pid = claim.rpartition(" ")
    return pid.isdecimal() and leases.is_dead(owner, int(pid))


def _held(record: dict[str, Any]) -> IdempotencyRecord | None:
    return IdempotencyRecord.objects.filter(
        owner=record["owner"], endpoint=record["endpoint"], key=record["key"]
    ).first()


def _replay(record: dict[str, Any]) -> HttpResponse:
    held = _held(record)
    if held is None:  # its request failed and freed it a moment ago
        raise _in_flight()
    if held.request_hash != record["request_hash"]:
        raise Problem(
            422, "Idempotency key reused", f"This {HEADER} was used with a different request."
        )
    if held.status is None:
        raise _in_flight()
    return HttpResponse(
        bytes(held.body or b""),
        status=held.status,
        content_type=CONTENT_TYPE if held.status >= 400 else "application/json",
        headers={**held.headers, "Idempotent-Replayed": "true", "Cache-Control": "no-store"},
    )


def _in_flight() -> Problem:
    return Problem(
        409,
        "Request in progress",
        f"A request with this {HEADER} is being worked on; repeat it in a moment.",
        headers={"Retry-After": "1"},
    )
