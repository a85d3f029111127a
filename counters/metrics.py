"""What the counters measure for `/metrics`, read when asked.

What they count (`counter_folded_total`, `counter_events_total`, `counter_redelivered_total`,
`counter_consumer_errors_total`) commits in PostgreSQL with what it counts.
"""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from config import tally
from config.metrics import register_collector
from counters import queries, stream

tally.declare("counter_folded_total", "Deltas that were folded.", counter=())
tally.declare(
    "counter_events_total",
    "Events of the stream, by what became of them.",
    outcome=("counted", "repeated", "dead"),
)
tally.declare("counter_redelivered_total", "Entries that another worker had left.")
tally.declare("counter_consumer_errors_total", "Entries that a worker failed at, and buried.")


@register_collector
def counters() -> Iterable[Metric]:
    """Mode, backlog, lag and divergence of each counter."""
    mode = GaugeMetricFamily(
        "counter_deferred", "1 where a counter is kept deferred, 0 inline.", labels=["counter"]
    )
    backlog = GaugeMetricFamily(
        "counter_backlog", "Deltas that wait to be folded, up to 100,000.", labels=["counter"]
    )
    lag = GaugeMetricFamily(
        "counter_fold_lag_seconds", "Age of the oldest delta that waits.", labels=["counter"]
    )
    divergence = GaugeMetricFamily(
        "counter_divergence",
        "By how much all counts together were wrong at the last comparison, and stayed so.",
        labels=["counter"],
    )
    for one in queries.overview():
        backlog.add_metric([one.name], one.waiting)
        lag.add_metric([one.name], one.oldest_seconds or 0.0)
        if one.mode:
            mode.add_metric([one.name], float(one.mode == "deferred"))
        if one.divergence is not None:
            divergence.add_metric([one.name], one.divergence)
    return [mode, backlog, lag, divergence]


@register_collector
def events() -> Iterable[Metric]:
    """The stream: what waits in it, for how long, and what died."""
    entries = GaugeMetricFamily(
        "counter_stream_entries", "Batches of events that are not counted; none without Valkey."
    )
    lag = GaugeMetricFamily(
        "counter_stream_lag_seconds", "Since the oldest of them came; none without Valkey."
    )
    dead = GaugeMetricFamily(
        "counter_dead_letters", "Events that could not be counted, up to 100,000."
    )
    found = stream.lag()
    if found is not None:
        entries.add_metric([], found["entries"])
        lag.add_metric([], found["seconds"])
    dead.add_metric([], queries.dead_letters())
    return [entries, lag, dead]
