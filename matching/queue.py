"""The queue of match jobs: rows of match_jobs, claimed by compare-and-set.

A job is submitted, waits by priority and then by time, is claimed with a lease, and ends as done,
failed or cancelled. Each step is one statement that asks for the state before it, so that whatever
is killed, a job ends once: an attempt is counted before it starts, its result commits together
with its end and only under its own lease, and `rescue` gives back what dead processes held. No
step needs a session: all of it works through PgBouncer in transaction mode.
"""

import json
import logging
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from psycopg.types.json import Jsonb

from config import leases, logs, tally
from config.sqlfiles import Statements
from config.text import storable
from matching.fields import clean
from matching.models import Item, MatchJob

_sql = Statements("matching")

logger = logging.getLogger("spyglass.matching")

MAX_ATTEMPTS = 3
LEASE = timedelta(seconds=30)
AT_WORK = 1_000  # running jobs that one rescue looks at; there are as many as workers
ERROR_LENGTH = 2_000
LONGEST_RETRY_AFTER = 60  # seconds

_DIED = "Its worker died: killed, or out of memory, or the host went down."
_EXPIRED = f"Its worker gave no sign of life for {LEASE.total_seconds():.0f} s."


class Refused(Exception):
    """A job that is not taken now. `retry_after`: seconds after which it may be."""

    def __init__(self, reason: str, waited: float | None):
        super().__init__(reason)
        self.retry_after = min(max(1, round(waited or 1)), LONGEST_RETRY_AFTER)


class QuotaExceeded(Refused):
    """The owner has as many open jobs as MATCHING_JOBS_PER_OWNER allows."""


class QueueFull(Refused):
    """As many jobs wait as MATCHING_QUEUE_LIMIT allows."""


class LeaseLost(Exception):
    """The job is somebody else's by now, or cancelled: whatever was found, it is not stored."""


@dataclass(frozen=True)
class Claim:
    """A job that this process works on, under a lease of its own."""

    task_id: uuid.UUID
    owner_id: int
    item_id: int | None
    query: dict[str, Any]
    priority: int
    attempts: int
    lease: str
    request_id: str  # of the request that asked for it, or ""


def submit_match(
    *,
    owner,
    item: Item | None = None,
    query: Mapping[str, Any] | None = None,
    priority: int = MatchJob.Priority.PERSON,
) -> MatchJob:
    """Put a job in the queue: for an item of this owner, or for a description that is no item.

    `query`: fields as in `matching.fields`. An item waits once: its job that waits already is
    returned, as urgent as the more urgent of both. Part of the caller's transaction.

    A person's job is refused over the quota and over the limit of the queue, what is scored again
    in the background over the limit: raises QuotaExceeded, QueueFull. A change of an item is never
    refused, for nobody would ask again; beyond the quota or the limit it waits in the background.
    Raises InvalidItem for a query.
    """
    if (item is None) == (query is None):
        raise TypeError("give an item or a query")
    subject = {"item": item.pk} if query is None else {"query": _json(clean(query))}
    statement = "submit_item_job" if query is None else "submit_query_job"
    with transaction.atomic():
        if priority == MatchJob.Priority.PERSON:  # else two requests would each take the last one
            _sql.rows("lock_owner_quota", owner=owner.pk)
        [(task_id,)] = _sql.rows(
            statement,
            task=uuid.uuid4(),
            owner=owner.pk,
            priority=int(priority),
            request=logs.request_id(),
            **subject,
        )
        refusal = _refusal(owner.pk, priority)
        if refusal and priority != MatchJob.Priority.CHANGE:
            raise refusal
        if refusal:
            _sql.count("demote_job", task=task_id)
        elif priority != MatchJob.Priority.BACKGROUND:
            _sql.rows("wake_workers")
    return MatchJob.objects.get(pk=task_id)


def claim() -> Claim | None:
    """Take the most urgent job that waits, for this process; None where none does.

    Must be called outside a transaction: the attempt counts from now on.
    """
    lease = leases.new_owner()
    rows = _sql.rows("claim_job", lease=lease, length=LEASE, **_process())
    if not rows:
        return None
    task_id, owner_id, item_id, query, priority, attempts, request_id = rows[0]
    return Claim(
        task_id, owner_id, item_id, json.loads(query), priority, attempts, lease, request_id
    )


def extend(job: Claim) -> bool:
    """Push the end of the job's lease out to LEASE from now; False where it was lost."""
    return _sql.count("extend_job", task=job.task_id, lease=job.lease, length=LEASE) == 1


def hold(job: Claim) -> None:
    """Lock the job for the end of its attempt, in the caller's transaction. Raises LeaseLost."""
    if not _sql.rows("hold_job", task=job.task_id, lease=job.lease):
        raise LeaseLost(f"{job.task_id} is not this worker's any more")


def finish(
    job: Claim,
    *,
    state: str = MatchJob.State.DONE,
    result: Mapping[str, Any] | None = None,
    degraded: str = "",
    error: str = "",
) -> float:
    """End a job that is done or cancelled, in the transaction of its effect.

    Returns the seconds that the attempt took. Raises LeaseLost, so that the effect is undone.
    """
    rows = _sql.rows(
        "end_job",
        task=job.task_id,
        lease=job.lease,
        state=state,
        result=_json(result),
        degraded=degraded,
        error=storable(error, ERROR_LENGTH),
        keep=_kept(),
    )
    if not rows:
        raise LeaseLost(f"{job.task_id} is not this worker's any more")
    return rows[0][0]


def give_back(job: Claim, error: str, *, outcome: str = "error") -> str:
    """End an attempt without success; returns the job's state then: queued, or failed after three.

    "" where the lease was lost before. `outcome` is the label of the attempt in the metrics.
    """
    return _give_back(job.task_id, job.lease, error, outcome=outcome, expired=False)


def rescue() -> int:
    """Give back the jobs whose process is dead, at once where that can be seen, else by the lease.

    Returns how many. Any process may call it at any time.
    """
    rescued = 0
    for task_id, lease, pid, expired in _sql.rows("running_jobs", limit=AT_WORK):
        dead = leases.is_dead(lease, pid)
        if not (dead or expired):
            continue
        error, outcome = (_DIED, "died") if dead else (_EXPIRED, "expired")
        with transaction.atomic():
            # Locked by what ends it right now, or by a process that froze while it did: pass on.
            if not _sql.rows("lock_running_job", task=task_id, lease=lease):
                continue
            state = _give_back(task_id, lease, error, outcome=outcome, expired=not dead)
        if state:
            logger.warning("match job %s: %s It is %s.", task_id, error, state)
            rescued += 1
    return rescued


def cancel(task_id: uuid.UUID, *, reason: str = "Cancelled by staff.") -> bool:
    """Cancel a job that waits or runs; what a worker still finds is not stored. False: it ended."""
    return (
        _sql.count("cancel_job", task=task_id, error=storable(reason, ERROR_LENGTH), keep=_kept())
        == 1
    )


def retry(task_id: uuid.UUID) -> bool:
    """Queue a failed or cancelled job again, with all its attempts.

    False where it is neither, or where another job of its item waits already.
    """
    try:
        with transaction.atomic():
            retried = _sql.count("retry_job", task=task_id) == 1
            _sql.rows("wake_workers")
    except IntegrityError:
        return False
    return retried


def _refusal(owner_id: int, priority: int) -> Refused | None:
    """Why the job just added, not committed yet, is one too many; None where it is not."""
    quota, limit = settings.MATCHING_JOBS_PER_OWNER, settings.MATCHING_QUEUE_LIMIT
    [(own, waiting, waited)] = _sql.rows(
        "match_load", owner=owner_id, priority=int(priority), quota=quota, limit=limit
    )
    if own > quota and priority != MatchJob.Priority.BACKGROUND:
        return QuotaExceeded(f"{quota} match jobs of yours are open already.", waited)
    if waiting > limit:
        return QueueFull(f"{limit:,} match jobs wait already.", waited)
    return None


def _give_back(task_id, lease: str, error: str, *, outcome: str, expired: bool) -> str:
    with transaction.atomic():
        rows = _sql.rows(
            "give_job_back",
            task=task_id,
            lease=lease,
            error=storable(error, ERROR_LENGTH),
            attempts=MAX_ATTEMPTS,
            expired=expired,
            keep=_kept(),
        )
        if not rows:
            return ""
        [(state,)] = rows
        failed = state == MatchJob.State.FAILED
        tally.add_all(
            [
                tally.Count("matching_attempts_total", {"outcome": outcome}),
                tally.Count("matching_jobs_failed_total", {}, failed),
            ]
        )
        if not failed:
            _sql.rows("wake_workers")
    return state


def _kept() -> timedelta:
    return timedelta(hours=settings.MATCHING_RESULTS_HOURS)


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _json(value: Mapping[str, Any] | None) -> Jsonb | None:
    """As jsonb; dates as text (ISO 8601)."""
    return None if value is None else Jsonb(value, dumps=lambda one: json.dumps(one, default=str))
