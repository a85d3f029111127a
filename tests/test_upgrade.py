"""Upgrades of populated databases, from every earlier state of the migrations, under readers.

A state is a set of released migrations that some commit had; the code of its last commit makes the
database, fills it with demo data, and goes on reading while and after the code of today migrates.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import psycopg
import pytest

from config.servers import PostgresServer, ValkeyServer

PROJECT = Path(__file__).resolve().parent.parent
_MIGRATION = re.compile(r"[a-z]+/(?:migrations/\d{4}_\w+\.py|sql/\d{4}_\w+\.sql)")

# Runs in the code of the state, as `prepare` without the static files.
FILL = """
import django
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
call_command("migrate", verbosity=0)
if not get_user_model().objects.filter(is_superuser=True).exists():
    get_user_model().objects.create_superuser("admin")
call_command("demo", "--size", "small", "--if-empty")
"""

# Runs in the code of the state. Reads every list of the API that answers 200, again and again, and
# says which ceased to, and whose answer became another; the last time, after a refresh, it may.
READER = """
import json, sys, django
django.setup()
from django.contrib.auth import get_user_model
from django.urls import get_resolver
from rest_framework.test import APIClient
from config import caching

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


# As the worker's jobs do.
REFRESH_AND_COMPARE = """
import django
django.setup()
from django.core.management import call_command
call_command("refresh")
call_command("reconcile")
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
        self.valkey = ValkeyServer(folder / "valkey")
        self.postgres.start()
        self.valkey.start()
        self._reached = -1

    def stop(self) -> None:
        self.postgres.stop()
        self.valkey.stop()

    def environment(self, database: str, tree: Path) -> dict[str, str]:
        return os.environ | {
            "DATABASE_URL": self.url(database),
            "REDIS_URL": self.valkey.url,
            "SPYGLASS_VAR": str(self._folder / f"var-{tree.name}"),
            "PYTHONPATH": str(tree),
        }

    def url(self, database: str) -> str:
        return self.postgres.url.replace("/spyglass?", f"/{database}?")

    def reach(self, position: int) -> Path:
        """Bring the database to a state; returns the tree of its code."""
        commits = list(states())
        while self._reached < position:
            self._reached += 1
            tree = self._tree(commits[self._reached])
            run([sys.executable, "-c", FILL], tree, self.environment("spyglass", tree))
        return self._tree(commits[position])

    def copy(self, name: str) -> str:
        """A copy of the database as it is now."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            server.execute(f"CREATE DATABASE {name} TEMPLATE spyglass")
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
    chain.stop()


def test_there_are_earlier_states():
    if not states():
        pytest.skip("no history of git here: nothing to upgrade from")
    assert len(states()) >= 12


@pytest.mark.parametrize("position", range(len(states())), ids=list(states()))
def test_a_populated_database_upgrades_while_the_code_before_reads(chain, position, tmp_path):
    tree = chain.reach(position)
    database = chain.copy("upgraded")
    before = chain.environment(database, tree)
    log = tmp_path / "reader.log"
    reader = subprocess.Popen(
        [sys.executable, "-c", READER], cwd=tree, text=True,
        env=before | {"REDIS_URL": "redis://127.0.0.1:1/0", "PROCESS_ROLE": "web"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"),
    )  # fmt: skip
    try:
        began = json.loads(reader.stdout.readline() or "{}")
        assert len(began.get("reads", [])) >= 3, began or log.read_text()
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
        # Where data of another domain came, and from the newest: the others hold the same data.
        if "0001_initial" in list(states().values())[position] or position == len(states()) - 1:
            run([sys.executable, "-c", REFRESH_AND_COMPARE], PROJECT, today)
        assert _ask(reader, "end", log)["faults"] == {}
    finally:
        reader.kill()
        reader.communicate()


def _ask(reader: subprocess.Popen, word: str, log: Path) -> dict:
    reader.stdin.write(f"{word}\n")
    reader.stdin.flush()
    line = reader.stdout.readline()
    assert line, log.read_text()
    return json.loads(line)
