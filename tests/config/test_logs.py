"""Log lines: readable or JSON, with the request and the job they belong to, and without secrets."""

import json
import logging
import os
import subprocess
import sys

import pytest
from django.contrib.auth import get_user_model
from django_q.models import OrmQ
from hypothesis import given
from hypothesis import strategies as st

from config import jobs, logs, runs
from config.models import JobRun
from matching import worker
from matching.models import MatchJob
from tests.processes import until

pytestmark = pytest.mark.django_db
QUERY = {"query": {"kind": "lost", "title": "black umbrella"}}


class Heard(logging.Handler):
    """Keeps what a formatter makes of each record, as a handler writes it."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def objects(self) -> list[dict]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def heard():
    yield from _listen(logs.JsonFormatter())


@pytest.fixture
def read():
    yield from _listen(logs.TextFormatter("{asctime} {levelname} {name}: {message}", style="{"))


def _listen(formatter):
    handler = Heard(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


@pytest.fixture(autouse=True)
def _access_log(settings):
    settings.ACCESS_LOG = True


def access(heard) -> dict:
    [line] = [line for line in heard.objects if line["logger"] == "spyglass.access"]
    return line


def test_a_request_is_one_line(client, heard):
    answer = client.get("/health/live?token=abcdefghij", HTTP_X_REQUEST_ID="my-request.1")
    assert answer["X-Request-ID"] == "my-request.1"
    line = access(heard)
    assert line["request_id"] == "my-request.1"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/health/live", 200)
    assert 0 < line["duration_seconds"] < 10
    assert line["level"] == "INFO"
    assert line["time"].endswith("Z")
    assert "user_id" not in line


@pytest.mark.parametrize(
    "given", ["", "short", "x" * 65, "with space", "new\nline1234", "-leading1", "ünicode12"]
)
def test_another_id_is_not_taken_over(client, given):
    made = client.get("/health/live", HTTP_X_REQUEST_ID=given)["X-Request-ID"]
    assert made != given
    assert len(made) == 32
    assert made != client.get("/health/live")["X-Request-ID"]


def test_a_problem_says_its_request(client, heard):
    for path in ("/api/v1/nowhere", "/api/v1/catalog?page=0", "/metrics"):
        answer = client.get(path, REMOTE_ADDR="203.0.113.9")
        assert answer.json()["request_id"] == answer["X-Request-ID"]
    assert len({line["request_id"] for line in heard.objects}) == 3
    refused = client.get("/api/v1/catalog", HTTP_HOST="evil.example")
    assert refused.status_code == 400
    assert refused["X-Request-ID"] == refused.json()["request_id"]


def test_nothing_is_left_of_a_request(client):
    client.get("/health/live")
    assert logs.request_id() == ""
    with logs.bound(request_id="outer-one"):
        with logs.bound(request_id="", job="inner"):
            assert logs.request_id() == ""
        assert logs.request_id() == "outer-one"


def test_who_asked(person, heard, client):
    ann = person("ann", "feeds")
    ann.read("feed")
    line = access(heard)
    assert line["user_id"] == ann.user.pk
    assert "ann" not in json.dumps(line)


def test_off_by_default_with_text(client, heard, settings):
    settings.ACCESS_LOG = False
    assert "X-Request-ID" in client.get("/health/live")
    assert heard.lines == []


def test_text_is_as_before_and_names_the_request(read):
    logging.getLogger("spyglass.x").warning("one %s", "line")
    with logs.bound(request_id="request-1"):
        logging.getLogger("spyglass.x").warning("two")
    assert read.lines[0].endswith(" WARNING spyglass.x: one line")
    assert read.lines[1].endswith(" WARNING spyglass.x: two [request request-1]")


def test_an_exception_is_in_the_same_line():
    """By the formatter alone: pytest's own capture could not hand a lone surrogate on."""
    try:
        raise ValueError("it\nbroke \ud800")
    except ValueError:
        record = logging.makeLogRecord(
            {"msg": "odd \x00 \u2028 %s", "args": ({"a": 1},), "exc_info": sys.exc_info()}
        )
    line = logs.JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    found = json.loads(line)
    assert found["exception"].startswith("Traceback")
    assert "ValueError: it\nbroke" in found["exception"]


@pytest.mark.django_db(transaction=True)
def test_a_request_reaches_its_match_job(person, heard):
    ann = person("ann")
    answer = ann.send("match", QUERY, **{"X-Request-ID": "match-request-1"})
    task = answer.json()["task_id"]
    assert MatchJob.objects.get(pk=task).request_id == "match-request-1"
    heard.lines.clear()
    assert worker.drain(lambda _done: True) == 1
    lines = [line for line in heard.objects if line.get("run") == task]
    assert lines
    assert {(line["request_id"], line["job"]) for line in lines} == {("match-request-1", "match")}


@pytest.mark.django_db(transaction=True)
def test_an_item_that_waits_belongs_to_who_asked_last(person):
    ann = person("ann")
    item = ann.send(
        "items", {"kind": "lost", "title": "Bag"}, **{"X-Request-ID": "posting-it"}
    ).json()
    job = MatchJob.objects.get(pk=item["match_task"])
    assert job.request_id == "posting-it"
    with logs.bound(request_id="asking-again"):
        worker.queue.submit_match(owner=ann.user, item=job.item)
    worker.queue.submit_match(owner=ann.user, item=job.item)
    job.refresh_from_db()
    assert job.request_id == "asking-again"


@pytest.mark.django_db(transaction=True)
def test_a_request_reaches_a_real_worker_through_the_queue(client, spawn, tmp_path):
    admin = get_user_model().objects.create_superuser("boss")
    client.force_login(admin)
    answer = client.get("/admin/", HTTP_X_REQUEST_ID="from-the-admin")
    assert answer.status_code == 200
    with logs.bound(request_id="from-the-admin"):
        jobs.enqueue("fold_counters")
    [row] = OrmQ.objects.all()
    assert row.task["request_id"] == "from-the-admin"
    log = tmp_path / "worker.log"
    with log.open("w") as file:
        settings = {"LOG_FORMAT": "json", "WORKER_PROCESSES": "1"} | dict.fromkeys(
            ("MATCHING_WORKERS", "DISCOVERY_POLLERS", "DISCOVERY_NOTIFIERS", "COUNTERS_WORKERS"),
            "0",
        )
        spawn(["worker"], stdout=file, stderr=file, FEEDS_WORKERS="0", **settings)
        asked = JobRun.objects.filter(job="fold_counters", detail__request_id="from-the-admin")
        until(asked.exclude(state="running").exists, log.read_text)
        [run] = asked
        lines = until(lambda: _of_run(log.read_text(), run.pk), log.read_text)
    assert run.state == JobRun.State.SUCCEEDED
    assert {(line["request_id"], line["job"]) for line in lines} == {
        ("from-the-admin", "fold_counters")
    }
    others = [json.loads(line) for line in log.read_text().splitlines()]
    assert all("request_id" not in line for line in others if line.get("run") != run.pk)


def _of_run(text: str, run: int) -> list[dict]:
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if line.get("run") == run]


@pytest.mark.django_db(transaction=True)
def test_a_failed_run_says_so_under_its_request(heard):
    def broken(run):
        raise RuntimeError("no such luck")

    with logs.bound(request_id="unlucky-request"), pytest.raises(runs.JobFailed):
        runs.execute("broken", broken, timeout=jobs.OVERDUE, trigger="test", queued=True)
    run = JobRun.objects.get(job="broken")
    assert run.detail == {"request_id": "unlucky-request"}
    [line] = [line for line in heard.objects if line["level"] == "ERROR"]
    assert (line["request_id"], line["job"], line["run"]) == ("unlucky-request", "broken", run.pk)
    assert "no such luck" in line["message"]


SECRETS = {
    "header": "3fb2c0d1e4a5968778695a4b3c2d1e0f",
    "basic": "YWRtaW46aHVudGVyMg==",
    "url": "pa55-in-the-url",
    "field": "hunter2-hunter2",
    "setting": "a-setting-that-nobody-may-see",
}


def test_secrets_are_never_logged(client, person, monkeypatch, heard, read, settings):
    """Sent wherever one can be sent, with everything logged that is ever logged."""
    monkeypatch.setenv("SOME_SERVICE_TOKEN", SECRETS["setting"])
    monkeypatch.setenv("SOME_URL", f"redis://:{SECRETS['url']}@cache.invalid/0")
    for handler in (heard, read):
        handler.formatter._secrets = logs.secrets_of(os.environ)
        assert SECRETS["setting"] in handler.formatter._secrets
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.DEBUG)
    logging.getLogger("spyglass").setLevel(logging.DEBUG)
    client.raise_request_exception = False
    ann = person("ann")
    secret = ann._credentials["HTTP_AUTHORIZATION"].split()[1]
    ann.send("match", QUERY | {"password": SECRETS["field"]})
    ann.send("items", b'{"title": {"token": "' + SECRETS["field"].encode() + b'"}}')
    for value in (f"Token {SECRETS['header']}", f"Basic {SECRETS['basic']}"):
        client.get("/api/v1/catalog", HTTP_AUTHORIZATION=value)
        client.get("/metrics", HTTP_AUTHORIZATION=value, REMOTE_ADDR="203.0.113.9")
    client.get(f"/api/v1/catalog?token={SECRETS['field']}")
    client.get(f"/api/v1/nowhere?api_key={SECRETS['field']}", HTTP_COOKIE="sessionid=abc")
    client.post("/admin/login/", {"username": "boss", "password": SECRETS["field"]})
    log = logging.getLogger("spyglass.x")
    log.warning("headers %s", {"Authorization": f"Token {SECRETS['header']}"})
    log.warning("Authorization: Basic %s", SECRETS["basic"])
    log.warning("sent with bearer %s to nobody", SECRETS["header"])
    log.warning("config %r", {"api_key": SECRETS["field"], "user": "ann", "password": "x\\'y"})
    log.warning("body %s", json.dumps({"access_token": SECRETS["field"], "n": 1}))
    log.warning("login?user=a&password=%s&next=/", SECRETS["field"])
    log.warning("the value is %s", SECRETS["setting"])
    for url in (f"postgres://u:{SECRETS['url']}@db/x", f"smtp://:{SECRETS['url']}@mail"):
        try:
            raise ConnectionError(f"cannot reach {url} with password={SECRETS['field']}")
        except ConnectionError:
            log.exception("failed for %s", url)
    everything = "\n".join(heard.lines + read.lines)
    for name, value in (SECRETS | {"ours": secret, "key": settings.SECRET_KEY}).items():
        assert value not in everything, name
    assert everything.count(logs.MASK) > 20
    assert "postgres://u:***@db/x" in everything
    assert '"user": "ann"' in everything.replace("'", '"').replace('\\"', '"')


@pytest.mark.parametrize(
    "text",
    [
        "The token lacks the scope 'metrics'.",
        "Valkey refused a command: NOAUTH Authentication required",
        "GET /api/v1/tokens 200 in 3.0 ms",
        "http://127.0.0.1:8000/health/live and redis://valkey:6379/0 answer",
        "match job 0b243c75-522e-4eff-b4b3-a0b3cf04d67a: done",
        "12:30:01 key 17 of 20, at a@b.example",
    ],
)
def test_what_is_no_secret_stays(text):
    assert logs.mask(text) == text


@given(st.text(max_size=200), st.text("abcXYZ019-_", min_size=16, max_size=40))
def test_a_secret_of_the_settings_never_gets_through(text, secret):
    assert secret not in logs.mask(f"{text}{secret}{text}", (secret,))


def test_the_web_server_itself_writes_json(tmp_path):
    """Granian's own lines, by the file that it is given."""
    code = (
        "import json, logging, pathlib; from granian.log import configure_logging, LogLevels;"
        "configure_logging(LogLevels.warning, json.loads(pathlib.Path(__import__('config.web')"
        ".web.JSON_LOG).read_text())); logging.getLogger('_granian').warning('password=hidden99')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == ""
    assert json.loads(done.stderr)["message"] == "password=***"


def test_only_two_formats():
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()"],
        env=os.environ | {"LOG_FORMAT": "xml"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "LOG_FORMAT must be text or json, not 'xml'" in done.stderr
