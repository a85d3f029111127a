"""The embedded servers: what kills, half-finished starts and odd folders do to them."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from config.embedded import PROJECT, EmbeddedError, PostgresServer, ValkeyServer, secret_key

# Enters a session, says which URLs it got, and leaves it at the end of its input.
USER = """
import os, select, sys
from config import embedded
def wait():
    while not select.select([sys.stdin], [], [], 0.1)[0]:  # a bare read can miss a signal
        pass
with embedded.session(announce=lambda line: print(line, flush=True)):
    {inside}
    print("ready", os.environ["DATABASE_URL"], os.environ["REDIS_URL"], flush=True)
    wait()
"""


def run_sql(server: PostgresServer, statement: str) -> list[tuple]:
    with psycopg.connect(server.url) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def var(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("v")
    yield folder
    for server in (PostgresServer(folder / "postgres", fast=True), ValkeyServer(folder / "valkey")):
        server.stop()


User = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def user(var: Path) -> Iterator[User]:
    """Starts a process that uses the servers under `var`, and waits until it has them."""
    started = []

    def start(*, inside: str = "pass", wait: bool = True, **more: str) -> "subprocess.Popen[str]":
        ours = {"DATABASE_URL", "REDIS_URL", "SPYGLASS_EMBEDDED", "SECRET_KEY"}
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        process = subprocess.Popen(
            [sys.executable, "-c", USER.format(inside=inside)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=environment | {"SPYGLASS_VAR": str(var)} | more,
        )
        started.append(process)
        if wait:
            process.lines = read_until(process, "ready")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def read_until(process: "subprocess.Popen[str]", word: str) -> list[str]:
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(word):
            return lines
    pytest.fail(f"ended without {word!r}: {lines} {process.stderr.read()}")


def leave(process: "subprocess.Popen[str]") -> None:
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_postgres_is_the_one_that_the_project_needs(postgres: PostgresServer) -> None:
    available = {name for (name,) in run_sql(postgres, "SELECT name FROM pg_available_extensions")}
    assert {"vector", "pg_trgm", "unaccent", "pg_stat_statements"} <= available
    assert run_sql(postgres, "SHOW listen_addresses") == [("",)]
    assert run_sql(postgres, "SHOW timezone") == [("UTC",)]
    assert run_sql(postgres, "SELECT lower('ΆΣ'), upper('ß') = 'ß'") == [("άσ", True)]
    assert int(run_sql(postgres, "SHOW server_version_num")[0][0]) >= 180000


def test_valkey_listens_on_its_socket_only(valkey: ValkeyServer) -> None:
    client = redis.from_url(valkey.url)
    assert client.config_get("port") == {"port": "0"}
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}


def test_the_sockets_are_for_their_owner_only(
    postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    for server in (postgres, valkey):
        assert server.socket_folder.stat().st_mode & 0o077 == 0


def test_killed_postgres_comes_back_with_what_was_committed(postgres: PostgresServer) -> None:
    run_sql(postgres, "CREATE TABLE kept AS SELECT 42 AS n")
    for _ in range(3):
        os.kill(postgres.pid, signal.SIGKILL)
        while postgres.pid is not None:
            time.sleep(0.01)
        postgres.start()
        assert run_sql(postgres, "SELECT n FROM kept") == [(42,)]


def test_killed_valkey_comes_back_with_its_streams(valkey: ValkeyServer) -> None:
    redis.from_url(valkey.url).xadd("views", {"item": 1})
    os.kill(valkey.pid, signal.SIGKILL)
    while valkey.pid is not None:
        time.sleep(0.01)
    valkey.start()
    assert redis.from_url(valkey.url).xlen("views") == 1


def test_start_and_stop_twice_are_no_error(postgres: PostgresServer) -> None:
    pid = postgres.pid
    PostgresServer(postgres.directory, fast=True).start()
    assert postgres.pid == pid
    PostgresServer(postgres.directory, fast=True).stop()
    assert postgres.pid is None
    postgres.stop()


def test_half_finished_initdb_is_made_anew(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "pg", fast=True)
    code = f"from config.embedded import *; PostgresServer({str(server.directory)!r}).start()"
    maker = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT)
    while not list(server.directory.glob("partial-*/PG_VERSION")):
        time.sleep(0.005)
    maker.kill()
    maker.wait()
    assert not server.data.exists()
    try:
        server.start()
        assert run_sql(server, "SELECT current_database()") == [("spyglass",)]
    finally:
        server.stop()


def test_a_pid_that_now_is_another_programs_does_not_stop_the_start(
    postgres: PostgresServer,
) -> None:
    pidfile = postgres.data / "postmaster.pid"
    text = pidfile.read_text()
    postgres.stop()
    owner = postgres.directory.stat().st_uid  # PostgreSQL looks only at its own user's processes
    with subprocess.Popen(["sleep", "600"], user=owner) as other:
        pidfile.write_text(text.replace(text.split()[0], str(other.pid), 1))
        postgres.start()
        other.kill()
    assert run_sql(postgres, "SELECT 1") == [(1,)]


def test_another_major_version_is_one_sentence(postgres: PostgresServer) -> None:
    postgres.stop()
    (postgres.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match="made by PostgreSQL 17 and this is PostgreSQL 18"):
        postgres.start()
    (postgres.data / "PG_VERSION").write_text("18\n")


def test_a_broken_configuration_says_why(postgres: PostgresServer) -> None:
    postgres.stop()
    (postgres.data / "postgresql.auto.conf").write_text("work_mem = 'plenty'\n")
    with pytest.raises(EmbeddedError, match=r"did not start: .*FATAL.* \(log: .*server.log\)"):
        postgres.start()


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("long " * 20) / ("ß,'\"$" * 10)
    servers = [PostgresServer(deep / "pg", fast=True), ValkeyServer(deep / "valkey")]
    try:
        for server in servers:
            server.start()
            assert deep not in server.socket_folder.parents
        assert run_sql(servers[0], "SELECT 1") == [(1,)]
        assert redis.from_url(servers[1].url).ping()
    finally:
        for server in servers:
            server.stop()
    assert not any(server.socket_folder.exists() for server in servers)


def test_a_strange_short_path_works_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("p") / "a 'b\" %41+ü"
    servers = [PostgresServer(folder / "pg", fast=True), ValkeyServer(folder / "valkey")]
    try:
        for server in servers:
            server.start()
            assert server.socket_folder.parent == server.directory
        assert run_sql(servers[0], "SELECT 1") == [(1,)]
        assert redis.from_url(servers[1].url).ping()
    finally:
        for server in servers:
            server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
def test_as_root_below_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = PostgresServer(closed / "pg", fast=True)
    try:
        server.start()
        assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert run_sql(server, "SELECT 1") == [(1,)]
    finally:
        server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
def test_root_keeps_the_user_who_was_there_first(tmp_path: Path) -> None:
    daemon = pwd.getpwnam("daemon")
    folder = tmp_path / "pg"
    folder.mkdir(mode=0o700)
    shutil.chown(folder, daemon.pw_uid, daemon.pw_gid)
    server = PostgresServer(folder, fast=True)
    try:
        server.start()
        assert Path(f"/proc/{server.pid}").stat().st_uid == daemon.pw_uid
    finally:
        server.stop()


def test_two_users_share_the_servers_and_the_last_stops_them(var: Path, user: User) -> None:
    postgres, valkey = PostgresServer(var / "postgres"), ValkeyServer(var / "valkey")
    first = user()
    assert first.lines[:2] == ["starting embedded PostgreSQL …", "starting embedded Valkey …"]
    assert first.lines[2] == f"ready {postgres.url} {valkey.url}"
    pids = postgres.pid, valkey.pid
    second = user()
    assert len(second.lines) == 1
    leave(first)
    assert (postgres.pid, valkey.pid) == pids
    assert run_sql(postgres, "SELECT 1") == [(1,)]
    leave(second)
    assert (postgres.pid, valkey.pid) == (None, None)


def test_users_that_start_at_once_do_not_meet(var: Path, user: User) -> None:
    users = [user(wait=False) for _ in range(4)]
    starts = [len(read_until(process, "ready")) for process in users]
    assert sorted(starts) == [1, 1, 1, 3]  # one of them announced two servers
    for process in users:
        leave(process)
    assert PostgresServer(var / "postgres").pid is None


def test_after_a_kill_of_user_and_server_the_next_session_heals(var: Path, user: User) -> None:
    postgres = PostgresServer(var / "postgres")
    killed = user()
    run_sql(postgres, "CREATE TABLE kept AS SELECT 42 AS n")
    killed.kill()
    killed.wait()
    pid = postgres.pid
    assert pid is not None  # a killed user leaves the servers to the next one
    os.kill(pid, signal.SIGKILL)
    following = user()
    assert postgres.pid not in (None, pid)
    assert run_sql(postgres, "SELECT n FROM kept") == [(42,)]
    leave(following)
    assert postgres.pid is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_in_order(var: Path, user: User, number: signal.Signals) -> None:
    process = user()
    process.send_signal(number)
    process.wait(30)
    assert process.returncode in (128 + number, -number)
    assert PostgresServer(var / "postgres").pid is None
    assert ValkeyServer(var / "valkey").pid is None


def test_a_forked_child_keeps_the_servers_alive(var: Path, user: User) -> None:
    parent = user(inside="if os.fork() == 0: os.close(1); os.close(2); wait(); os._exit(0)")
    parent.terminate()
    parent.wait(30)
    assert PostgresServer(var / "postgres").pid is not None
    parent.stdin.close()  # ends the child
    leave(user())
    assert PostgresServer(var / "postgres").pid is None


def test_a_child_process_joins_by_the_urls_it_inherited(var: Path, user: User) -> None:
    postgres, valkey = PostgresServer(var / "postgres"), ValkeyServer(var / "valkey")
    parent = user()
    child = user(DATABASE_URL=postgres.url, REDIS_URL=valkey.url)
    parent.kill()
    parent.wait()
    leave(user())  # a third one comes and goes
    assert postgres.pid is not None
    leave(child)
    assert postgres.pid is None


def test_further_interrupts_leave_no_server_behind(var: Path, user: User) -> None:
    process = user()
    process.send_signal(signal.SIGINT)
    end = time.monotonic() + 60
    while process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    assert PostgresServer(var / "postgres").pid is None
    assert ValkeyServer(var / "valkey").pid is None


def test_given_urls_start_nothing(var: Path, user: User) -> None:
    process = user(DATABASE_URL="postgresql://db/x", REDIS_URL="redis://cache/0")
    assert process.lines == ["ready postgresql://db/x redis://cache/0"]
    leave(process)
    assert list(var.iterdir()) == []


def test_only_what_is_missing_starts(var: Path, user: User) -> None:
    process = user(DATABASE_URL="postgresql://db/x")
    assert process.lines[0] == "starting embedded Valkey …"
    assert not (var / "postgres").exists()
    leave(process)


def test_embedded_servers_can_be_forbidden(var: Path, user: User) -> None:
    process = user(SPYGLASS_EMBEDDED="0", wait=False)
    assert process.wait(30) == 1
    assert "KeyError: 'DATABASE_URL'" in process.stderr.read()
    assert list(var.iterdir()) == []


def test_the_secret_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = secret_key(tmp_path)
    assert len(key) >= 50
    assert secret_key(tmp_path) == key
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
