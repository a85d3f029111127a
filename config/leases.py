"""Leases: the right to run one job, held by one process at a time.

Taken, extended and released by single compare-and-set statements, so that it works under
PgBouncer in transaction mode, where a session advisory lock would not. A holder that was killed
loses its lease at once to a process that can see that it is dead (same host), and to any other
process when it expires.
"""

import hashlib
import os
import platform
import socket
import uuid
from datetime import timedelta
from functools import cache
from pathlib import Path

from django.db import connection

from config.models import Lease
from config.sqlfiles import queries

LENGTH = timedelta(seconds=60)


def new_owner() -> str:
    """A token for one run of this process: `<random> <realm> <start time of the process>`.

    The realm says whose process ids are meant; the start time tells a process from a later one
    that was given the same id.
    """
    return f"{uuid.uuid4().hex} {_realm()} {_process(os.getpid())[1]}"


def take(name: str, owner: str) -> bool:
    """Take the lease `name` for `owner`; False where another process holds it.

    Free, expired and held by a dead process of this host all count as free.
    """
    if _compare_and_set(name, owner, dead_owner=None):
        return True
    held = Lease.objects.filter(name=name).first()
    if held is None:
        return _compare_and_set(name, owner, dead_owner=None)
    return is_dead(held.owner, held.pid) and _compare_and_set(name, owner, dead_owner=held.owner)


def extend(name: str, owner: str) -> bool:
    """Push the end of the lease out to LENGTH from now; False where `owner` lost it."""
    with connection.cursor() as cursor:
        cursor.execute(
            queries("config")["extend_lease"], {"name": name, "owner": owner, "length": LENGTH}
        )
        return cursor.rowcount == 1


def release(name: str, owner: str) -> bool:
    """Give the lease back; False where `owner` did not hold it any more."""
    return Lease.objects.filter(name=name, owner=owner).delete()[0] == 1


def is_dead(owner: str, pid: int) -> bool:
    """Whether the process of id `pid` that made the token `owner` is known to be gone.

    False where that cannot be known: another host, another
    container, or a process that hides.
    """
    parts = owner.split(" ")
    if len(parts) != 3 or parts[1] != _realm():
        return False
    alive, started = _process(pid)
    return not alive or bool(parts[2] and started and parts[2] != started)


def _compare_and_set(name: str, owner: str, dead_owner: str | None) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            queries("config")["take_lease"],
            {
                "name": name,
                "owner": owner,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "length": LENGTH,
                "dead_owner": dead_owner,
            },
        )
        return cursor.fetchone() is not None


@cache
def _realm() -> str:
    """Names the set of process ids that this process sees: boot and pid namespace.

    The host name alone would not do: containers may share one and number their processes apart.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:  # not Linux: no namespaces either
        boot, namespace = platform.system(), socket.gethostname()
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def _process(pid: int) -> tuple[bool, str]:
    """(alive, start time in clock ticks since boot, or "" where unknown) of a process here."""
    try:
        # proc(5): the name in parentheses may hold anything, so count fields from its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _answers(pid), ""
    return fields[0] not in {"Z", "X"}, fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists and belongs to somebody else
        return True
    return True
