"""`script/server`: PostgreSQL, Valkey, worker and web server as one thing that Ctrl-C stops.

The web server and the worker are restarted, with a growing pause, when they end by themselves.
Imports no Django: everything that needs it runs in processes of its own.
"""

import argparse
import fcntl
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from config import embedded, web
from config.children import Child, ending

PROJECT = embedded.PROJECT
LOOPBACK = "localhost,127.0.0.1,[::1]"
READY_SECONDS = 60


def main() -> None:
    logging.basicConfig(format="%(message)s", stream=sys.stdout)  # what `children` warns of
    options = _options()
    signal.signal(signal.SIGINT, _interrupt)  # ignored in what a script starts with "&"
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        var = embedded.var_folder()
        var.mkdir(parents=True, exist_ok=True)
        with _only_server(var, options):
            _check_address(options.host, options.port)
            _environment(var, options.host)
            with embedded.session(announce=say):
                _prepare(options)
                _serve(options)
    except KeyboardInterrupt:
        sys.exit(130)
    except embedded.EmbeddedError as error:
        sys.exit(str(error))
    except PermissionError as error:
        sys.exit(f"No permission for {error.filename}: set SPYGLASS_VAR to a folder of your own.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/server", description=__doc__.splitlines()[0], parents=[web.parser()]
    )
    parser.add_argument("--no-demo", action="store_true", help="leave an empty database empty")
    return parser.parse_args()


@contextmanager
def _only_server(var: Path, options: argparse.Namespace) -> Iterator[None]:
    """One server per var folder; the lock's file says where it answers."""
    run = var / "run"
    run.mkdir(exist_ok=True)
    with (run / "server.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            sys.exit(f"Spyglass already runs here ({lock.read().strip()}): stop that one first.")
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, {web.address(options)}")
        lock.flush()
        yield


def _check_address(host: str, port: int) -> None:
    """Say at once what would otherwise surface from the web server, minutes later."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except PermissionError:
        sys.exit(f"Port {port} needs root: choose one above 1023 with --port.")
    except socket.gaierror:
        sys.exit(f"There is no address {host} on this machine: choose another with --host.")
    except OSError as error:
        sys.exit(
            f"Port {port} on {host} cannot be used ({error.strerror}): stop the program that has "
            f"it, or choose another with --port {port + 1 if port < 65535 else port - 1}."
        )


def _environment(var: Path, host: str) -> None:
    """Plain HTTP on this machine also with a DATABASE_URL; an open address needs its names."""
    allowed = os.environ.get("ALLOWED_HOSTS")
    if not _is_loopback(host) and not allowed:
        sys.exit(
            f"--host {host} is open to the network: set ALLOWED_HOSTS to the names that people "
            "will use, for example ALLOWED_HOSTS=spyglass.lan,192.168.1.10."
        )
    os.environ.setdefault("ALLOWED_HOSTS", LOOPBACK)
    os.environ.setdefault("HTTPS", "off")
    if not os.environ.get("SECRET_KEY"):
        os.environ["SECRET_KEY"] = embedded.secret_key(var)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _prepare(options: argparse.Namespace) -> None:
    command = [sys.executable, "manage.py", "prepare"]
    if options.no_demo:
        command.append("--no-demo")
    unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}  # its lines in order, also in a log file
    child = subprocess.Popen(command, cwd=PROJECT, env=unbuffered, start_new_session=True)
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if code:
        sys.exit(f"The database could not be prepared ({ending(code)}); the reason is above.")


def _serve(options: argparse.Namespace) -> None:
    listen = ["--host", options.host, "--port", str(options.port)]
    server = [sys.executable, "-m", "config.web", *listen, "--workers", str(options.workers)]
    worker = [sys.executable, "manage.py", "worker"]
    parts = {  # and how long they have to end, in seconds
        Child("web server", server, cwd=PROJECT, environment={}): 10,
        Child("worker", worker, cwd=PROJECT, environment={"PROCESS_ROLE": "worker"}): 35,
    }
    impatient = True  # until everything runs there is nothing to wait for
    try:
        _await_web(options, parts)
        _say_addresses(options)
        impatient = False
        while True:
            time.sleep(0.25)
            for child in parts:
                child.look()
    except KeyboardInterrupt:
        say("stopping …")
    finally:
        _stop(parts, impatient=impatient)


def _await_web(options: argparse.Namespace, parts: Iterable[Child]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        for child in parts:
            child.look()
        if web.answers(options):
            return
        time.sleep(0.1)
    say(f"The web server has not answered for {READY_SECONDS} s; its messages are above.")


def _stop(parts: Mapping[Child, float], *, impatient: bool) -> None:
    """SIGTERM to all, then wait; a second Ctrl-C waits no longer."""
    for child in parts:
        child.ask_to_stop()
    try:
        for child, patience in parts.items():
            if not impatient:
                child.wait(time.monotonic() + patience)
    except KeyboardInterrupt:
        say("… at once")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a third one must not leave any behind
    for child in parts:
        child.kill()


def _say_addresses(options: argparse.Namespace) -> None:
    base = web.address(options)
    say(
        f"\nSpyglass runs; Ctrl-C stops it.\n"
        f"  API docs  {base}/api/docs\n"
        f"  Admin     {base}/admin/\n"
        f"  Metrics   {base}/metrics\n"
        f"  Health    {base}/health/ready\n"
    )


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
