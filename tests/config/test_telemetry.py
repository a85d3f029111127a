"""Traces reach a real OTLP receiver; without an endpoint there is nothing of them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from config.models import JobRun
from tests.processes import until


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, and keeps the spans as (service, name, attributes, trace, parent)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, str, dict, bytes, bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> list[tuple]:
        return [span for span in self.spans if span[1] == name]

    def names(self) -> set[str]:
        return {span[1] for span in self.spans}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _plain(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.server.spans += [
                    (service, one.name, _plain(one.attributes), one.trace_id, one.parent_span_id)
                    for one in scope.spans
                ]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args) -> None:
        """Quiet."""


def _plain(attributes) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


REQUEST = """
from django.test import Client
answer = Client(HTTP_HOST="localhost").get("/api/v1/catalog?q=very-private-words&page_size=1",
                      headers={"X-Request-ID": "traced-request"})
assert answer.status_code == 200, answer.content
"""


def test_a_request_with_its_statements(spawn, collector):
    done = spawn(["shell", "-c", REQUEST], OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, HTTPS="off")
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    service, name, attributes, trace, parent = next(
        span for span in collector.spans if span[1].startswith("GET ")
    )
    assert (service, parent) == ("spyglass", b"")
    assert "api/v1/catalog" in name
    assert attributes["spyglass.request_id"] == "traced-request"
    statements = [span for span in collector.spans if span[3] == trace and span[4]]
    assert any(span[1] == "SELECT" for span in statements)
    everything = repr(collector.spans)
    assert "very-private-words" not in everything
    assert "%s" in everything or "%(" in everything  # the statement, not its parameters


def test_a_job_with_its_statements(spawn, collector):
    done = spawn(["run_job", "fold_counters"], OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    run = JobRun.objects.get(job="fold_counters")
    [(_, _, attributes, trace, _)] = collector.named("job fold_counters")
    assert attributes["spyglass.run"] == run.pk
    assert len([span for span in collector.spans if span[3] == trace]) > 3


def test_a_forked_worker_sends_too(spawn, collector):
    """The queue's processes are forked from one that has begun to trace."""
    none = ("MATCHING_WORKERS", "DISCOVERY_POLLERS", "DISCOVERY_NOTIFIERS", "COUNTERS_WORKERS")
    spawn(
        ["worker"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="200",
        FEEDS_WORKERS="0",
        WORKER_PROCESSES="1",
        **dict.fromkeys(none, "0"),
    )
    until(lambda: collector.named("job canary"), collector.names)


def test_a_collector_that_is_away_stops_nothing(spawn):
    done = spawn(
        ["run_job", "fold_counters"],
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    done.communicate(timeout=60)
    assert done.returncode == 0
    assert JobRun.objects.get(job="fold_counters").state == JobRun.State.SUCCEEDED


def test_off_it_is_not_even_imported():
    """Redis' client imports the SDK's metrics where they are installed; that is not ours."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    code = (
        "import django; django.setup(); import sys; from config import jobs, telemetry;"
        "ours = tuple('opentelemetry.' + x for x in ('instrumentation', 'exporter', 'sdk.trace'));"
        "loaded = [name for name in sys.modules if name.startswith(ours)];"
        "assert not loaded, loaded; telemetry.span('x').__enter__()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
