"""Each kind of process has its limits, with PgBouncer in transaction mode and without."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError
from django.db import connection

from config import limits
from tests import pgbouncer
from tests.processes import LITTLE_DEMO

PROJECT = Path(__file__).resolve().parents[2]
KINDS = list(limits.TIMEOUTS)
DEMO = "from django.core.management import call_command; call_command('demo', verbosity=0)"
# Prints the limits that the process's session does not have.
REPORT = """
import django
django.setup()
from django.conf import settings
from config import limits
print(limits.missing(settings.PROCESS_ROLE))
"""


def _missing(**environment: str) -> str:
    """What a process of its own finds missing of its limits."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def roles(database_url):
    """A database role for each kind of process, dropped again."""
    names = {f"limits_{kind}": kind for kind in KINDS}
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE ROLE {name} LOGIN")
            cursor.execute(f"GRANT spyglass TO {name}")
    yield names
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY (%s)",
            [list(names)],
        )
        for name in names:
            cursor.execute(f"DROP ROLE {name}")


@pytest.fixture
def pooled(roles, database_url):
    """`pooled(role)` is the URL of the test database through a PgBouncer in transaction mode."""
    with pgbouncer.running(database_url, roles) as bouncer:
        yield bouncer.url


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_connects_to_postgresql_brings_its_limits(database_url, kind):
    assert _missing(PROCESS_ROLE=kind, DATABASE_URL=database_url) == "{}"


def test_behind_pgbouncer_migrate_gives_each_role_its_limits(spawn, roles, pooled):
    url = pooled("limits_web")
    before = _missing(PROCESS_ROLE="web", DATABASE_URL=url, PGBOUNCER="1")
    assert "'statement_timeout': '0'" in before
    with connection.cursor() as cursor:  # PgBouncer keeps that session for the next client
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'limits_web'"
        )
    listed = ",".join(f"{role}={kind}" for role, kind in roles.items())
    process = spawn(["migrate", "--no-input", "-v", "0"], DB_ROLES=listed)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    for role, kind in roles.items():
        found = _missing(PROCESS_ROLE=kind, DATABASE_URL=pooled(role), PGBOUNCER="1")
        assert found == "{}", kind


def test_a_statement_over_the_limit_of_the_role_ends_behind_pgbouncer(roles, pooled):
    limits.give_to_roles(roles)
    with connection.cursor() as cursor:
        name = connection.ops.quote_name(connection.settings_dict["NAME"])
        cursor.execute(f"ALTER ROLE limits_web IN DATABASE {name} SET statement_timeout = 200")
    with (
        psycopg.connect(pooled("limits_web"), autocommit=True) as client,
        pytest.raises(psycopg.errors.QueryCanceled),
    ):
        client.execute("SELECT pg_sleep(5)")


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"nobody_at_all": "web"}, "did not get their limits"),
        ({"spyglass": "cron"}, "names no kind of process"),
    ],
)
@pytest.mark.django_db
def test_a_wrong_name_is_said_and_changes_nothing(roles, said):
    with pytest.raises(CommandError, match=said):
        limits.give_to_roles(roles)


@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"])
def test_a_request_over_its_limit_is_answered_503(client, fresh_process, database_url, limit):
    with psycopg.connect(database_url) as other, connection.cursor() as cursor:
        other.execute("LOCK TABLE config_apitoken IN ACCESS EXCLUSIVE MODE")
        cursor.execute(f"SET {limit} = 200")
        try:
            answer = client.get("/api/v1/feed", headers={"authorization": "Token " + "a" * 64})
        finally:
            cursor.execute(f"RESET {limit}")
    assert answer.status_code == 503, answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0


def test_commands_of_every_domain_go_through_pgbouncer(spawn, pooled):
    """Migrate, demo, refresh, a job, prune and reconcile."""
    through = {"DATABASE_URL": pooled("spyglass"), "PGBOUNCER": "1"}
    for command in (
        ["migrate", "--no-input", "-v", "0"],
        ["shell", "--no-imports", "-c", f"{LITTLE_DEMO}{DEMO}"],
        ["refresh", "-v", "0"],
        ["run_job", "canary"],
        ["prune", "-v", "0"],
        ["reconcile", "-v", "0"],
    ):
        process = spawn(command, **through)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, f"{command}: {said}"
