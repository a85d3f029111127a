"""`/metrics` is right over several processes, guarded, and never an error page."""

import os
import struct
import subprocess
import sys
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from config import metrics, tally
from config.models import Heartbeat
from tests.people import token

pytestmark = pytest.mark.django_db
ELSEWHERE = "203.0.113.9"


def samples(content: bytes) -> dict[tuple, float]:
    """{(name, labels sorted): value}; also proves that the text parses and no family repeats."""
    families = list(text_string_to_metric_families(content.decode()))
    assert len({family.name for family in families}) == len(families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def scrape(client):
    return lambda **extra: client.get("/metrics", **extra)


@pytest.fixture
def collectors(monkeypatch):
    found = []
    monkeypatch.setattr(metrics, "_collectors", found)
    return found


def test_what_the_database_holds(scrape):
    tally.add("ingest_rows_total", 7, outcome="accepted")
    tally.add("ingest_rows_total", 2, outcome="rejected")
    tally.add("job_runs_total", 1, job='odd "name"\n', outcome="failed")
    tally.add("read_model_refresh_seconds_sum", 1.5, model="cards")
    tally.add("read_model_refresh_seconds_count", 3, model="cards")
    tally.add("plain", 4)
    beat = timezone.now() - timedelta(seconds=90)
    Heartbeat.objects.update_or_create(name="worker", defaults={"beat_at": beat})
    answer = scrape()
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")
    found = samples(answer.content)
    assert found["ingest_rows_total", (("outcome", "accepted"),)] == 7
    assert found["ingest_rows_total", (("outcome", "rejected"),)] == 2
    assert found["job_runs_total", (("job", 'odd "name"\n'), ("outcome", "failed"))] == 1
    assert found["read_model_refresh_seconds_sum", (("model", "cards"),)] == 1.5
    assert found["read_model_refresh_seconds_count", (("model", "cards"),)] == 3
    assert found["plain", ()] == 4
    assert 0 < found["db_connection_usage", ()] < 1
    assert 90 <= found["worker_heartbeat_age_seconds", (("part", "worker"),)] < 120
    assert found["metrics_errors", (("part", "none"),)] == 0


def test_a_histogram_that_the_database_holds(scrape):
    for seconds in (0.05, 0.1, 0.2, 7):
        tally.add_all(tally.observed("work_seconds", seconds, (0.1, 1, 2), {"kind": "a"}))
    tally.add_all(tally.observed("work_seconds", 2, (0.1, 1, 2), {"kind": "b"}))
    tally.add_all([tally.Count("nothing_total", {}, 0)])
    answer = scrape()
    assert b"# TYPE work_seconds histogram" in answer.content
    found = samples(answer.content)

    def bucket(kind, le):
        return found["work_seconds_bucket", (("kind", kind), ("le", le))]

    assert [bucket("a", le) for le in ("0.1", "1.0", "+Inf")] == [2, 3, 4]
    assert [bucket("b", le) for le in ("2.0", "+Inf")] == [1, 1]
    assert found["work_seconds_count", (("kind", "a"),)] == 4
    assert found["work_seconds_sum", (("kind", "a"),)] == 7.35
    assert ("nothing_total", ()) not in found


def test_request_latency_per_view_and_bounded_methods(client, scrape):
    client.get("/health/live")
    client.generic("GOBBLEDYGOOK", "/health/live")
    content = scrape().content
    latency = "django_http_requests_latency_seconds_by_view_method_count"
    assert samples(content)[latency, (("method", "GET"), ("view", "health-live"))] >= 1
    assert b"GOBBLEDYGOOK" not in content


def test_read_models(scrape):
    from config import readmodels

    found = samples(scrape().content)
    for name in readmodels.all():
        assert ("read_model_backlog_rows", (("model", name),)) in found
        assert ("read_model_stale", (("model", name),)) in found


def test_cache_hit_ratio():
    def counted(**results):
        family = metrics.Metric("cache_requests", "", "counter")
        for result, value in results.items():
            family.add_sample("cache_requests_total", {"cache": "c", "result": result}, value)
        return family

    (ratio,) = metrics._cache_hit_ratio([counted(hit=6, stale=1, miss=3)])
    assert [(one.labels, one.value) for one in ratio.samples] == [({"cache": "c"}, 0.7)]
    (ratio,) = metrics._cache_hit_ratio([counted(hit=0)])
    assert ratio.samples == []


def test_a_domain_adds_its_own(scrape, collectors):
    @metrics.register_collector
    def mine():
        return [GaugeMetricFamily("shelf_height", "In cells.", value=9)]

    metrics.register_collector(mine)
    assert collectors == [mine]
    assert samples(scrape().content)["shelf_height", ()] == 9


def test_a_failing_part_is_reported_and_the_rest_stays(scrape, collectors):
    @metrics.register_collector
    def broken():
        raise KeyError("x")

    tally.add("plain", 4)
    answer = scrape()
    assert answer.status_code == 200
    found = samples(answer.content)
    assert found["metrics_errors", (("part", "broken"),)] == 1
    assert found["plain", ()] == 4


def test_without_a_database(scrape, unreachable_database):
    answer = scrape()
    assert answer.status_code == 200
    found = samples(answer.content)
    assert found["metrics_errors", (("part", "database"),)] == 1
    assert any(
        name == "item_search_latency_seconds_count" or "django_http" in name for name, _ in found
    )


def test_who_may_read(scrape, settings):
    assert scrape().status_code == 200
    assert scrape(REMOTE_ADDR="::1").status_code == 200
    for outside in [
        {"REMOTE_ADDR": ELSEWHERE},
        {"REMOTE_ADDR": ""},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},  # through a proxy on this host
        {"HTTP_FORWARDED": "for=127.0.0.1"},
    ]:
        answer = scrape(**outside)
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Token")
    settings.METRICS_PUBLIC = True
    assert scrape(REMOTE_ADDR=ELSEWHERE).status_code == 200


def test_a_token_with_the_scope(scrape):
    user = get_user_model().objects.create_user("prometheus")
    statuses = [
        scrape(REMOTE_ADDR=ELSEWHERE, HTTP_AUTHORIZATION=f"Token {secret}").status_code
        for secret in [token(user, "metrics"), token(user, "read"), "f" * 64]
    ]
    assert statuses == [200, 403, 401]


def test_only_reads(client):
    assert client.post("/metrics").status_code == 405


def test_counts_of_several_processes_add_up(tmp_path, database_url):
    count = "from config import caching; caching.CACHE_REQUESTS.labels('c', '{}').inc({})"
    for result, amount in [("hit", 3), ("miss", 1)]:
        run(tmp_path, database_url, count.format(result, amount))
    seen = (
        "from config import metrics; metrics.ITEM_SEARCH_LATENCY.labels('catalog').observe(0.02);"
        "import sys; sys.stdout.buffer.write(metrics.exposition())"
    )
    found = samples(run(tmp_path, database_url, seen))
    assert found["cache_requests_total", (("cache", "c"), ("result", "hit"))] == 3
    assert found["cache_hit_ratio", (("cache", "c"),)] == 0.75
    assert found["item_search_latency_seconds_count", (("endpoint", "catalog"),)] == 1
    for file in tmp_path.glob("*.db"):
        file.write_bytes(struct.pack("i", 64) + b"\x7f" * 60)
    show = "from config import metrics; import sys; sys.stdout.buffer.write(metrics.exposition())"
    found = samples(run(tmp_path, database_url, show))
    assert found["metrics_errors", (("part", "processes"),)] == 1


def run(folder, database_url: str, code: str) -> bytes:
    environment = os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
        "DATABASE_URL": database_url,
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {code}"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return done.stdout
