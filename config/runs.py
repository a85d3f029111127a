"""One run of a job: its lease, its row in the run log, its heartbeat and its deadline.

Whatever kills the process, the next run finds the lease free (at once on this host, within
`leases.LENGTH` from another), marks the dead run ABANDONED and does the work.
"""

import contextlib
import json
import logging
import math
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now
from django.utils import timezone
from psycopg.pq import TransactionStatus

from config import leases, logs, tally, telemetry
from config.models import Heartbeat, JobRun, Lease
from config.outages import insist
from config.text import storable

logger = logging.getLogger("spyglass.jobs")

HEARTBEAT_SECONDS = 15
SILENT = timedelta(minutes=2)  # a run that has not beaten for so long has most likely died
PROGRESS_SECONDS = 2  # progress is stored at most this often
GRACE_SECONDS = 30  # past its deadline, how long a run may take to notice before it loses its lease
ERROR_CHARACTERS = 20_000

WORKER = "worker"  # the Heartbeat row that says that the queue does work


class JobFailed(Exception):
    """A run ended without success. `record` is its row in the run log."""

    def __init__(self, record: JobRun):
        super().__init__(describe(record))
        self.record = record


class LeaseLost(Exception):
    """Another run may be at the same work: stop, and leave it to that one."""


class TimedOut(Exception):
    """The run took longer than its job's timeout."""


class Run:
    """What a job function is given: where it reports, and where it asks whether to go on."""

    def __init__(self, record: JobRun, timeout: timedelta, *, queued: bool = False):
        self.record = record
        self.queued = queued  # whether a worker of the queue runs it
        self.rows: int | None = None
        self.detail: dict = dict(record.detail)
        self.lost = ""  # why this run may not go on
        self.timeout = timeout
        self.working = True
        self.timed_out = False
        self._heart: _Heart | None = None

    def progress(self, rows: int | None = None, **detail) -> None:
        """Note how far the work is; raises LeaseLost where it must not go on.

        Cheap enough for an inner loop: another thread stores it, every 2 s at most.
        """
        self.check()
        if rows is not None:
            self.rows = rows
        self.detail.update(detail)
        if self._heart:
            self._heart.nudge()

    def check(self) -> None:
        """Raise LeaseLost where another run may have taken over. Call it between batches."""
        if self.lost:
            raise LeaseLost(f"{self.record.job}: {self.lost}")

    @contextlib.contextmanager
    def beating(self):
        """Keep the lease while the block runs."""
        self._heart = _Heart(self)
        self._heart.start()
        try:
            yield
        finally:
            self._heart.stop()


def execute(
    name: str,
    function: Callable[[Run], int | None],
    *,
    timeout: timedelta,
    trigger: str,
    queued: bool = False,
    detail: dict | None = None,
) -> JobRun:
    """Run `function` as job `name` and return its row: SUCCEEDED, or SKIPPED if another runs.

    `queued`: this process is a worker of the queue. Must not be called inside a transaction.
    Raises JobFailed, with the traceback stored in the row. What is not an Exception (an
    interrupt, the queue's own timeout) is recorded and goes on up unchanged.
    """
    request_id = logs.request_id()
    origin = {"request_id": request_id} if request_id else {}
    record = _begin(name, trigger, (detail or {}) | origin)
    with logs.bound(job=name, run=record.pk), telemetry.span(f"job {name}", run=record.pk):
        return _carry_out(record, function, timeout, queued=queued)


def _carry_out(
    record: JobRun, function: Callable[[Run], int | None], timeout: timedelta, *, queued: bool
) -> JobRun:
    if record.state == JobRun.State.SKIPPED:
        logger.log(logging.INFO if queued else logging.DEBUG, "%s", describe(record))
        return record
    run = Run(record, timeout, queued=queued)
    error = None
    with run.beating():
        previous = _arm(run)
        try:
            try:
                result = function(run)
                run.rows = run.rows if result is None else result
                run.check()
            finally:
                run.working = False
        except BaseException as raised:  # noqa: BLE001 - recorded below, whatever it is
            run.working = False
            error = raised
        finally:
            _disarm(previous)
    failed = error is not None
    mine = _finish(run, JobRun.State.FAILED if failed else JobRun.State.SUCCEEDED, error)
    if failed and not isinstance(error, Exception):
        raise error
    if failed or not mine:
        if queued:  # the queue would log it from another process, which knows of no run
            logger.error("%s", describe(record))
        raise JobFailed(record) from error
    # A command reports by itself; and what has nothing to count, like the canary's run every
    # minute, would only fill the worker's log.
    quiet = not queued or record.rows is None
    logger.log(logging.DEBUG if quiet else logging.INFO, "%s", describe(record))
    return record


def last_line(text: str) -> str:
    """The line of a traceback that says what went wrong."""
    return text.strip().rpartition("\n")[2]


def describe(record: JobRun) -> str:
    """One line for people: what ran, how it ended, how much it did."""
    if record.state == JobRun.State.SKIPPED:
        return f"{record.job} skipped: {record.detail.get('held_by', 'another run')} is at it"
    line = f"{record.job} {record.state}"
    if record.rows is not None:
        line += f": {record.rows:,} row{'' if record.rows == 1 else 's'}"
    if record.finished_at:
        line += f" in {(record.finished_at - record.started_at).total_seconds():.2f} s"
    if record.error:
        line += f": {last_line(record.error)}"
    return line


def beat(name: str, **detail) -> None:
    """Stamp a sign of life of a part of the system."""
    Heartbeat.objects.bulk_create(
        [Heartbeat(name=name, beat_at=Now(), detail=detail)],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["beat_at", "detail"],
    )


def heartbeat_ages() -> dict[str, float]:
    """Seconds since each sign of life, by the database's clock."""
    age = ExpressionWrapper(Now() - F("beat_at"), output_field=DurationField())
    rows = Heartbeat.objects.annotate(age=age).values_list("name", "age")
    return {name: age.total_seconds() for name, age in rows}


def worker_is_alive() -> bool:
    """Whether the worker gave a sign of life lately."""
    return is_alive(WORKER, within=settings.WORKER_HEARTBEAT_STALE_SECONDS)


def is_alive(part: str, *, within: float) -> bool:
    """Whether a part of the system gave a sign of life in the last so many seconds."""
    return heartbeat_ages().get(part, math.inf) <= within


def abandon_dead() -> int:
    """Close the RUNNING rows whose process is gone and whose job never ran again.

    A run without a lease that has not beaten for 5 minutes counts as gone. Returns how many.
    """
    silent = JobRun.objects.filter(
        state=JobRun.State.RUNNING, heartbeat_at__lt=Now() - timedelta(minutes=5)
    )
    held = Lease.objects.filter(expires_at__gt=Now()).values("owner")
    with transaction.atomic():
        return _abandon(silent.exclude(owner__in=held))


def _begin(name: str, trigger: str, detail: dict) -> JobRun:
    """Take the lease and write the run's row, in one transaction."""
    owner = leases.new_owner()
    record = JobRun(
        job=name,
        trigger=trigger,
        detail=detail,
        owner=owner,
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=Now(),
        heartbeat_at=Now(),
    )
    with transaction.atomic(durable=True):
        if leases.take(name, owner):
            _abandon(JobRun.objects.filter(job=name, state=JobRun.State.RUNNING))
            record.save(force_insert=True)
        else:
            record.state = JobRun.State.SKIPPED
            record.finished_at = Now()
            record.detail = detail | _holder(name)
            record.save(force_insert=True)
            tally.add("job_runs_total", 1, job=name, outcome=record.state)
    record.refresh_from_db()
    return record


def _holder(name: str) -> dict:
    held = Lease.objects.filter(name=name).first()
    if held is None:
        return {"held_by": "another run"}
    since = timezone.localtime(held.acquired_at).isoformat(timespec="seconds")
    return {"held_by": f"process {held.pid} on {held.host}, since {since},"}


def _abandon(runs) -> int:
    """Mark these RUNNING rows ABANDONED, in the caller's transaction."""
    jobs = list(runs.select_for_update().values_list("id", "job"))
    JobRun.objects.filter(id__in=[key for key, _ in jobs]).update(
        state=JobRun.State.ABANDONED,
        finished_at=Now(),
        error="Its process ended without a word: killed, or out of memory, or the host went down.",
    )
    for _, job in sorted(jobs, key=lambda row: row[1]):
        tally.add("job_runs_total", 1, job=job, outcome=JobRun.State.ABANDONED)
    return len(jobs)


def _finish(run: Run, state: str, error: BaseException | None) -> bool:
    """Store the outcome and give the lease back; False where another run took over before."""
    record = run.record
    outcome = {
        "state": state,
        "rows": run.rows,
        "detail": _plain(run.detail),
        "error": _text(run, error) if error else "",
    }
    mine = insist(lambda: _store(record, outcome))
    record.refresh_from_db()
    return mine


def _store(record: JobRun, outcome: dict) -> bool:
    with transaction.atomic(durable=True):
        leases.release(record.job, record.owner)
        running = JobRun.objects.filter(pk=record.pk, state=JobRun.State.RUNNING)
        if running.update(**outcome, finished_at=Now(), heartbeat_at=Now()):
            tally.add("job_runs_total", 1, job=record.job, outcome=outcome["state"])
            return True
    # A commit whose answer was lost counts as well: then the row is finished already.
    return JobRun.objects.filter(pk=record.pk, state=outcome["state"]).exists()


def _text(run: Run, error: BaseException) -> str:
    """The traceback, its last line a sentence about what went wrong."""
    text = storable("".join(traceback.format_exception(error))[-ERROR_CHARACTERS:])
    if run.timed_out and not isinstance(error, TimedOut):
        text += f"TimedOut: {_overdue(run)}\n"
    return text


def _plain(detail: dict) -> dict:
    """`detail` as jsonb can store it: other types and NaN as text, no NUL, no lone surrogates."""
    text = json.dumps(dict(detail), default=str, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode().replace("\\u0000", "\\ufffd")
    return json.loads(text, parse_constant=str)


# The deadline. A signal reaches a main thread that waits for PostgreSQL or sleeps; in any other
# thread only `Run.check` and the end of the lease hold a run to its timeout.


def _arm(run: Run):
    """Start the alarm clock; returns what `_disarm` needs to restore the one that ran before."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def ring(signum, frame):
        if not run.working:
            return
        run.timed_out = True
        driver = connection.connection
        if driver and driver.info.transaction_status == TransactionStatus.ACTIVE:
            # Raising here would leave the statement at work on the server: cancel it, and its
            # error ends the run. The clock rings again for a job that carries on regardless.
            driver.cancel_safe(timeout=5)
            return
        raise TimedOut(_overdue(run))

    handler = signal.signal(signal.SIGALRM, ring)
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, run.timeout.total_seconds(), 5)
    return handler, remaining, time.monotonic()


def _disarm(previous) -> None:
    if previous is None:
        return
    handler, remaining, armed_at = previous
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
    if remaining:  # the queue keeps a clock of its own
        left = remaining - (time.monotonic() - armed_at)
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.01))


def _overdue(run: Run) -> str:
    return f"{run.record.job} took longer than its timeout of {run.timeout.total_seconds():g} s"


class _Heart(threading.Thread):
    """Extends the lease and stamps the run, on a connection of its own, until told to stop."""

    def __init__(self, run: Run):
        super().__init__(name=f"heartbeat of {run.record.job}", daemon=True)
        self._run = run
        self._wake, self._stopped = threading.Event(), False
        self._began = self._extended = self._stored = time.monotonic()

    def nudge(self) -> None:
        """Store progress soon."""
        if time.monotonic() - self._stored > PROGRESS_SECONDS:
            self._stored = time.monotonic()
            self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self.join(10)

    def run(self) -> None:
        try:
            while not self._stopped:
                self._wake.wait(HEARTBEAT_SECONDS)
                self._wake.clear()
                if not self._stopped:
                    self._beat()
        finally:
            connection.close()  # connections are per thread: this closes only our own

    def _beat(self) -> None:
        run, started = self._run, time.monotonic()
        allowed = run.timeout.total_seconds() + GRACE_SECONDS
        if started - self._began > allowed:
            run.lost = f"{_overdue(run)}, so its lease was given up"
            self._stopped = True
            return
        try:
            kept = self._extend()
        except Error as error:
            logger.warning("%s: heartbeat failed: %s", run.record.job, error)
            connection.close()
            if started - self._extended > leases.LENGTH.total_seconds():
                run.lost = "its lease ran out while the database was away"
        except Exception:
            # Not a reason to stop beating: without beats a healthy run would lose its lease.
            logger.exception("%s: heartbeat failed", run.record.job)
        else:
            self._extended = self._stored = started
            run.lost = "" if kept else "another run took its lease"
            self._stopped = not kept

    def _extend(self) -> bool:
        run = self._run
        with transaction.atomic():
            if not leases.extend(run.record.job, run.record.owner):
                return False
            JobRun.objects.filter(pk=run.record.pk, state=JobRun.State.RUNNING).update(
                heartbeat_at=Now(), rows=run.rows, detail=_plain(run.detail)
            )
        if run.queued:  # a worker that is busy for long does not get to run the canary
            beat(WORKER, job=run.record.job, host=run.record.host, pid=run.record.pid)
        return True
