"""What matching counts and measures for `/metrics`.

Counters commit in PostgreSQL together with the jobs that they count; gauges are read when asked.
What is dear to find out is left by the job `measure_matching` in its row of the run log.
"""

from collections.abc import Iterable

from django.db import connection
from prometheus_client.core import GaugeMetricFamily, Metric

from config import tally
from config.metrics import register_collector
from config.models import JobRun
from config.sqlfiles import queries
from config.tally import Count
from matching import embedding
from matching.engine import Outcome
from matching.models import MatchJob

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60)
MEASURES = "measure_matching"  # the job whose detail has the dear ones

tally.declare(
    "matching_attempts_total",
    "Attempts at match jobs, by how they ended.",
    outcome=("done", "cancelled", "error", "died", "expired", "overdue"),
)
tally.declare("matching_jobs_failed_total", "Match jobs that were given up.")
tally.declare("matching_candidates_total", "Candidates, by the route that found them.", route=())
tally.declare("matching_degraded_total", "Match jobs that had to do without vectors.", reason=())
tally.declare_histogram(
    "matching_job_duration_seconds", "Time of a match job that is done, once begun.", SECONDS
)
tally.declare("matching_recall_sum", "Recall of searches that were repeated exactly, 0 to 1 each.")
tally.declare("matching_recall_count", "Searches that were repeated exactly.")


def count_attempt(outcome: str) -> None:
    """Count an attempt at a match job: done, cancelled, error, died, expired or overdue."""
    tally.add("matching_attempts_total", outcome=outcome)


def count_job(found: Outcome, seconds: float) -> None:
    """Count a job that is done, in its transaction, which ends with it."""
    counts = [Count("matching_attempts_total", {"outcome": "done"})]
    counts += [
        Count("matching_candidates_total", {"route": route}, ids)
        for route, ids in found.routes.items()
    ]
    if found.degraded:
        counts.append(Count("matching_degraded_total", {"reason": found.degraded}))
    counts += tally.observed("matching_job_duration_seconds", seconds, SECONDS)
    tally.add_all(counts)


def count_recall(recall: float) -> None:
    """Count a search that was repeated exactly; `recall` of its first ten, 0 to 1."""
    tally.add_all([Count("matching_recall_count", {}), Count("matching_recall_sum", {}, recall)])


@register_collector
def match_queue() -> Iterable[Metric]:
    """Depth and age by priority; 0 where nothing waits."""
    depth = GaugeMetricFamily("match_queue_depth", "Match jobs that wait.", labels=["priority"])
    oldest = GaugeMetricFamily(
        "match_queue_oldest_seconds",
        "How long the oldest match job has waited.",
        labels=["priority"],
    )
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["queue_gauges"])
        waiting = {priority: (jobs, age) for priority, jobs, age in cursor.fetchall()}
    for priority in MatchJob.Priority:
        jobs, age = waiting.get(priority, (0, 0))
        depth.add_metric([priority.name.lower()], jobs)
        oldest.add_metric([priority.name.lower()], age)
    return [depth, oldest]


@register_collector
def embeddings() -> Iterable[Metric]:
    """The queue of the embedder."""
    metric = GaugeMetricFamily(
        "embedding_refresh_queue_depth", "Items whose vector may be out of date."
    )
    metric.add_metric([], embedding.queue_depth())
    return [metric]


@register_collector
def measured() -> Iterable[Metric]:
    """What the last run of `measure_matching` found."""
    metric = GaugeMetricFamily(
        "matching_largest_bucket_items", "Live items in the fullest cell with one category."
    )
    runs = JobRun.objects.filter(job=MEASURES, state=JobRun.State.SUCCEEDED)
    last = runs.order_by("-started_at").values_list("detail", flat=True).first()
    if last:
        metric.add_metric([], last["largest_bucket"])
    return [metric]
