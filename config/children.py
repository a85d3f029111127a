"""Child processes: kept running by their parent, and not outliving it. Imports no Django."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

logger = logging.getLogger("spyglass.worker")

SETTLED_SECONDS = 60  # a process that lived this long did not fail at its start
LONGEST_PAUSE_SECONDS = 60

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Found now: after a fork nothing may be loaded or looked up.
_prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None


class Child:
    """A process that should run as long as its parent does, with a process group of its own.

    `look`, called again and again, starts it where it does not run: at once if the one before lived
    for a minute, else after a pause that doubles from 1 s to 60 s.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._command, self._cwd, self._environment = list(command), cwd, dict(environment)
        self._process: subprocess.Popen | None = None
        self._started = self._due = 0.0  # monotonic seconds
        self._failures = 0

    @property
    def pid(self) -> int | None:
        """Its process id, which is its group's; None where it does not run."""
        return self._process and self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process that was started has ended. Not reaped: its group id stays taken."""
        if self._process is None:
            return False
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return ended is not None

    @property
    def wants_a_look(self) -> bool:
        """Whether it has ended, or is to be started."""
        return self.ended if self._process else time.monotonic() >= self._due

    def look(self) -> bool:
        """Notice its end, and start it when its time has come; whether it was started."""
        if self.ended:
            self._note_end()
        if self._process is not None or time.monotonic() < self._due:
            return False
        self.start()
        return True

    def start(self) -> None:
        """Start it now."""
        self._process = subprocess.Popen(
            self._command,
            cwd=self._cwd,
            env=os.environ | self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # one group to kill, and Ctrl-C reaches only the parent
            preexec_fn=end_with_parent(),  # noqa: PLW1509 - only calls what is loaded
        )
        self._started = time.monotonic()
        logger.info("started %s, process %d", self.name, self._process.pid)

    def ask_to_stop(self) -> None:
        """SIGTERM to the process itself, not to its group: end with the work at hand."""
        if self._process is not None and not self.ended:
            os.kill(self._process.pid, signal.SIGTERM)

    def wait(self, until: float) -> None:
        """Wait for its end, up to a time of the monotonic clock; then kill what is left of it."""
        while self._process is not None and not self.ended and time.monotonic() < until:
            time.sleep(0.05)
        if self._process is not None and not self.ended:
            logger.warning("%s, process %d, did not end in time", self.name, self._process.pid)
        self.kill()

    def kill(self) -> int | None:
        """Kill whatever is left of its process group; returns the exit code."""
        if self._process is None:
            return None
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            logger.debug("process group %d is gone already", self._process.pid)
        code = self._process.wait()
        self._process = None  # not before: who is interrupted here must be able to kill again
        return code

    def _note_end(self) -> None:
        lived = time.monotonic() - self._started
        code = self.kill()  # what a killed process has left would keep its ports
        self._failures = 0 if lived > SETTLED_SECONDS else self._failures + 1
        pause = min(2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS) if self._failures else 0
        self._due = time.monotonic() + pause
        logger.error(
            "%s ended (%s) after %.0f s; starting it again in %d s",
            self.name,
            ending(code),
            lived,
            pause,
        )


def ending(code: int) -> str:
    """How a process ended, for people."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def end_with_parent() -> Callable[[], None]:
    """A `preexec_fn` by which a child gets a SIGTERM when this process is killed (Linux)."""
    parent = os.getpid()

    def in_the_child() -> None:
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
            if os.getppid() != parent:  # it died before the call
                os._exit(1)

    return in_the_child
