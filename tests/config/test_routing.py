"""Reads from a real streaming standby: when it may answer, and when the primary does."""

import http.client
import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.harness import free_port
from bench.standby import StandbyServer
from config import web
from config.servers import PostgresServer
from tests.processes import until

PROJECT = Path(__file__).resolve().parents[2]
SETUP = """
import django
django.setup()
from tests.people import Person
print(Person("ann", ["items", "feeds"]).secret)
"""
MAX_LAG = "1.5"


class Site:
    """A web server with a primary and a standby, and one who calls it."""

    def __init__(self, port: int, token: str, primary: PostgresServer, standby: StandbyServer):
        self.port, self.token = port, token
        self.primary, self.standby = primary, standby

    def ask(self, method: str, path: str, body=None) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Authorization": f"Token {self.token}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text.startswith(b"{") else {"text": text.decode()}

    def titles(self) -> list[str]:
        status, page = self.ask("GET", "/api/v1/items")
        assert status == 200, page
        return [item["title"] for item in page["results"]]

    def post(self, title: str) -> None:
        status, answer = self.ask("POST", "/api/v1/items", {"kind": "found", "title": title})
        assert status == 201, answer

    def counted(self) -> dict[str, float]:
        """Routed reads by alias and fallbacks by reason so far, and what the gauges say."""
        text = self.ask("GET", "/metrics")[1]["text"]
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("db_r") and not sample.name.endswith("_created"):
                    found[" ".join([sample.name, *sample.labels.values()])] = sample.value
        return found

    def on_standby(self) -> float:
        return self.counted().get("db_routed_reads_total replica", 0)

    def fallbacks(self, reason: str) -> float:
        return self.counted().get(f"db_replica_fallbacks_total {reason}", 0)

    def wait_for_standby(self) -> None:
        """Until a read is answered by the standby."""

        def answered() -> bool:
            before = self.on_standby()
            self.titles()
            return self.on_standby() > before

        until(answered, self.counted, seconds=15)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    primary = PostgresServer(folder / "primary", fast=True)
    standby = StandbyServer(folder / "standby", primary)
    port = free_port()
    metrics = folder / "metrics"
    metrics.mkdir()
    primary.start()
    process = None
    try:
        environment = os.environ | {
            "DATABASE_URL": primary.url,
            "PROCESS_ROLE": "command",
            "THROTTLE_ADDRESS": "off",
            "THROTTLE_TOKEN": "off",
            "DEBUG": "1",
            "HTTPS": "off",
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
        }
        subprocess.run(
            [sys.executable, PROJECT / "manage.py", "migrate", "-v0"], env=environment, check=True
        )
        token = subprocess.run(
            [sys.executable, "-c", SETUP], env=environment, cwd=PROJECT, check=True,
            capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        standby.start()
        process = subprocess.Popen(
            web.command(Namespace(host="127.0.0.1", port=port, workers=1)),
            cwd=PROJECT,
            env=environment
            | {
                "PROCESS_ROLE": "web",
                "REPLICA_URL": standby.url,
                "REPLICA_MAX_LAG_SECONDS": MAX_LAG,
                "PROMETHEUS_MULTIPROC_DIR": str(metrics),
                "CACHE_PREFIX": f"routing-{port}",
            },
            stdout=subprocess.DEVNULL,
            stderr=(folder / "web.log").open("wb"),
        )
        here = Namespace(host="127.0.0.1", port=port)
        until(lambda: web.answers(here), "an answer", process=process)
        yield Site(port, token, primary, standby)
    finally:
        if process is not None:
            process.terminate()
            process.wait(20)
        standby.stop()
        primary.stop()


def test_reads_go_to_the_standby_and_writes_to_the_primary(site):
    site.post("First")
    site.wait_for_standby()
    assert "First" in site.titles()
    assert site.counted()["db_replica_up"] == 1
    assert site.counted()["db_replica_lag_seconds"] < float(MAX_LAG)
    status, health = site.ask("GET", "/health/ready")
    assert (status, health["checks"]["replica"]) == (200, "ok")


def test_who_wrote_reads_it_at_once(site):
    site.wait_for_standby()
    for number in range(10):
        site.post(f"Mine {number}")
        assert f"Mine {number}" in site.titles()


def test_a_standby_that_lags_is_left_alone_and_comes_back(site):
    site.wait_for_standby()
    site.standby.pause_replay(True)
    try:
        with psycopg.connect(site.primary.url, autocommit=True) as db:  # by somebody else
            db.execute("UPDATE items SET title = 'Changed' WHERE title = 'First'")
        until(lambda: site.titles() and site.fallbacks("lag") > 0, site.counted, seconds=15)
        assert "Changed" in site.titles()
        site.post("While it lags")
        assert "While it lags" in site.titles()
    finally:
        site.standby.pause_replay(False)
    site.wait_for_standby()
    assert "Changed" in site.titles()


def test_a_killed_standby_costs_no_request_and_comes_back(site):
    site.wait_for_standby()
    os.kill(site.standby.pid, 9)
    for _ in range(20):
        assert "While it lags" in site.titles()
        time.sleep(0.05)
    assert site.fallbacks("away") > 0
    status, health = site.ask("GET", "/health/ready")
    assert (status, health["checks"]["replica"]) == (200, "degraded")
    site.standby.start()
    site.wait_for_standby()


def test_without_the_primary_reads_go_on(site):
    site.wait_for_standby()
    site.primary.stop()
    try:
        for _ in range(5):
            assert "While it lags" in site.titles()
        status, answer = site.ask("POST", "/api/v1/items", {"kind": "found", "title": "Never"})
        assert status == 503, answer
    finally:
        site.primary.start()
    site.post("After the outage")
    assert "After the outage" in site.titles()
    site.wait_for_standby()


def test_what_wants_to_write_is_done_on_the_primary(site):
    """The token's time of use, once a minute."""
    site.wait_for_standby()
    with psycopg.connect(site.primary.url, autocommit=True) as db:
        db.execute("UPDATE config_apitoken SET last_used_at = now() - interval '1 hour'")
    until(lambda: site.titles() and site.fallbacks("failed") > 0, site.counted, seconds=15)
    with psycopg.connect(site.primary.url, autocommit=True) as db:
        [[used]] = db.execute(
            "SELECT now() - last_used_at < interval '1 minute' FROM config_apitoken"
        )
    assert used
    site.wait_for_standby()


def test_a_promoted_standby_is_none(site):
    """Last: what it was is not undone."""
    site.wait_for_standby()
    with psycopg.connect(site.standby.url, autocommit=True) as db:
        db.execute("SELECT pg_promote()")
    before = site.fallbacks("away")
    until(lambda: site.titles() and site.fallbacks("away") > before, site.counted, seconds=15)
    site.post("Only on the primary")
    assert "Only on the primary" in site.titles()
