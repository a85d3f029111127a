"""`manage.py worker`: the queue's cluster under supervision, and the daemons that apps declare.

A cluster of django-q2 can look alive and do nothing: a process killed while it held a lock of the
shared queue leaves the others waiting for ever (django-q2 issues 23 and 339). So the supervisor
believes heartbeats only. It also starts what is due itself, after repairing the schedule rows.

The cluster is `config.cluster`: a process that leads a session of its own, a sentinel under it,
and the sentinel's workers, pusher and monitor.
"""

import logging
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from math import inf

from django import db
from django.conf import settings
from django_q.scheduler import scheduler

from config import daemons, jobs, runs
from config.children import Child
from config.logs import first_line

logger = logging.getLogger("spyglass.worker")


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
        self._cluster = Child(
            "the cluster",
            [sys.executable, "-m", "config.cluster"],
            cwd=settings.BASE_DIR,
            environment={"PROCESS_ROLE": "worker"},
        )
        self._children = [self._cluster]
        self._since = 0.0  # monotonic: from when on the cluster may be expected to work
        self._silences = 0  # restarts for silence without a sign of life since
        self._stopping = False
        self._canary_due = 0.0

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT; then end the cluster and return."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        self._children += daemons.children()
        try:
            while not self._stopping:
                self._look()
                self._sleep(self.tick.total_seconds())
            self._end_gracefully()
        finally:
            for child in self._children:
                child.kill()

    def _ask_to_stop(self, signum, frame) -> None:
        self._stopping = True

    def _sleep(self, seconds: float) -> None:
        """Sleep, but wake early to stop or because a child ended or is to be started."""
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            if any(child.wants_a_look for child in self._children):
                return
            time.sleep(min(0.2, seconds))

    def _look(self) -> None:
        for child in self._children:
            if child.look() and child is self._cluster:
                self._expect()
        why = self._tend()
        if why and self._cluster.pid:  # else it waits for the end of its pause
            self._silences += 1
            logger.error("restarting the cluster: %s", why)
            self._cluster.kill()
            self._cluster.start()
            self._expect()

    def _expect(self) -> None:
        """The cluster has just been started."""
        self._since = time.monotonic()
        self._canary_due = 0.0

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
            self._since = time.monotonic()
            logger.warning("cannot use the database: %s", first_line(error))
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
        limit, lived = self.stale.total_seconds(), time.monotonic() - self._since
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
        """Only first processes are asked: SIGTERM to a worker of the cluster would kill its job."""
        logger.info("stopping; jobs at work have %.0f s to end", self.grace.total_seconds())
        end = time.monotonic() + self.grace.total_seconds()
        for child in self._children:
            child.ask_to_stop()
        for child in self._children:
            child.wait(end)
