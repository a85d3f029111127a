"""`manage.py worker`: the queue's cluster under supervision, and the daemons that apps declare.

A cluster of django-q2 can look alive and do nothing: a process killed while it held a lock of the
shared queue leaves the others waiting for ever (django-q2 issues 23 and 339). So the supervisor
believes heartbeats only. It also starts what is due itself, after repairing the schedule rows.

The cluster is `config.cluster`: a process that leads a session of its own, a sentinel under it,
and the sentinel's workers, pusher and monitor.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from math import inf

from django import db
from django.conf import settings
from django_q.scheduler import scheduler

from config import cluster, daemons, jobs, runs

logger = logging.getLogger("spyglass.worker")

SETTLED_SECONDS = 60  # a cluster that lived this long did not fail at its start
LONGEST_PAUSE_SECONDS = 60


@dataclass
class Supervisor:
    """Keeps one cluster and the daemons at work until told to stop.

    Several may run, on one host or on many.

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
        self._silences = 0  # restarts for silence without a sign of life since
        self._stopping = False
        self._canary_due = 0.0
        self._daemons: list[daemons.Keeper] = []

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT; then end the cluster and return."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        for daemon in daemons.all().values():
            self._daemons += [daemons.Keeper(daemon) for _ in range(daemon.count())]
        try:
            while not self._stopping:
                self._look()
                self._sleep(self.tick.total_seconds())
            self._end_gracefully()
        finally:
            self._kill()
            for daemon in self._daemons:
                daemon.kill()

    def _ask_to_stop(self, signum, frame) -> None:
        self._stopping = True

    def _sleep(self, seconds: float) -> None:
        """Sleep, but wake early to stop or because the cluster or a daemon ended."""
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            if self._process is not None and self._ended():
                return
            if any(daemon.ended for daemon in self._daemons):
                return
            time.sleep(min(0.2, seconds))

    def _look(self) -> None:
        if self._process is not None and self._ended():
            self._note_end()
        if self._process is None and not self._stopping:
            self._start()
        for daemon in self._daemons:
            daemon.look()
        why = self._tend()
        if why:
            self._silences += 1
            logger.error("restarting the cluster: %s", why)
            self._kill()
            self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "config.cluster"],
            env=os.environ | {"PROCESS_ROLE": "worker", cluster.PARENT: str(os.getpid())},
            cwd=settings.BASE_DIR,
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
        try:
            db.close_old_connections()
            for change in jobs.sync_schedules():
                logger.info("%s", change)
            scheduler()
            ages = runs.heartbeat_ages()
            self._send_canary(ages)
            return self._silence(ages)
        except db.Error as error:
            # Without its database no cluster works, and a restart would not help.
            db.connections.close_all()
            self._started = time.monotonic()
            logger.warning("cannot use the database: %s", str(error).partition("\n")[0])
        except Exception:
            logger.exception("tending the schedules failed")  # whatever it is, go on supervising
        return ""

    def _send_canary(self, ages: dict[str, float]) -> None:
        """The canary has a schedule; a fresh cluster, or a silent one, gets an extra one."""
        now, stale = time.monotonic(), self.stale.total_seconds()
        if now < self._canary_due or (self._canary_due and ages.get(jobs.CANARY, inf) < stale / 2):
            return
        if not self._canary_due:
            jobs.release_taken()
        jobs.coalesce_queue()
        jobs.enqueue(jobs.CANARY, trigger="worker")
        self._canary_due = now + stale / 4

    def _silence(self, ages: dict[str, float]) -> str:
        """Which sign of life has been missing for too long, or ""."""
        limit, lived = self.stale.total_seconds(), time.monotonic() - self._started
        if ages.get(runs.WORKER, inf) < lived:
            self._silences = 0
        if lived < limit * 2 ** min(self._silences, 3):  # a slow machine needs longer to start
            return ""
        if ages.get(runs.WORKER, inf) > limit:
            return f"no job ran for {limit:g} s"
        if ages.get(jobs.RESULTS, inf) - ages.get(jobs.CANARY, inf) > limit:
            return f"the canary ran, but its result was not stored for {limit:g} s"
        return ""

    def _end_gracefully(self) -> None:
        """Ask the cluster's first process only: SIGTERM to a worker would kill its job."""
        logger.info("stopping; jobs at work have %.0f s to end", self.grace.total_seconds())
        end = time.monotonic() + self.grace.total_seconds()
        for daemon in self._daemons:
            daemon.ask_to_stop()
        if self._process is not None:
            self._process.terminate()
            while not self._ended() and time.monotonic() < end:
                time.sleep(0.1)
        for daemon in self._daemons:
            daemon.wait(end)

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
