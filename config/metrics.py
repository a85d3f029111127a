"""`/metrics` for Prometheus, right across several processes and hosts.

Three sources: what each web process counts (shared through PROMETHEUS_MULTIPROC_DIR), the
counters that commit in PostgreSQL (`config.tally`), and gauges read when asked.
"""

import ipaddress
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from math import inf

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import autodiscover_modules
from django.views.decorators.http import require_safe
from django_prometheus.middleware import PrometheusAfterMiddleware
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.utils import floatToGoString
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from config import archive, jobs, partitions, readmodels, routing, runs, tally
from config.models import JobRun
from config.problems import Problem, to_problem
from config.sqlfiles import queries
from config.tokens import TokenAuthentication

log = logging.getLogger("spyglass.metrics")

ITEM_SEARCH_LATENCY = Histogram(
    "item_search_latency_seconds",
    "Time to answer a search, from parsed request to rendered body.",
    ["endpoint"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
tally.declare("job_runs_total", "Runs of jobs that ended.", job=(), outcome=())
tally.declare("read_model_refresh_seconds_sum", "Time that refreshes took.", model=())
tally.declare("read_model_refresh_seconds_count", "Refreshes.", model=())
tally.declare("read_model_refresh_rows_total", "Rows that refreshes took in.", model=())
tally.declare("archive_partitions_total", "Partitions written, verified and dropped.", table=())
tally.declare("archive_rows_total", "Rows of these partitions.", table=())
tally.declare("archive_failures_total", "Partitions that could not be archived.", table=())

Collector = Callable[[], Iterable[Metric]]
_collectors: list[Collector] = []


def register_collector(collect: Collector) -> Collector:
    """Add metrics that are read when `/metrics` is asked; for a domain's `metrics.py`.

    `collect` may query PostgreSQL. When it fails, its metrics are missing and
    `metrics_errors{part="…"}` says so.
    """
    if collect not in _collectors:
        _collectors.append(collect)
    return collect


class RequestMetricsMiddleware(PrometheusAfterMiddleware):
    """django-prometheus' own, with the method label bounded on every metric."""

    def label_metric(self, metric, request, response=None, **labels):
        if "method" in labels:
            labels["method"] = self._method(request)
        return super().label_metric(metric, request, response, **labels)


@require_safe
def view(request: HttpRequest) -> HttpResponse:
    """The exposition. For loopback, METRICS_PUBLIC, or a token with the scope `metrics`."""
    if not (settings.METRICS_PUBLIC or _is_loopback(request)):
        _require_token(request)
    return HttpResponse(
        exposition(), content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"}
    )


def _is_loopback(request: HttpRequest) -> bool:
    # A proxy on this host connects from loopback too, but says for whom.
    if "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META:
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def _require_token(request: HttpRequest) -> None:
    try:
        found = TokenAuthentication().authenticate(Request(request))
    except APIException as error:
        raise to_problem(error) from error
    if found is None:
        raise Problem(
            401,
            detail="Metrics from another host need a token with the scope 'metrics'.",
            headers={"WWW-Authenticate": "Token"},
        )
    if "metrics" not in found[1].scopes:
        raise Problem(403, detail="The token lacks the scope 'metrics'.")


def exposition() -> bytes:
    """All metrics in Prometheus' text format. A part that fails is left out and reported."""
    autodiscover_modules("metrics")
    counted, errors = _process_metrics()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed([*_read_all(errors), *_cache_hit_ratio(counted), _failures(errors)]))
    return generate_latest(_Fixed(counted)) + generate_latest(registry)


class _Fixed:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _process_metrics() -> tuple[list[Metric], dict[str, str]]:
    """What the processes of this host counted, and {"processes": error} where that failed."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
    try:
        if registry is not REGISTRY:
            MultiProcessCollector(registry)
        return list(registry.collect()), {}
    except Exception as error:
        # A process may die while it writes its file; the rest is worth showing.
        log.exception("Process metrics are not readable")
        return [], {"processes": str(error)}


def _read_all(errors: dict[str, str]) -> list[Metric]:
    """The metrics that PostgreSQL holds; what fails is added to `errors` by name."""
    found: list[Metric] = []
    for collect in parts():
        try:
            found += collect()
        except (DatabaseError, InterfaceError) as error:
            log.warning("Metrics part %s: %s", collect.__name__, error)
            errors[collect.__name__.strip("_")] = str(error)
            if not _is_database_reachable():
                errors["database"] = str(error)
                break  # the others would each wait for a time-out
        except Exception as error:
            log.exception("Metrics part %s failed", collect.__name__)
            errors[collect.__name__.strip("_")] = str(error)
    return found


def parts() -> list[Collector]:
    """What reads the metrics that PostgreSQL holds, ours and those of the domains."""
    ours = [
        _tallies,
        _connections,
        _read_models,
        _worker,
        _jobs,
        _partitions,
        _archive,
        routing.metrics,
    ]
    return [*ours, *_collectors]


def _is_database_reachable() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        return False
    return True


def _failures(errors: dict[str, str]) -> Metric:
    metric = GaugeMetricFamily(
        "metrics_errors", "Parts of this page that could not be read.", labels=["part"]
    )
    for part in errors or ["none"]:
        metric.add_metric([part], 1 if errors else 0)
    return metric


def _tallies() -> list[Metric]:
    """Every tally: `…_total` as a counter, `…_sum` with `…_count` as a summary, `…_bucket` with
    `…_sum` as a histogram."""
    by_family: dict[tuple[str, str], list] = defaultdict(list)
    rows = tally.all()
    counted = {(row.name, *sorted(row.labels.items())) for row in rows}
    rows += [row for row in tally.zeros() if (row.name, *sorted(row.labels.items())) not in counted]
    histograms = {row.name.removesuffix("_bucket") for row in rows if row.name.endswith("_bucket")}
    for row in rows:
        stem, _, suffix = row.name.rpartition("_")
        kind = "histogram" if stem in histograms else "summary"
        family = {"total": (stem, "counter"), "bucket": (stem, kind), "sum": (stem, kind)}
        family["count"] = (stem, kind)
        by_family[family.get(suffix, (row.name, "unknown"))].append(row)
    return [_tally_metric(name, kind, rows) for (name, kind), rows in by_family.items()]


def _tally_metric(name: str, kind: str, rows: list) -> Metric:
    declared = tally.declared()
    known = (declared.get(each) for each in (name, *(row.name for row in rows)))
    text = next((one.text for one in known if one), "Counted in PostgreSQL with what it counts.")
    metric = Metric(name, text, kind)
    for row in rows:
        if not row.name.endswith("_bucket"):
            metric.add_sample(row.name, row.labels, row.value)
    if kind == "histogram":
        _add_buckets(metric, rows)
    return metric


def _add_buckets(metric: Metric, rows: list) -> None:
    """The buckets, each with what lies under it, and the count. Tallies hold each one alone."""
    by_labels: dict[tuple, dict[float, float]] = defaultdict(dict)
    for row in rows:
        if row.name.endswith("_bucket"):
            labels = tuple(sorted((key, one) for key, one in row.labels.items() if key != "le"))
            by_labels[labels][float(row.labels["le"])] = row.value
    for labels, buckets in by_labels.items():
        total = 0.0
        for bound in sorted({*buckets, inf}):
            total += buckets.get(bound, 0)
            le = floatToGoString(bound)
            metric.add_sample(f"{metric.name}_bucket", dict(labels) | {"le": le}, total)
        metric.add_sample(f"{metric.name}_count", dict(labels), total)


def _connections() -> list[Metric]:
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["connection_usage"])
        used, limit, idle = cursor.fetchone()
    return [
        _gauge("db_connection_usage", "Connections used of max_connections, 0 to 1.", used / limit),
        _gauge("db_connections", "Client connections to the PostgreSQL server.", used),
        _gauge(
            "db_idle_in_transaction_seconds",
            "How long the longest idle transaction has been idle; 0 where none is.",
            idle,
        ),
    ]


def _gauge(name: str, text: str, value: float) -> Metric:
    metric = GaugeMetricFamily(name, text)
    metric.add_metric([], value)
    return metric


def _read_models() -> list[Metric]:
    age = GaugeMetricFamily(
        "read_model_age_seconds", "Time since the last refresh.", labels=["model"]
    )
    backlog = GaugeMetricFamily(
        "read_model_backlog_rows", "Changes that wait for the next refresh.", labels=["model"]
    )
    stale = GaugeMetricFamily(
        "read_model_stale", "1 where the last refresh is older than it should be.", labels=["model"]
    )
    failed = GaugeMetricFamily(
        "read_model_refresh_failed", "1 where the last refresh failed.", labels=["model"]
    )
    differences = GaugeMetricFamily(
        "read_model_differences",
        "Rows that differed from the truth at the last comparison, and were not mended.",
        labels=["model"],
    )
    for state in readmodels.states():
        if state.age_seconds is not None:
            age.add_metric([state.name], state.age_seconds)
        backlog.add_metric([state.name], state.backlog)
        stale.add_metric([state.name], int(state.stale))
        failed.add_metric([state.name], int(bool(state.error)))
        if state.differences is not None:
            differences.add_metric([state.name], state.differences)
    return [age, backlog, stale, failed, differences]


def _worker() -> list[Metric]:
    metric = GaugeMetricFamily(
        "worker_heartbeat_age_seconds",
        "Time since a part last gave a sign of life.",
        labels=["part"],
    )
    for part, age in runs.heartbeat_ages().items():
        metric.add_metric([part], age)
    return [metric]


def _jobs() -> list[Metric]:
    """How each declared job fares, and what waits in the queue."""
    failing = GaugeMetricFamily(
        "job_failing", "1 where the last run of a job failed or died.", labels=["job"]
    )
    age = GaugeMetricFamily(
        "job_last_success_age_seconds",
        "Since a job succeeded last; none where no run is left in the log.",
        labels=["job"],
    )
    overdue = GaugeMetricFamily(
        "job_overdue",
        "1 where the schedule of a job is missing, off, or more than 5 minutes late.",
        labels=["job"],
    )
    scheduled = [job.name for job in jobs.all().values() if job.schedule != "on demand"]
    with connection.cursor() as cursor:
        cursor.execute(
            queries("config")["job_health"],
            {"jobs": list(jobs.all()), "prefix": jobs.PREFIX, "late": jobs.OVERDUE},
        )
        for name, failed, seconds, late in cursor.fetchall():
            failing.add_metric([name], int(failed))
            if seconds is not None:
                age.add_metric([name], seconds)
            if name in scheduled:
                overdue.add_metric([name], int(late))
        cursor.execute(queries("config")["job_queue"])
        waiting, oldest = cursor.fetchone()
    return [
        failing,
        age,
        overdue,
        _gauge("job_queue_depth", "Tasks that no worker has taken, up to 100,000.", waiting),
        _gauge("job_queue_oldest_seconds", "How long the oldest of them has waited.", oldest),
    ]


def _partitions() -> list[Metric]:
    metric = GaugeMetricFamily(
        "partitions_missing_ahead",
        "Partitions that the coming periods need and that are not there.",
        labels=["table"],
    )
    for table in partitions.all():
        metric.add_metric([table], partitions.missing_ahead(table))
    return [metric]


def _archive() -> list[Metric]:
    """What waits for the archive, and when it was last all done; nothing where there is none."""
    if not settings.ARCHIVE_URL:
        return []
    due = GaugeMetricFamily(
        "archive_due_partitions", "Partitions past retention, not yet archived.", labels=["table"]
    )
    for table in archive.archivable():
        due.add_metric([table], len(partitions.expired(table)))
    success = GaugeMetricFamily(
        "archive_last_success_timestamp_seconds", "When all that was due was archived last."
    )
    done = JobRun.objects.filter(job="archive", state=JobRun.State.SUCCEEDED)
    if last := done.order_by("-started_at").first():
        success.add_metric([], last.finished_at.timestamp())
    return [due, success]


def _cache_hit_ratio(counted: list[Metric]) -> list[Metric]:
    """Answers out of a cache (hit or stale) of all lookups, per cache, since the start."""
    served: dict[str, float] = defaultdict(float)
    total: dict[str, float] = defaultdict(float)
    for metric in counted:
        for sample in metric.samples:
            if sample.name == "cache_requests_total":
                cache = sample.labels["cache"]
                total[cache] += sample.value
                served[cache] += sample.value * (sample.labels["result"] != "miss")
    ratio = GaugeMetricFamily(
        "cache_hit_ratio", "Lookups answered from the cache, 0 to 1.", labels=["cache"]
    )
    for cache, lookups in total.items():
        if lookups:
            ratio.add_metric([cache], served[cache] / lookups)
    return [ratio]
