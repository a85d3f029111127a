"""Processes of a test: waited for, found, and ended, however deep they were forked."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

# For the code of a process, before it loads demo data: enough of the catalog to have some of
# everything, a tenth of what people see.
LITTLE_DEMO = """
from catalog import demo
demo.SIZES["small"] = (60, 60)  # products, days
"""


def until(
    condition: Callable[[], Any],
    what: object = "it",
    *,
    seconds: float = 60,
    process: subprocess.Popen | None = None,
) -> Any:
    """The first true value of `condition()`. Fails after so many seconds, or where `process` ends.

    `what` is said then; where it can be called, what it returns.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        has_ended = process is not None and process.poll() is not None
        if has_ended or time.monotonic() > deadline:
            why = f"ended: {process.communicate()}" if has_ended else f"not within {seconds} s"
            raise AssertionError(f"{what() if callable(what) else what}: {why}")
        time.sleep(0.05)
    return value


def stopped_by_sigterm() -> threading.Event:
    """In a process of its own: an event that SIGTERM sets."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


def kill(pid: int) -> None:
    """SIGKILL a child of this process, and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def exit_code(pid: int) -> int:
    """How a child of this process ends, within a minute; negative: by that signal."""
    found = until(lambda: status if (status := os.waitpid(pid, os.WNOHANG))[0] else None, "its end")
    return os.waitstatus_to_exitcode(found[1])


def processes() -> list[tuple[int, int, int]]:
    """(pid, parent, process group) of every live process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, group = path.read_text().rpartition(")")[2].split()[:3]
            if state not in "ZX":
                found.append((int(path.parent.name), int(parent), int(group)))
    return found


def children(pid: int) -> list[int]:
    """Live children of a process, the smallest number first."""
    return sorted(child for child, parent, _ in processes() if parent == pid)


def kill_marked(mark: str) -> None:
    """SIGKILL every process that has `mark` in its environment, until none is left."""

    def are_gone() -> bool:
        pids = marked(mark)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    until(are_gone, f"the end of processes {marked(mark)}", seconds=10)


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
