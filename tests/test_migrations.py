"""Migrations run while others work, and a released one is never edited."""

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from config.management.commands.migrate import LOCK_SECONDS, STATEMENT_SECONDS

PROJECT = Path(__file__).resolve().parent.parent
SQUAWK = Path(sys.executable).parent / "squawk"
APPS = ("config", "catalog", "matching", "discovery", "counters", "feeds")
RELEASED = PROJECT / "tests" / "released_migrations.txt"

# Of the form of columns, which is ours to choose; and IF NOT EXISTS, which would take the invalid
# index of a killed build for a good one (see test_what_is_no_transaction_can_be_run_again).
EXCLUDED = (
    "prefer-bigint-over-int,prefer-bigint-over-smallint,prefer-text-field,prefer-robust-stmts"
)
# What released migrations do that a new one must not, and why that did no harm.
_NEW = "on a table that 0001 of the same release made, and empty"
_VIEW = "on a materialized view that the migration itself makes, which squawk does not see"
FORGIVEN = {
    ("catalog", "0001_initial", "require-concurrent-index-creation"): _VIEW,
    ("catalog", "0002_search", "require-concurrent-index-creation"): f"{_VIEW}; {_NEW}",
    ("matching", "0001_initial", "require-concurrent-index-creation"): _VIEW,
    ("matching", "0002_vectors", "require-concurrent-index-creation"): _NEW,
    ("matching", "0002_vectors", "adding-field-with-default"): _NEW,
}

MIGRATIONS = sorted(key for key in MigrationLoader(None).disk_migrations if key[0] in APPS)


def lint(statements: str, *, atomic: bool, tmp_path: Path) -> set[str]:
    """The rules of squawk that SQL breaks, run as `migrate` runs it."""
    limits = (
        f"SET lock_timeout = '{LOCK_SECONDS}s'; SET statement_timeout = '{STATEMENT_SECONDS}s';"
    )
    begin, end = ("BEGIN;", "\n;\nCOMMIT;") if atomic else ("", "")
    path = tmp_path / "migration.sql"
    path.write_text(f"{limits}\n{begin}\n{statements}{end}\n")
    done = subprocess.run(
        [SQUAWK, "--pg-version=18", "--reporter=gcc", f"--exclude={EXCLUDED}", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = set(re.findall(r": (?:warning|error): ([a-z-]+)", done.stdout))
    assert done.returncode == (1 if found else 0), done.stdout + done.stderr
    return found


def sql_of(key: tuple[str, str]) -> tuple[str, bool]:
    loader = MigrationLoader(connection, replace_migrations=False)
    migration = loader.graph.nodes[key]
    return "\n".join(loader.collect_sql([(migration, False)])), migration.atomic


@pytest.mark.django_db
@pytest.mark.parametrize("key", MIGRATIONS, ids=" ".join)
def test_a_migration_holds_nobody_up(key, tmp_path):
    statements, atomic = sql_of(key)
    faults = {rule for rule in lint(statements, atomic=atomic, tmp_path=tmp_path)
              if (*key, rule) not in FORGIVEN}  # fmt: skip
    assert not faults


@pytest.mark.parametrize(
    ("statements", "rule"),
    [
        ("CREATE INDEX slow ON items (title);", "require-concurrent-index-creation"),
        ("DROP INDEX idx_items_owner;", "require-concurrent-index-deletion"),
        ("ALTER TABLE items ADD COLUMN mark text NOT NULL;", "adding-required-field"),
        ("ALTER TABLE items ALTER COLUMN title TYPE varchar(5);", "changing-column-type"),
        ("ALTER TABLE items DROP COLUMN title;", "ban-drop-column"),
        ("ALTER TABLE items RENAME COLUMN title TO name;", "renaming-column"),
        (
            "ALTER TABLE items ADD CONSTRAINT owned FOREIGN KEY (owner_id) REFERENCES auth_user;",
            "adding-foreign-key-constraint",
        ),
    ],
)
def test_what_would_hold_others_up_or_break_the_code_before_is_found(statements, rule, tmp_path):
    assert rule in lint(statements, atomic=True, tmp_path=tmp_path)


@pytest.mark.django_db
@pytest.mark.parametrize("key", MIGRATIONS, ids=" ".join)
def test_what_is_no_transaction_can_be_run_again(key):
    """Killed between two statements it leaves the first; a killed build leaves an invalid index."""
    statements, atomic = sql_of(key)
    if atomic:
        assert not re.search(r"^(?:CREATE|DROP) INDEX CONCURRENTLY", statements, re.MULTILINE)
        return
    dropped = set()
    for statement in re.sub(r"^--.*$", "", statements, flags=re.MULTILINE).split(";"):
        words = statement.split()
        if not words:
            continue
        assert words[2] == "CONCURRENTLY", f"what else runs in no transaction: {statement}"
        if words[:2] == ["DROP", "INDEX"]:
            assert words[3:5] == ["IF", "EXISTS"]
            dropped.add(words[5])
        else:
            assert words[3] in dropped, "what a killed build left goes first"


def test_a_released_migration_is_never_edited():
    """A database that has it would never get the change. Make a new migration.

    Whoever releases adds the lines of the new ones; this test prints them.
    """
    listed = dict(reversed(line.split("  ")) for line in RELEASED.read_text().splitlines() if line)
    files = sorted(
        path.relative_to(PROJECT)
        for app in APPS
        for pattern in ("migrations/[0-9]*.py", "sql/[0-9]*.sql")
        for path in (PROJECT / app).glob(pattern)
    )
    here = {str(path): sha256((PROJECT / path).read_bytes()).hexdigest() for path in files}
    print("\n".join(f"{digest}  {path}" for path, digest in here.items() if path not in listed))
    assert {path: here.get(path) for path in listed} == listed
    assert here.keys() == listed.keys(), "new ones: add the lines above to released_migrations.txt"
