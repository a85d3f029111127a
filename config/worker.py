"""`manage.py worker`: the queue's cluster under supervision.

A cluster of django-q2 can look alive and do nothing: a process killed while it held a lock of the
shared queue leaves the others waiting for ever (django-q2 issues 23 and 339). So the supervisor
believes heartbeats only. It also starts what is due itself, after repairing the schedule rows.

`python -m config.worker` is the cluster: one process that leads a session of its own, a sentinel
under it, and the sentinel's workers, pusher and monitor.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta

logger = logging.getLogger("spyglass.worker")

SETTLED_SECONDS = 60  # a cluster that lived this long did not fail at its start
LONGEST_PAUSE_SECONDS = 60


@dataclass
class Supervisor:
    """Keeps one cluster at work until told to stop. Several may run, on one host or on many.

    `stale`: with no heartbeat for so long the cluster is restarted. `tick`: time between two
    looks. `grace`: how long jobs at work may take to end when the supervisor is stopped.
    """

    stale: timedelta
    tick: timedelta = timedelta(seconds=5)
    grace: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._started = 0.0  # monotonic seconds
        self._failures = 0
        self._stopping = False
        self._canary_due = 0.0

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT; then end the cluster and return."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        try:
            while not self._stopping:
                self._look()
                self._sleep(self.tick.total_seconds())
            self._end_gracefully()
        finally:
            self._kill()

    def _ask_to_stop(self, signum, frame) -> None:
        self._stopping = True

    def _sleep(self, seconds: float) -> None:
        """Sleep, but wake early to stop or because the cluster ended."""
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            if self._process is not None and self._ended():
                return
            time.sleep(min(0.2, seconds))

    def _look(self) -> None:
        if self._process is not None and self._ended():
            self._note_end()
        if self._process is None and not self._stopping:
            self._start()
        why = self._tend()
        if why:
            logger.error("restarting the cluster: %s", why)
            self._kill()
            self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "config.worker"],
            env=os.environ | {"PROCESS_ROLE": "worker", "SPYGLASS_SUPERVISOR": str(os.getpid())},
            cwd=_project(),
            start_new_session=True,  # one group to kill, and Ctrl-C reaches only the supervisor
        )
        self._started = time.monotonic()
        self._canary_due = 0.0
        logger.info("started the cluster, process %d", self._process.pid)

    def _ended(self) -> bool:
        """Whether the cluster's first process ended. Not reaped yet: its group id stays taken."""
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return ended is not None

    def _note_end(self) -> None:
        lived = time.monotonic() - self._started
        code = self._kill()
        self._failures = 0 if lived > SETTLED_SECONDS else self._failures + 1
        pause = min(2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS) if self._failures else 0
        logger.error(
            "the cluster ended (exit code %s) after %.0f s; starting it again in %d s",
            code,
            lived,
            pause,
        )
        self._sleep(pause)

    def _tend(self) -> str:
        """Start what is due, keep the canary coming; returns why the cluster must go, or ""."""
        from django import db
        from django_q.scheduler import scheduler

        from config import jobs

        try:
            db.close_old_connections()
            for change in jobs.sync_schedules():
                logger.warning("%s", change)
            scheduler()
            if time.monotonic() >= self._canary_due:
                jobs.coalesce_queue()
                jobs.enqueue(jobs.CANARY, trigger="worker")
                self._canary_due = time.monotonic() + min(60, self.stale.total_seconds() / 3)
            return self._silence()
        except db.DatabaseError as error:
            # Without its database no cluster works, and a restart would not help.
            db.connections.close_all()
            self._started = time.monotonic()
            logger.warning("cannot reach the database: %s", str(error).strip().splitlines()[0])
            return ""

    def _silence(self) -> str:
        """Which sign of life has been missing for too long, or ""."""
        from config import jobs, runs

        if time.monotonic() - self._started < self.stale.total_seconds():
            return ""
        beats = heartbeat_ages()
        limit = self.stale.total_seconds()
        age = beats.get(runs.WORKER)
        if age is None or age > limit:
            return f"no job ran for {limit:.0f} s"
        # The canary's own age at the time its result was stored last.
        stored, canary = beats.get(jobs.RESULTS), beats.get(jobs.CANARY)
        if canary is not None and (stored is None or stored - canary > limit):
            return f"results have not been stored for {limit:.0f} s"
        return ""

    def _end_gracefully(self) -> None:
        """Ask the first process only: SIGTERM to a worker would kill its job."""
        if self._process is None:
            return
        logger.info("stopping; jobs at work have %.0f s to end", self.grace.total_seconds())
        self._process.terminate()
        end = time.monotonic() + self.grace.total_seconds()
        while not self._ended() and time.monotonic() < end:
            time.sleep(0.1)

    def _kill(self) -> int | None:
        """Kill whatever is left of the cluster's process group; returns the exit code."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            logger.debug("process group %d is gone already", process.pid)
        return process.wait()


def heartbeat_ages() -> dict[str, float]:
    """Seconds since each heartbeat, by the database's clock."""
    from django.db.models import DurationField, ExpressionWrapper, F
    from django.db.models.functions import Now

    from config.models import Heartbeat

    age = ExpressionWrapper(Now() - F("beat_at"), output_field=DurationField())
    rows = Heartbeat.objects.annotate(age=age).values_list("name", "age")
    return {name: age.total_seconds() for name, age in rows}


def _project() -> str:
    from django.conf import settings

    return str(settings.BASE_DIR)


def main() -> None:
    """Be the cluster, for as long as the supervisor lives."""
    _end_with(int(os.environ.get("SPYGLASS_SUPERVISOR", "0")))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    from django_q.cluster import Cluster

    from config import jobs

    jobs.all()  # a job module that cannot be imported shows here, not in every worker
    Cluster().start()


def _end_with(supervisor: int) -> None:
    """Get a SIGTERM when the supervisor dies without a word (Linux only)."""
    if not supervisor or not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGTERM))
    if os.getppid() != supervisor:  # it died before the call
        sys.exit("the supervisor is gone")


if __name__ == "__main__":
    main()
