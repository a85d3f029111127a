"""Child processes that do not outlive their parent. Imports no Django."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LINUX = sys.platform.startswith("linux")
_LIBC = ctypes.CDLL(None) if _LINUX else None  # found now: after a fork nothing may be loaded


def end_with_parent() -> None:
    """Get a SIGTERM when the parent is killed (Linux). Called in the child, also as preexec_fn.

    A parent that died before the call is not noticed: compare `os.getppid()` afterwards.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
