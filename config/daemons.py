"""Daemons: processes that an app wants to have running, kept alive by `manage.py worker`.

An app declares them in its `jobs.py`:

    daemons.register(Daemon("match worker", "match_worker", lambda: settings.MATCHING_WORKERS))

The command runs until SIGTERM and may be killed at any line. It watches over itself where it could
hang.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.utils.module_loading import autodiscover_modules

from config.children import Child


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


def children() -> list[Child]:
    """The processes that are to run under one worker, not started yet."""
    return [
        Child(
            daemon.name,
            [sys.executable, "manage.py", daemon.command],
            cwd=settings.BASE_DIR,
            environment={"PROCESS_ROLE": "worker"},
        )
        for daemon in all().values()
        for _ in range(daemon.count())
    ]
