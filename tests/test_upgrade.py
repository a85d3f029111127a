"""Upgrades of populated databases, from every earlier state of the migrations, under readers.

A state is a set of released migrations that some commit had; the code of its last commit makes the
database, fills it with demo data, and goes on reading while and after the code of today migrates.
None of it has a Valkey: what is read is what the database says.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path

import psycopg
import pytest

from config import limits
from config.servers import PostgresServer
from tests.processes import LITTLE_DEMO

PROJECT = Path(__file__).resolve().parent.parent
_MIGRATION = re.compile(r"[a-z]+/(?:migrations/\d{4}_\w+\.py|sql/\d{4}_\w+\.sql)")

SET_UP = "import django\ndjango.setup()\n"

# Runs in the code of the state. First as `prepare` without the static files. Then it is told the
# name of a copy and the limits of a web process, reads every list of the API that answers 200,
# again and again, and says which ceased to, and whose answer became another; the last time, after
# a refresh, it may.
STATE = """
import contextlib, json, sys
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.db.backends.signals import connection_created
from django.urls import get_resolver
from rest_framework.test import APIClient
from config import caching

with contextlib.redirect_stdout(sys.stderr):
    call_command("migrate", verbosity=0)
    if not get_user_model().objects.filter(is_superuser=True).exists():
        get_user_model().objects.create_superuser("admin")
    call_command("demo", "--size", "small", "--if-empty")
connection.close()
print("filled", flush=True)
told = json.loads(sys.stdin.readline())

def limit(connection, **_):
    with connection.cursor() as cursor:
        for name, value in told["limits"].items():
            cursor.execute("SELECT set_config(%s, %s, false)", [name, value])

connection_created.connect(limit)
connection.settings_dict["NAME"] = told["database"]
client = APIClient(raise_request_exception=False)
client.force_authenticate(get_user_model().objects.filter(is_superuser=True).first())

def read(path):
    caching.forget()
    answer = client.get(path, headers={"host": "localhost"})
    return answer.status_code, b"" if answer.streaming else answer.content

def walk(patterns, prefix="/"):
    for one in patterns:
        path = prefix + str(one.pattern)
        if hasattr(one, "url_patterns"):
            yield from walk(one.url_patterns, path)
        elif "api/v1/" in path and "<" not in path and "stream" not in path:
            yield path

paths = list(walk(get_resolver().url_patterns))
first = {path: read(path) for path in paths}
good = {path: body for path, (status, body) in first.items() if status == 200}
stable = {path for path in good if read(path) == first[path]}
print(json.dumps({"reads": sorted(good), "stable": sorted(stable)}), flush=True)
rounds, faults = 0, {}
last = False
while not last:
    last = bool(sys.stdin.readline().strip() == "end")
    for path, body in good.items():
        status, now = read(path)
        if status != 200:
            faults[path] = f"{status} {now[:300]!r}"
        elif not last and path in stable and now != body:
            faults[path] = f"was {body[:300]!r}, is {now[:300]!r}"
    rounds += 1
    print(json.dumps({"rounds": rounds, "faults": faults}), flush=True)
"""

# As the worker's jobs do; the names of apps follow, of none: all.
REFRESH_AND_COMPARE = f"""{SET_UP}
import sys
from django.core.management import call_command
call_command("refresh", *sys.argv[1:])
call_command("reconcile", *sys.argv[1:])
"""


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, check=True).stdout


@cache
def states() -> dict[str, str]:
    """{the last commit of a state: its newest migrations}, oldest first; none without history.

    Commits whose migrations were other than they are now are left out: they were drafts, never
    released (test_migrations.py keeps released ones as they are).
    """
    try:
        commits = git("log", "--format=%h", "--reverse", "--first-parent").decode().split()
    except (OSError, subprocess.CalledProcessError):
        return {}
    listed = {commit: _migrations(commit) for commit in commits}
    now = listed[commits[-1]]
    last = {found: commit for commit, found in listed.items() if found and found < now}
    known: frozenset = frozenset()
    result = {}
    for found, commit in last.items():
        result[commit] = ", ".join(
            sorted(path for path, _ in found - known if "migrations" in path)
        )
        known = found
    return result


def _migrations(commit: str) -> frozenset[tuple[str, str]]:
    lines = git("ls-tree", "-r", commit).decode().splitlines()
    return frozenset(
        (path, meta.split()[2])
        for meta, path in (line.split("\t") for line in lines)
        if _MIGRATION.fullmatch(path)
    )


class Chain:
    """One database that goes from state to state, each time by the code of that state."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.postgres = PostgresServer(folder / "pg", fast=True)
        self.postgres.start()
        self._reached = -1

    def environment(self, database: str, tree: Path) -> dict[str, str]:
        return os.environ | {
            "DATABASE_URL": self.url(database),
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "SPYGLASS_VAR": str(self._folder / f"var-{tree.name}"),
            "PYTHONPATH": str(tree),
        }

    def url(self, database: str) -> str:
        return self.postgres.url.replace("/spyglass?", f"/{database}?")

    @contextmanager
    def at(self, position: int, log: Path) -> Iterator[subprocess.Popen]:
        """The database is brought to a state, by a process that then waits and may read."""
        assert position > self._reached, "a database does not go back"
        while True:
            self._reached += 1
            tree = self._tree(list(states())[self._reached])
            process = subprocess.Popen(
                [sys.executable, "-c", f"{SET_UP}{LITTLE_DEMO}{STATE}"], cwd=tree, text=True,
                env=self.environment("spyglass", tree),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"),
            )  # fmt: skip
            try:
                assert process.stdout.readline() == "filled\n", log.read_text()
                if self._reached == position:
                    yield process
                    return
            finally:
                process.kill()
                process.communicate()

    def copy(self, name: str) -> str:
        """A copy of the database as it is now."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            server.execute(f"CREATE DATABASE {name} TEMPLATE spyglass STRATEGY FILE_COPY")
        return name

    def _tree(self, commit: str) -> Path:
        tree = self._folder / commit
        if not tree.exists():
            with tarfile.open(fileobj=BytesIO(git("archive", commit))) as archive:
                archive.extractall(tree, filter="data")
        return tree


def run(command: list[str], tree: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Iterator[Chain]:
    chain = Chain(tmp_path_factory.mktemp("upgrade"))
    yield chain
    chain.postgres.stop()


def test_there_are_earlier_states():
    if not states():
        pytest.skip("no history of git here: nothing to upgrade from")
    assert len(states()) >= 12


@pytest.mark.parametrize("position", range(len(states())), ids=list(states()))
def test_a_populated_database_upgrades_while_the_code_before_reads(chain, position, tmp_path):
    log = tmp_path / "reader.log"
    with chain.at(position, log) as reader:
        database = chain.copy("upgraded")
        began = _ask(reader, json.dumps({"database": database, "limits": limits.of("web")}), log)
        assert len(began["reads"]) >= 3, began
        assert began["stable"]
        today = chain.environment(database, PROJECT)
        migrate = subprocess.Popen(
            [sys.executable, "manage.py", "migrate"], cwd=PROJECT, env=today, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        meanwhile = 0
        while migrate.poll() is None:
            _ask(reader, "on", log)
            meanwhile += 1
        said = migrate.stdout.read()
        assert migrate.returncode == 0, said
        assert meanwhile > 1
        assert "Applying" in said
        # Where data of another domain came those; from the newest state all.
        came = re.findall(r"(\w+)/migrations/0001_initial", list(states().values())[position])
        if position == len(states()) - 1:
            run([sys.executable, "-c", REFRESH_AND_COMPARE], PROJECT, today)
        elif came:
            run([sys.executable, "-c", REFRESH_AND_COMPARE, *came], PROJECT, today)
        assert _ask(reader, "end", log)["faults"] == {}


def _ask(reader: subprocess.Popen, word: str, log: Path) -> dict:
    reader.stdin.write(f"{word}\n")
    reader.stdin.flush()
    line = reader.stdout.readline()
    assert line, log.read_text()
    return json.loads(line)
