"""A web process and a PostgreSQL that goes away and comes back: quick answers, at once again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
# Answers each line of standard input with how a request for a connection ended, and the seconds.
WEB = """
import sys, time
import django
django.setup()
from django.db import Error, connection
for _ in sys.stdin:
    started = time.monotonic()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        outcome = "ok"
    except Error as error:
        outcome = type(error).__name__
    connection.close()
    print(outcome, time.monotonic() - started, flush=True)
"""


@pytest.fixture
def ask(postgres):
    """`ask()` → (outcome, seconds) of a query in a process with the web server's settings."""
    process = subprocess.Popen(
        [sys.executable, "-c", WEB],
        cwd=PROJECT,
        env=os.environ | {"PROCESS_ROLE": "web", "DATABASE_URL": postgres.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def once() -> tuple[str, float]:
        process.stdin.write("\n")
        process.stdin.flush()
        outcome, seconds = process.stdout.readline().split()
        return outcome, float(seconds)

    yield once
    process.kill()
    process.communicate()


def test_no_request_meets_a_connection_that_a_restart_has_closed(ask, postgres):
    assert ask()[0] == "ok"
    for _ in range(3):
        postgres.stop()
        postgres.start()
        outcome, seconds = ask()
        assert outcome == "ok"
        assert seconds < 0.9  # the pool's own pause between two dead connections is a second


def test_an_outage_is_said_soon_and_over_at_once(ask, postgres):
    assert ask()[0] == "ok"
    postgres.stop()
    until = time.monotonic() + 6  # long enough for a pool's growing pauses
    while time.monotonic() < until:
        outcome, seconds = ask()
        assert outcome == "OperationalError"
        assert seconds < 2.5
    postgres.start()
    outcome, seconds = ask()
    assert outcome == "ok"
    assert seconds < 1.4
