"""The PostgreSQL and Valkey that start by themselves when no URL is given. Imports no Django.

`session()` wraps every command: whatever DATABASE_URL and REDIS_URL leave open is served by our
own servers under SPYGLASS_VAR (default: `var/` in the project). All processes share them; the last
one out stops them.
"""

import fcntl
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from config.servers import EmbeddedError, PostgresServer, ValkeyServer

__all__ = ["EmbeddedError", "PostgresServer", "ValkeyServer", "session"]

PROJECT = Path(__file__).resolve().parent.parent
Server = PostgresServer | ValkeyServer


def var_folder() -> Path:
    """Where servers, secret key, metrics and static files live."""
    return Path(os.environ.get("SPYGLASS_VAR") or PROJECT / "var").resolve()


def describe() -> None:
    """Set the variables that settings need, and start nothing: enough to print a help text."""
    var = var_folder()
    os.environ.setdefault("DATABASE_URL", PostgresServer(var / "postgres").url)
    os.environ.setdefault("REDIS_URL", ValkeyServer(var / "valkey").url)
    os.environ.setdefault("SECRET_KEY", secrets.token_urlsafe(50))


@contextmanager
def session(announce: Callable[[str], None] | None = None) -> Iterator[None]:
    """Run a block with DATABASE_URL and REDIS_URL set, on embedded servers where they are not.

    `announce` is called with one line before a server starts. Raises EmbeddedError. A URL that is
    our own server's (inherited from a parent process) joins it like any other user. A process that
    gets SIGTERM or SIGHUP leaves in order; one that is killed leaves the servers to the next user.
    SPYGLASS_EMBEDDED=0 (the container image sets it) starts nothing, so that a missing URL is an
    error.
    """
    var = var_folder()
    servers = {
        "DATABASE_URL": PostgresServer(var / "postgres"),
        "REDIS_URL": ValkeyServer(var / "valkey"),
    }
    wanted = {
        name: server
        for name, server in servers.items()
        if os.environ.get(name, server.url) == server.url
    }
    if not wanted or os.environ.get("SPYGLASS_EMBEDDED") in ("0", "off", "false"):
        yield
        return
    try:
        run = var / "run"
        run.mkdir(parents=True, exist_ok=True)
        with _exclusive(run / "start.lock"):
            users = _open_lock(run / "users.lock")
            fcntl.flock(users, fcntl.LOCK_SH)
    except PermissionError as error:
        raise EmbeddedError(_not_ours(error)) from error
    owner = os.getpid()
    with _orderly_signals(owner):
        try:
            with _exclusive(run / "start.lock"):
                _start(wanted, announce)
                given = {name: server.url for name, server in wanted.items()}
                if "DATABASE_URL" in wanted:
                    given["SPYGLASS_EMBEDDED"] = "1"
                    given["SECRET_KEY"] = os.environ.get("SECRET_KEY") or secret_key(var)
            os.environ.update(given)
            yield
        finally:
            if os.getpid() == owner:  # a forked child only inherits the lock
                with _undisturbed():
                    _leave(run, users, servers)


def _start(wanted: dict[str, Server], announce: Callable[[str], None] | None) -> None:
    try:
        for server in wanted.values():
            if server.pid is None:
                if announce is not None:
                    announce(f"starting embedded {server.label} …")
                server.start()
    except PermissionError as error:
        raise EmbeddedError(_not_ours(error)) from error
    except OSError as error:
        raise EmbeddedError(f"An embedded server cannot start: {error}.") from error


def _leave(run: Path, users: int, servers: dict[str, Server]) -> None:
    """Give up the shared lock; whoever can then take it alone is the last, and stops the servers.

    Closed and opened again, because a forked child shares the old descriptor's lock.
    """
    with _exclusive(run / "start.lock"):
        os.close(users)
        last = _open_lock(run / "users.lock")
        try:
            fcntl.flock(last, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(last)
        failed = []
        for server in servers.values():
            try:
                server.stop()
            except EmbeddedError as error:  # which must not keep the other one running
                failed.append(str(error))
        if failed:
            raise EmbeddedError("\n".join(failed))


def secret_key(var: Path) -> str:
    """The signing key of an installation without SECRET_KEY; made once, readable by its user."""
    path = var / "secret_key"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(50))
        partial.rename(path)
    return path.read_text()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _orderly_signals(owner: int) -> Iterator[None]:
    """Turn a deadly SIGTERM or SIGHUP into SystemExit, unless somebody handles it already."""

    def leave(number: int, _frame: object) -> None:
        if os.getpid() == owner:
            raise SystemExit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    taken = []
    if threading.current_thread() is threading.main_thread():
        deadly = (signal.SIGTERM, signal.SIGHUP)
        taken = [each for each in deadly if signal.getsignal(each) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is leave:
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no further Ctrl-C or SIGTERM end what stops the servers: it would leave one running."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it is not Python's
                signal.signal(number, handler)


def _not_ours(error: PermissionError) -> str:
    return (
        f"No permission for {error.filename}: run as the user who started Spyglass here first, "
        "or set SPYGLASS_VAR to a folder of your own."
    )
