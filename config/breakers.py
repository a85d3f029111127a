"""Circuit breakers: what fails is left alone for a while, so that callers do not each wait for it.

The pattern is of M. Nygard, Release It! (2007).
"""

import logging
import threading
import time

logger = logging.getLogger("spyglass.breakers")

LOG_EVERY = 30.0  # seconds


class Breaker:
    """Opens for `seconds` after `failures` in a row of `what` it guards.

    When they are over one caller tries again; the others go on without until it succeeded.
    """

    def __init__(self, what: str, *, seconds: float, failures: int = 1) -> None:
        self._what, self._seconds, self._limit = what, seconds, failures
        self.reset()

    def reset(self) -> None:
        """Forget what happened, and who was about to change it."""
        self._changing = threading.Lock()
        self._failures = 0
        self._open_until = 0.0  # monotonic; 0 while it is closed
        self._logged_at = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether what it guards is left alone now."""
        return time.monotonic() < self._open_until

    def allows(self) -> bool:
        """Whether this caller may try now; then it must say what became of it."""
        if not self._open_until:
            return True
        with self._changing:
            now = time.monotonic()
            if not self._open_until:  # it closed while this caller waited for the lock
                return True
            if now < self._open_until:
                return False
            self._open_until = now + self._seconds
            return True

    def succeeded(self) -> None:
        """What it guards worked."""
        if not self._failures:
            return
        with self._changing:
            was_open, self._failures, self._open_until = self._open_until, 0, 0.0
        if was_open:
            logger.warning("%s works again.", self._what)

    def failed(self, error: Exception) -> None:
        """What it guards failed."""
        with self._changing:
            now = time.monotonic()
            self._failures += 1
            opens = self._failures >= self._limit
            if opens:
                self._open_until = now + self._seconds
            quiet = not opens or now < self._logged_at + LOG_EVERY
            if not quiet:
                self._logged_at = now
        if not quiet:
            logger.warning("%s fails; going on without it: %s", self._what, error)
