"""Finding and ending processes by a mark in their environment, however deep they were forked."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def kill_marked(mark: str) -> None:
    """SIGKILL every process that has `mark` in its environment, until none is left."""
    deadline = time.monotonic() + 10
    while pids := marked(mark):
        assert time.monotonic() < deadline, f"processes {pids} do not die"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def marked(mark: str) -> list[int]:
    """Live processes that have `mark` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or is another user's
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def killing(when: str, step: str) -> str:
    """Code that kills its process before or after that calls `module.function`, of what it has
    imported."""
    module, _, path = step.partition(".")
    return f"""
import os
*owner, name = {path!r}.split(".")
holder = getattr({module}, owner[0]) if owner else {module}
real = getattr(holder, name)
def killed(*args, **options):
    {"os.kill(os.getpid(), 9)" if when == "before" else "pass"}
    real(*args, **options)
    os.kill(os.getpid(), 9)
setattr(holder, name, killed)
"""
