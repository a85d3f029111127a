"""Daemons: processes that an app wants to have running, kept alive by `manage.py worker`.

An app declares them in its `jobs.py`:

    daemons.register(Daemon("match worker", "match_worker", lambda: settings.MATCHING_WORKERS))

The command runs until SIGTERM and may be killed at any line. It calls `cluster.end_with_parent`,
so that it does not outlive its supervisor, and watches over itself where it could hang.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.utils.module_loading import autodiscover_modules

from config import cluster

logger = logging.getLogger("spyglass.worker")

SETTLED_SECONDS = 60  # a process that lived this long did not fail at its start
LONGEST_PAUSE_SECONDS = 60


@dataclass(frozen=True)
class Daemon:
    """A command of `manage.py` of which `count()` processes are to run under each worker."""

    name: str
    command: str
    count: Callable[[], int]


_daemons: dict[str, Daemon] = {}


def register(daemon: Daemon) -> Daemon:
    """Declare a daemon. Called at import of an app's `jobs.py`."""
    _daemons[daemon.name] = daemon
    return daemon


def all() -> dict[str, Daemon]:
    """Every declared daemon by name."""
    autodiscover_modules("jobs")
    return dict(sorted(_daemons.items()))


class Keeper:
    """Keeps one process of a daemon running; those that fail early get a pause that grows."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._process: subprocess.Popen | None = None
        self._started = self._due = 0.0  # monotonic seconds
        self._failures = 0

    def look(self) -> None:
        """Start the process where it does not run and its pause is over."""
        if self.ended:
            self._note_end()
        if self._process is None and time.monotonic() >= self._due:
            self._start()

    @property
    def ended(self) -> bool:
        """Whether the process that was started has ended."""
        return self._process is not None and self._process.poll() is not None

    def ask_to_stop(self) -> None:
        """SIGTERM: end with the work at hand."""
        if self._process is not None and not self.ended:
            self._process.terminate()

    def wait(self, until: float) -> None:
        """Wait for its end, up to a time of the monotonic clock, and then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.warning("%s, process %d, did not end", self._daemon.name, self._process.pid)
        self.kill()

    def kill(self) -> int | None:
        """Kill whatever is left of its process group; returns the exit code."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            logger.debug("process group %d is gone already", process.pid)
        return process.wait()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", self._daemon.command],
            env=os.environ | {"PROCESS_ROLE": "worker", cluster.PARENT: str(os.getpid())},
            cwd=settings.BASE_DIR,
            start_new_session=True,  # one group to kill, and Ctrl-C reaches only the supervisor
        )
        self._started = time.monotonic()
        logger.info("started %s, process %d", self._daemon.name, self._process.pid)

    def _note_end(self) -> None:
        lived = time.monotonic() - self._started
        code = self.kill()
        self._failures = 0 if lived > SETTLED_SECONDS else self._failures + 1
        pause = min(2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS) if self._failures else 0
        self._due = time.monotonic() + pause
        logger.error(
            "%s ended (exit code %s) after %.0f s; starting it again in %d s",
            self._daemon.name,
            code,
            lived,
            pause,
        )
