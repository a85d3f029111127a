"""`migrate` while others work: it waits for locks without making others wait."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from config.servers import PostgresServer, ValkeyServer
from tests.conftest import PROJECT
from tests.processes import until


class Place:
    """A migrated database of this module's own."""

    def __init__(self, postgres: PostgresServer, valkey: ValkeyServer):
        self.postgres = postgres
        self._environment = os.environ | {
            "DATABASE_URL": postgres.url, "REDIS_URL": valkey.url, "PYTHONUNBUFFERED": "1",
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "manage.py", "migrate", *arguments],
            cwd=PROJECT, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def migrate(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == code, said
        return said

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.postgres.url, autocommit=True)

    def has_column(self) -> bool:
        with self.connect() as session:
            return session.execute(
                "SELECT EXISTS (SELECT FROM information_schema.columns"
                " WHERE table_name = 'match_jobs' AND column_name = 'request_id')"
            ).fetchone()[0]


@pytest.fixture(scope="module")
def _place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("migrate")
    postgres, valkey = PostgresServer(folder / "pg", fast=True), ValkeyServer(folder / "valkey")
    postgres.start()
    valkey.start()
    place = Place(postgres, valkey)
    place.migrate()
    yield place
    postgres.stop()
    valkey.stop()


@pytest.fixture
def before(_place) -> Place:
    """The state before a column was added, and an index made CONCURRENTLY."""
    _place.migrate("matching", "0004")
    assert not _place.has_column()
    return _place


def said_until(process: subprocess.Popen, text: str) -> str:
    said = ""
    while text not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


def test_readers_pass_while_it_waits_and_it_gets_through_at_last(before):
    slowest = 0.0
    stop = threading.Event()

    def read() -> None:
        nonlocal slowest
        with before.connect() as session:
            while not stop.is_set():
                started = time.monotonic()
                session.execute("SELECT count(*) FROM match_jobs")
                slowest = max(slowest, time.monotonic() - started)
                time.sleep(0.02)

    reader = threading.Thread(target=read)
    with before.connect() as holder:
        holder.execute("SET application_name = 'a long report'")
        with holder.transaction():
            holder.execute("SELECT count(*) FROM match_jobs")
            reader.start()
            process = before.start()
            said = said_until(process, "waits for a lock")
            assert "(a long report)" in said
            said_until(process, "waits for a lock")
    rest, _ = process.communicate(timeout=60)
    stop.set()
    reader.join()
    assert process.returncode == 0, rest
    assert before.has_column()
    assert 0.5 < slowest < 3, (
        "it makes readers wait for 2 s at most, shorter than they are ready to"
    )


def test_where_a_lock_is_not_to_be_had_it_says_who_has_it(before):
    with before.connect() as holder, holder.transaction():
        holder.execute("SELECT count(*) FROM match_jobs")
        said = before.migrate("--patience", "0", code=1)
    assert "a lock was not to be had for 0 s" in said
    assert "The oldest transaction is of process" in said
    assert not before.has_column()
    before.migrate()


def test_a_statement_that_takes_too_long_is_undone(before):
    with before.connect() as holder, holder.transaction():
        holder.execute("SELECT count(*) FROM match_jobs")
        said = before.migrate("--statement-timeout", "1", code=1)
    assert "took longer than 1 s and was undone" in said
    assert not before.has_column()


def test_an_index_is_built_without_a_limit_while_others_write(before):
    before.migrate("matching", "0005")
    with before.connect() as holder, before.connect() as writer:
        with holder.transaction():
            holder.execute("DELETE FROM match_dismissals")
            process = before.start()
            said_until(process, "Running migrations")
            ends = time.monotonic() + 4  # twice what it waits for other locks
            while time.monotonic() < ends:
                writer.execute("SET lock_timeout = '500ms'")
                writer.execute("DELETE FROM match_dismissals")
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "waits for a lock" not in said
        assert writer.execute(
            "SELECT indisvalid FROM pg_index"
            " WHERE indexrelid = 'idx_match_dismissals_user'::regclass"
        ).fetchone() == (True,)


def test_an_index_whose_build_was_killed_is_built_again(before):
    before.migrate("matching", "0005")
    with before.connect() as holder, holder.transaction():
        holder.execute("DELETE FROM match_dismissals")
        process = before.start()
        with before.connect() as watcher:
            half_made = (
                "SELECT 1 FROM pg_index"
                " WHERE indexrelid = to_regclass('idx_match_dismissals_user') AND NOT indisvalid"
            )
            until(lambda: watcher.execute(half_made).fetchone(), "the index")
        process.kill()
        process.communicate()
    before.migrate()
    with before.connect() as session:
        assert session.execute(
            "SELECT indisvalid FROM pg_index"
            " WHERE indexrelid = 'idx_match_dismissals_user'::regclass"
        ).fetchone() == (True,)


def test_two_at_once_go_one_after_the_other(before):
    with before.connect() as holder, holder.transaction():
        holder.execute("SELECT count(*) FROM match_jobs")
        first = before.start()
        said_until(first, "waits for a lock")
        second = before.start()
        said_until(second, "another migrate is at work")
    for process in (first, second):
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert "No migrations to apply" in said
    assert before.has_column()
