"""The site through PgBouncer in transaction mode: a web server, a worker, and limits.

PgBouncer cleans no session up between the transactions of two clients: what one sets for its
session, the next one finds there. So nothing here may set anything.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from bench.harness import free_port
from config import limits, web
from config.servers import PostgresServer
from tests import pgbouncer
from tests.processes import kill_marked, until

PROJECT = Path(__file__).resolve().parents[2]
WEB, WORKER = "smoke_web", "smoke_worker"
SESSIONS = 3  # on the server, of each role: fewer than the web server's threads
PEOPLE = 8
VIEWS = 5  # of each post
SETUP = f"""
import json
import django
django.setup()
from feeds.actions import ensure_profile
from tests.people import Person
scopes = ["ingest", "items", "watches", "feeds", "events"]
made = [Person(f"person-{{number}}", scopes) for number in range({PEOPLE})]
people = [[ensure_profile(one.user).pk, one.secret] for one in made]
print(json.dumps(people))
"""
# What a session must not bring along from one client to the next; each counts.
LEFT_BEHIND = {
    "prepared statements": "SELECT count(*) FROM pg_prepared_statements",
    "channels": "SELECT count(*) FROM pg_listening_channels()",
    "cursors": "SELECT count(*) FROM pg_cursors WHERE is_holdable",
    "advisory locks": "SELECT count(*) FROM pg_locks"
    " WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "temporary tables": "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


class Person:
    """Somebody who calls the web server, request by request."""

    def __init__(self, number: int, id: int, token: str, port: int) -> None:
        self.number, self.id = number, id
        self._token, self._port = token, port
        self.own: dict[str, Any] = {}  # what was made, by name

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Any answer to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        headers = {"Authorization": f"Token {self._token}", "Host": "localhost"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1/{path}", data, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, json.loads(text) if text else None)

    def do(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """The body of an answer that must have this status."""
        answer = self.ask(method, path, body)
        assert answer.status == status, (method, path, answer)
        return answer.body


@dataclass(frozen=True)
class Site:
    """A web server and a worker behind a PgBouncer, and who calls them."""

    bouncer: pgbouncer.PgBouncer
    url: str  # of PostgreSQL itself
    people: list[Person]
    web: subprocess.Popen
    worker_log: Path

    def rows(self, statement: str, *parameters: Any) -> list[tuple]:
        """The rows of a statement, asked past PgBouncer."""
        with psycopg.connect(self.url, autocommit=True) as db:
            cursor = db.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: Any) -> Any:
        """The first column of the only row."""
        [[value]] = self.rows(statement, *parameters)
        return value

    def together(self, work: Callable[[Person], Any]) -> list:
        """Do something as all people at once."""
        with ThreadPoolExecutor(PEOPLE) as threads:
            return list(threads.map(work, self.people))

    @contextmanager
    def limits_of_web(self, **milliseconds: int) -> Iterator[None]:
        """With other limits of the web server's role."""
        self._set_limits(limits.of("web") | {name: str(ms) for name, ms in milliseconds.items()})
        try:
            yield
        finally:
            self._set_limits(limits.of("web"))

    def _set_limits(self, wanted: dict[str, str]) -> None:
        for name, value in wanted.items():
            self.rows(f"ALTER ROLE {WEB} IN DATABASE {self.bouncer.database} SET {name} = {value}")
        self.bouncer.console("RECONNECT")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Set up as docs/connections.md says; the worker listens to nothing."""
    with tempfile.TemporaryDirectory(prefix="spyglass-site-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root the servers run as another user, who must get through
        with _site(folder) as site:
            yield site


@contextmanager
def _site(folder: Path) -> Iterator[Site]:
    (folder / "metrics").mkdir()
    port = free_port()
    mark = uuid.uuid4().hex
    common = os.environ | {
        "SPYGLASS_SPAWN": mark,
        "CACHE_PREFIX": f"pgbouncer-{port}",
        "THROTTLE_ADDRESS": "off",
        "THROTTLE_TOKEN": "off",
        "HTTPS": "off",
        "ALLOWED_HOSTS": "localhost",
    }
    primary = PostgresServer(folder / "primary", fast=True)
    with ExitStack() as stack:
        stack.callback(primary.stop)
        primary.start()
        bouncer = stack.enter_context(
            pgbouncer.running(primary.url, [WEB, WORKER], pool_size=SESSIONS)
        )
        stack.callback(kill_marked, mark)
        people = _set_up(common, primary.url)
        through = {"PGBOUNCER": "on"}
        server = stack.enter_context(
            _process(
                web.command(Namespace(host="127.0.0.1", port=port, workers=2)),
                folder / "web.log",
                common
                | through
                | {
                    "PROCESS_ROLE": "web",
                    "DATABASE_URL": bouncer.url(WEB),
                    "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
                },
            )
        )
        stack.enter_context(
            _process(
                [sys.executable, "manage.py", "worker", "--tick", "0.3"],
                folder / "worker.log",
                common
                | through
                | {
                    "PROCESS_ROLE": "worker",
                    "DATABASE_URL": bouncer.url(WORKER),
                    "WORKER_PROCESSES": "1",
                    "MATCHING_WORKERS": "1",
                    "DISCOVERY_POLLERS": "0",
                },
            )
        )
        until(lambda: web.answers(Namespace(host="127.0.0.1", port=port)), "an answer")
        yield Site(
            bouncer,
            primary.url,
            [Person(number, *one, port) for number, one in enumerate(people)],
            server,
            folder / "worker.log",
        )


def _set_up(environment: dict[str, str], url: str) -> list:
    """Roles, schema and people: (id, token) of each."""
    with psycopg.connect(url, autocommit=True) as db:
        for role in (WEB, WORKER):
            db.execute(f"CREATE ROLE {role} LOGIN")
            db.execute(f"GRANT spyglass TO {role} WITH SET FALSE")
    direct = environment | {"DATABASE_URL": url, "PROCESS_ROLE": "command"}
    roles = {"DB_ROLES": f"{WEB}=web,{WORKER}=worker"}
    migrate = [sys.executable, "manage.py", "migrate", "--no-input", "-v0"]
    subprocess.run(migrate, cwd=PROJECT, env=direct | roles, check=True)
    done = subprocess.run(
        [sys.executable, "-c", SETUP],
        cwd=PROJECT,
        env=direct,
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


@contextmanager
def _process(
    command: list[str], log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen]:
    """A process with its output in a file; leads a group of its own."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _use_every_domain(one: Person, other: Person) -> None:
    """Twenty requests of one person, writes and reads of all domains."""
    n, now = one.number, datetime.now(UTC)
    source, slot = f"source-{n}", f"slot-{n}"
    wanted = {"name": f"watch {n}", "source": source, "channel": "none"}
    poll = {"source": source, "polled_at": now.isoformat(), "slots": []}
    opened = {
        "source": source,
        "polled_at": (now + timedelta(seconds=1)).isoformat(),
        "slots": [
            {
                "venue": f"venue-{n}",
                "slot_id": slot,
                "starts_at": (now + timedelta(days=2)).isoformat(),
            }
        ],
    }
    rows = [
        {
            "seller": f"seller-{n}",
            "product_name": f"Product {n}",
            "price": f"{n + 1}.{cents}",
            "currency": "EUR",
            "scraped_at": (now - timedelta(hours=at)).isoformat(),
        }
        for at, cents in enumerate((25, 55))
    ]
    item = {"kind": "found", "title": f"umbrella number {n}", "category": "umbrellas"}

    assert one.do("POST", "snapshots", rows)["accepted"] == 2
    assert one.do("POST", "snapshots", rows)["duplicate"] == 2
    one.do("GET", "catalog")
    one.do("GET", "meta/categories")
    one.own["item"] = one.do("POST", "items", item, status=201)["id"]
    assert [found["id"] for found in one.do("GET", "items")["results"]] == [one.own["item"]]
    found = one.do("GET", f"items/search?q={quote(item['title'])}")["results"]
    assert one.own["item"] in [match["item"]["id"] for match in found]
    query = {"kind": "lost", "title": f"umbrella number {other.number}"}
    one.own["early task"] = one.do("POST", "match", {"query": query}, status=202)["task_id"]
    assert one.do("POST", "discovery/polls", poll)["outcome"] == "recorded"
    assert one.do("POST", "discovery/polls", opened)["opened"] == [slot]
    watch = one.do("POST", "watches", wanted, status=201)
    assert [found["id"] for found in one.do("GET", "watches")["results"]] == [watch["id"]]
    one.do("GET", "chat/watches/just-opened")
    one.do("GET", "chat/watches/board")
    one.own["post"] = one.do("POST", "posts", {"text": f"early {n}"}, status=201)["id"]
    one.do("PUT", f"people/{other.id}/follow", status=204)
    one.do("PUT", f"posts/{one.own['post']}/like", status=204)
    assert one.own["post"] in [post["id"] for post in one.do("GET", "feed")["results"]]
    views = {
        "events": [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"view {n} {number}")),
                "type": "post_view",
                "target": one.own["post"],
                "at": now.isoformat(),
            }
            for number in range(VIEWS)
        ]
    }
    one.do("POST", "events", views, status=202)
    one.do("POST", "events", views, status=202)


@pytest.fixture(scope="module")
def used(site) -> Site:
    """The site after all people have used it at once: each request was answered well."""
    site.together(lambda one: _use_every_domain(one, _other(site, one)))
    return site


def _other(site: Site, one: Person) -> Person:
    return site.people[(one.number + 1) % PEOPLE]


def test_a_few_sessions_answer_many_requests_of_every_domain(used):
    """What was acknowledged is there, once."""
    servers = [one for one in used.bouncer.console("SHOW SERVERS") if one["user"] == WEB]
    assert 1 <= len(servers) <= SESSIONS
    assert used.value("SELECT count(*) FROM product_price_snapshots") == 2 * PEOPLE
    assert used.value("SELECT count(*) FROM items") == PEOPLE
    assert used.value("SELECT count(*) FROM discovery_watches") == PEOPLE
    assert used.value("SELECT count(*) FROM posts WHERE text LIKE 'early %'") == PEOPLE
    for one in used.people:
        post = one.do("GET", f"posts/{one.own['post']}")
        assert (post["text"], post["likes_count"]) == (f"early {one.number}", 1)
    slots = {drop["slot_id"] for drop in one.do("GET", "chat/watches/just-opened")["results"]}
    assert slots == {f"slot-{number}" for number in range(PEOPLE)}


def test_a_worker_does_its_work_by_polling(used):
    """A job of the queue, searches for counterparts, deliveries, views."""

    def begin(one: Person) -> None:
        query = {"kind": "lost", "title": f"umbrella number {_other(used, one).number}"}
        one.own["task"] = one.do("POST", "match", {"query": query}, status=202)["task_id"]
        one.own["late"] = one.do("POST", "posts", {"text": f"late {one.number}"}, status=201)["id"]

    def end(one: Person) -> None:
        other = _other(used, one)
        for task in (one.own["early task"], one.own["task"]):
            where = f"jobs/match/status/{task}"
            until(lambda where=where: one.ask("GET", where).status == 200, "the end of a match")
        found = one.do("GET", f"jobs/match/status/{one.own['task']}")
        assert found["state"] == "done"
        assert other.own["item"] in [match["item"]["id"] for match in found["results"]]
        delivered = "SELECT count(*) FROM user_feeds WHERE user_id = %s AND post_id = %s"
        until(lambda: used.value(delivered, one.id, other.own["late"]), "a delivery")
        shown = [post["id"] for post in one.do("GET", "feed")["results"]]
        assert shown.index(other.own["late"]) < shown.index(other.own["post"])
        counted = "SELECT views_count FROM posts WHERE id = %s"
        until(lambda: used.value(counted, one.own["post"]) >= VIEWS, "the count of views")

    used.together(begin)
    used.rows(
        "UPDATE django_q_schedule SET next_run = now() - interval '1 hour'"
        " WHERE name = 'job:refresh_catalog'"
    )
    used.together(end)
    ran = (
        "SELECT count(*) FROM config_jobrun"
        " WHERE job = 'refresh_catalog' AND state = 'succeeded' AND trigger = 'schedule'"
    )
    until(lambda: used.value(ran), "the scheduled job")
    for one in used.people:
        where = f"products/product-{one.number}"
        until(lambda where=where, one=one: one.ask("GET", where).status == 200, "a product")
        [series] = one.do("GET", where)["series"]
        assert series["seller"] == f"seller-{one.number}"
        assert series["price"] == f"{one.number + 1}.25"
    assert one.do("GET", "catalog")["total"] == PEOPLE
    counts = used.rows("SELECT DISTINCT views_count FROM posts WHERE text LIKE 'early %'")
    assert counts == [(VIEWS,)]
    failed = "SELECT job, error FROM config_jobrun WHERE state NOT IN ('succeeded', 'running')"
    assert used.rows(failed) == []
    others = "SELECT application_name, query FROM pg_stat_activity WHERE backend_type = %s"
    others += " AND pid <> pg_backend_pid() AND usename <> ALL (%s)"
    assert used.rows(others, "client backend", [WEB, WORKER]) == []  # that listens, say
    assert "ERROR" not in used.worker_log.read_text()
    beating = {name for (name,) in used.rows("SELECT name FROM config_heartbeat")}
    assert {"match worker", "feed worker", "counter worker", "worker"} <= beating


@contextmanager
def _slow_posts(site: Site, seconds: float) -> Iterator[None]:
    """While it lasts, each new post sleeps for so long in PostgreSQL."""
    site.rows(
        "CREATE FUNCTION sleepy() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END$$"
    )
    site.rows("CREATE TRIGGER sleepy BEFORE INSERT ON posts FOR EACH ROW EXECUTE FUNCTION sleepy()")
    try:
        yield
    finally:
        site.rows("DROP FUNCTION sleepy CASCADE")


def _is_refusal(answer: Answer) -> bool:
    return (
        answer.status == 503
        and answer.headers["content-type"] == "application/problem+json"
        and int(answer.headers["retry-after"]) > 0
    )


def test_a_request_that_takes_too_long_is_answered_503(site):
    one = site.people[0]
    with site.limits_of_web(statement_timeout=300), _slow_posts(site, 5):
        began = time.monotonic()
        answer = one.ask("POST", "posts", {"text": "too slow"})
        assert _is_refusal(answer), answer
        assert time.monotonic() - began < 4
        assert one.ask("GET", "items").status == 200
    assert site.value("SELECT count(*) FROM posts WHERE text = 'too slow'") == 0
    one.do("POST", "posts", {"text": "fast again"}, status=201)


def test_a_web_server_that_hangs_in_a_transaction_loses_it(site):
    """The server ends the session, so that its locks go; the request is refused."""
    one, answers = site.people[0], []
    post = threading.Thread(
        target=lambda: answers.append(one.ask("POST", "posts", {"text": "hung up"}))
    )
    sleeping = (
        f"SELECT pid FROM pg_stat_activity WHERE usename = '{WEB}' AND wait_event = 'PgSleep'"
    )
    with (
        site.limits_of_web(idle_in_transaction_session_timeout=300),
        _slow_posts(site, 1),
    ):
        post.start()
        [[pid]] = until(lambda: site.rows(sleeping), "the sleep")
        os.killpg(site.web.pid, signal.SIGSTOP)
        try:
            still = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            until(lambda: not site.value(still, pid), "the end of the session")
        finally:
            os.killpg(site.web.pid, signal.SIGCONT)
        post.join(20)
    [answer] = answers
    assert _is_refusal(answer), answer
    assert site.value("SELECT count(*) FROM posts WHERE text = 'hung up'") == 0
    one.do("POST", "posts", {"text": "here again"}, status=201)


def _left_behind(site: Site, role: str) -> dict[str, Any]:
    """What all sessions of a role that PgBouncer holds have and a new one has not."""
    settings = "SELECT name, setting, reset_val FROM pg_settings WHERE name <> 'application_name'"
    with psycopg.connect(site.url.replace("spyglass@", f"{role}@"), autocommit=True) as fresh:
        expected = {name: value for name, value, _ in fresh.execute(settings)}
        assert fresh.execute("SELECT current_user").fetchone() == (role,)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        pids = set()
        for _ in range(SESSIONS):  # each holds one: the next gets another
            client = stack.enter_context(psycopg.connect(site.bouncer.url(role)))
            pids.add(client.execute("SELECT pg_backend_pid()").fetchone()[0])
            for name, statement in LEFT_BEHIND.items():
                if count := client.execute(statement).fetchone()[0]:
                    found[name] = count
            found |= {
                name: value
                for name, value, default in client.execute(settings)
                if value != expected.get(name, default)  # those of extensions come with use
            }
        assert len(pids) == SESSIONS
    return found


@pytest.mark.parametrize("role", [WEB, WORKER])
def test_a_session_passes_on_nothing_of_the_clients_before(used, role):
    """Neither settings nor prepared statements, channels, locks …"""
    assert _left_behind(used, role) == {}


def test_what_a_client_leaves_behind_is_seen(site):
    """That the test before would fail: PgBouncer itself cleans nothing up."""
    with psycopg.connect(site.bouncer.url(WEB), autocommit=True) as client:
        client.execute(
            "SET work_mem = '1MB'; LISTEN something; PREPARE one AS SELECT 1;"
            "SELECT pg_advisory_lock(1); CREATE TEMP TABLE rest ();"
            "DECLARE held CURSOR WITH HOLD FOR SELECT 1"
        )
    found = _left_behind(site, WEB)
    site.bouncer.console("RECONNECT")
    assert found.keys() == {*LEFT_BEHIND, "work_mem"}
    assert _left_behind(site, WEB) == {}
