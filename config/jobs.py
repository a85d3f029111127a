"""Jobs: what runs on a schedule, from the queue, by cron or by hand, all through `run_job`.

An app declares its jobs in `<app>/jobs.py`:

    @job(name="refresh_catalog", every=timedelta(minutes=15), timeout=timedelta(minutes=14),
         description="Fold new snapshots into the catalog's read models.")
    def refresh_catalog(run: Run) -> int | None: ...

The function returns a number of rows, or None. It may be killed at any line; its next run must
complete the work. The declarations are the truth: `sync_schedules` makes the queue's schedule
rows equal to them.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from django.db import Error, close_old_connections, connection, transaction
from django.utils import timezone
from django.utils.module_loading import autodiscover_modules
from django_q.models import OrmQ, Schedule
from django_q.signals import post_execute, pre_enqueue, pre_execute
from django_q.tasks import async_task

from config import leases, logs, runs, schedules
from config.models import JobRun
from config.runs import JobFailed, LeaseLost, Run, TimedOut

__all__ = ["Job", "JobFailed", "LeaseLost", "Run", "TimedOut", "UnknownJob", "job", "run_job"]

logger = logging.getLogger("spyglass.jobs")

CANARY = "canary"
RESULTS = "worker results"  # the Heartbeat row that says that the queue stores what was done
MAX_ATTEMPTS = 3
# Above the timeout, so that the queue's own clock, which kills the process, never rings first.
QUEUE_TIMEOUT_MARGIN = timedelta(seconds=60)
QUEUE_SCAN_ROWS = 1_000
OVERDUE = timedelta(minutes=5)  # schedules are looked at every 30 s at most

_UNITS = {"day": timedelta(days=1), "hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
_FUNCTION = "config.jobs.run_queued"
PREFIX = "job:"  # of the schedule rows that are ours


class UnknownJob(KeyError):
    """No job of that name is declared."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Job:
    """A declared job. At most one of `every` and `cron`; with neither it runs on demand only."""

    name: str
    function: Callable[[Run], int | None]
    description: str
    timeout: timedelta
    every: timedelta | None = None
    cron: str = ""

    @property
    def schedule(self) -> str:
        """The schedule in words."""
        if self.every:
            for unit, length in _UNITS.items():
                count, rest = divmod(self.every, length)
                if not rest:
                    return f"every {unit}" if count == 1 else f"every {count} {unit}s"
        return f"cron {self.cron}" if self.cron else "on demand"


_jobs: dict[str, Job] = {}


def job(
    *,
    name: str,
    description: str,
    every: timedelta | None = None,
    cron: str = "",
    timeout: timedelta = timedelta(minutes=14),
) -> Callable:
    """Declare the decorated function as a job.

    `every` is in whole minutes, up to 32,767; `cron` has five fields, in UTC. Raises ValueError
    for a declaration that could not run: the name is taken, the schedule makes no sense.
    """
    _check(name, every, cron, timeout)

    def declare(function: Callable[[Run], int | None]) -> Callable[[Run], int | None]:
        known = _jobs.get(name)
        if known and _address(known.function) != _address(function):
            raise ValueError(f"job {name!r} is declared twice: {_address(known.function)}")
        _jobs[name] = Job(name, function, description, timeout, every, cron)
        return function

    return declare


def all() -> dict[str, Job]:
    """Every declared job by name."""
    _discover()
    return dict(sorted(_jobs.items()))


def get(name: str) -> Job:
    """The job `name`; raises UnknownJob."""
    known = all()
    if name not in known:
        raise UnknownJob(f"no job {name!r}; known: {', '.join(known)}")
    return known[name]


def run_job(name: str, *, trigger: str) -> JobRun:
    """Run a job now, in this process; returns its row in the run log, SUCCEEDED or SKIPPED.

    Raises UnknownJob, and JobFailed where the job raised or lost its lease.
    """
    declared = get(name)
    return runs.execute(name, declared.function, timeout=declared.timeout, trigger=trigger)


def run_queued(name: str, trigger: str) -> str:
    """What the queue calls. A report for its log; raises JobFailed so that it tries again.

    Attempts are counted by the run log, which knows of each before its work begins: the queue
    counts an attempt when it is over, and so would repeat for ever a job that kills its process.
    """
    declared = all().get(name)
    if declared is None:
        logger.warning("queued job %r is not declared any more: dropped", name)
        return f"{name} is not declared any more"
    task = _current_task.get("id", "")
    if _attempts(name, task) >= MAX_ATTEMPTS:
        logger.error("%s: gave up after %d attempts", name, MAX_ATTEMPTS)
        return f"{name}: gave up after {MAX_ATTEMPTS} attempts"
    runs.beat(runs.WORKER, job=name)
    record = runs.execute(
        name,
        declared.function,
        timeout=declared.timeout,
        trigger=trigger,
        queued=True,
        detail={"task": task} if task else {},
    )
    runs.beat(runs.WORKER, job=name)
    return runs.describe(record)


def enqueue(name: str, trigger: str = "admin") -> bool:
    """Put a job in the queue; False where the same job waits there already. Raises UnknownJob."""
    declared = get(name)
    if any(waiting == name for _, waiting in _waiting()):
        return False
    async_task(_FUNCTION, name, trigger, q_options=_queue_options(declared))
    return True


def coalesce_queue() -> int:
    """Drop all but the first of the waiting entries of each job; returns how many went.

    They pile up where schedules went on while nothing worked.
    """
    seen, surplus = set(), []
    for key, name in _waiting():
        if name in seen:
            surplus.append(key)
        seen.add(name)
    return OrmQ.objects.filter(pk__in=surplus, lock__lte=timezone.now()).delete()[0]


def release_taken() -> int:
    """Give back to the queue what a killed cluster had taken; returns how many entries.

    Else they wait for the queue's retry, 1,000 s. What a living run works on stays. What another
    cluster has taken but not begun is given out twice, which costs a skipped or a short run.
    """
    running = JobRun.objects.filter(state=JobRun.State.RUNNING)
    at_work = {run.detail.get("task") for run in running if not leases.is_dead(run.owner, run.pid)}
    taken = OrmQ.objects.filter(lock__gt=timezone.now()).order_by("pk")[:QUEUE_SCAN_ROWS]
    idle = [row.pk for row in taken if _is_ours(row.task) and row.task["id"] not in at_work]
    return OrmQ.objects.filter(pk__in=idle).update(lock=timezone.now())


def sync_schedules() -> list[str]:
    """Make the queue's schedules equal to the declared jobs; returns what was changed, in words.

    Rows of ours are made, corrected (also what staff edited: the declaration is the truth),
    and removed with their job. Rows of others are left alone, except those that would break
    all: django-q2 runs every schedule in one transaction. Such a row is mended or switched off.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:  # two workers that start together
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('spyglass sync_schedules'))")
        wanted = {PREFIX + name: _row(declared) for name, declared in all().items()}
        wanted = {name: row for name, row in wanted.items() if row}
        changes = schedules.upsert(PREFIX, wanted)
        return changes + schedules.repair(PREFIX)


def _check(name: str, every: timedelta | None, cron: str, timeout: timedelta) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,79}", name):
        raise ValueError(f"job {name!r}: a name is a letter and up to 79 of a-z, 0-9, _")
    if every and cron:
        raise ValueError(f"job {name!r}: give `every` or `cron`, not both")
    if every and (every % timedelta(minutes=1) or not 1 <= every // timedelta(minutes=1) <= 32_767):
        raise ValueError(f"job {name!r}: `every` is 1 to 32,767 whole minutes, not {every}")
    if cron and (reason := schedules.cron_fault(cron)):
        raise ValueError(f"job {name!r}: {reason}")
    if timeout <= timedelta(0):
        raise ValueError(f"job {name!r}: the timeout must be positive, not {timeout}")


def _address(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


@cache
def _discover() -> None:
    autodiscover_modules("jobs", "housekeeping")


def _row(declared: Job) -> dict | None:
    """The fields of a job's schedule row; None where it runs on demand only."""
    if declared.schedule == "on demand":
        return None
    return {
        "func": _FUNCTION,
        "args": repr((declared.name, "schedule")),
        "kwargs": repr({"q_options": _queue_options(declared)}),
        "schedule_type": Schedule.CRON if declared.cron else Schedule.MINUTES,
        "minutes": None if declared.cron else declared.every // timedelta(minutes=1),
        "cron": declared.cron or None,
        "repeats": -1,
        "hook": None,
        "cluster": None,
        "intended_date_kwarg": None,
    }


def _queue_options(declared: Job) -> dict:
    seconds = int((declared.timeout + QUEUE_TIMEOUT_MARGIN).total_seconds())
    options = {"group": PREFIX + declared.name, "timeout": seconds}
    if declared.every and declared.every <= timedelta(minutes=15):
        # Its own schedule is the retry, and comes sooner than the queue's.
        options["ack_failure"] = True
    return options


def _waiting() -> list[tuple[int, str]]:
    """(queue key, job name) of the entries that no worker has taken yet, oldest first."""
    rows = OrmQ.objects.filter(lock__lte=timezone.now()).order_by("pk")[:QUEUE_SCAN_ROWS]
    return [(row.pk, row.task["args"][0]) for row in rows if _is_ours(row.task)]


def _is_ours(task: dict) -> bool:
    return task.get("func") == _FUNCTION and bool(task.get("args"))


def _attempts(name: str, task: str) -> int:
    if not task:
        return 0
    since = timezone.now() - timedelta(days=1)
    return (
        JobRun.objects.filter(job=name, started_at__gt=since, detail__task=task)
        .exclude(state__in=[JobRun.State.SKIPPED, JobRun.State.SUCCEEDED])
        .count()
    )


_current_task: dict = {}


def _note_request(sender, task, **kwargs) -> None:
    """Whatever is queued knows the request that asked for it; a member that the queue ignores."""
    if request_id := logs.request_id():
        task["request_id"] = request_id


def _note_task(sender, func, task, **kwargs) -> None:
    """The queue does not tell a function which task it is; a worker process has one at a time."""
    _current_task["id"] = task["id"]
    logs.begin(request_id=task.get("request_id", ""))


def _note_result(sender, task, **kwargs) -> None:
    """Runs in the process that stores results, after the canary's was stored.

    That process can hang on a lock which a killed one left behind, while workers go on.
    """
    if task.get("group") != PREFIX + CANARY:
        return
    try:
        close_old_connections()
        runs.beat(RESULTS)
    except Error as error:
        logger.warning("cannot stamp the queue's heartbeat: %s", error)


pre_enqueue.connect(_note_request, dispatch_uid="config.jobs.request")
pre_execute.connect(_note_task, dispatch_uid="config.jobs.task")
post_execute.connect(_note_result, dispatch_uid="config.jobs.result")
