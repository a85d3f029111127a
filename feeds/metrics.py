"""What feeds measure: reads where they happen, the rest when `/metrics` is asked.

Deliveries (`feed_delivered_total`, `feed_fanouts_total`, `feed_fanout_lag_seconds`,
`feed_deliveries_failed_total`) and the index (`post_index_total`) are counted in PostgreSQL, with
what they count. Write amplification is feed_delivered_total over feed_fanouts_total.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from config import tally
from config.metrics import register_collector
from feeds.fanout import SECONDS

tally.declare("feed_delivered_total", "Rows that were written to timelines.")
tally.declare("feed_fanouts_total", "Posts whose delivery is complete.")
tally.declare("feed_deliveries_failed_total", "Attempts at a delivery that failed.")
tally.declare_histogram(
    "feed_fanout_lag_seconds", "From a post to the last of its deliveries.", SECONDS
)
tally.declare(
    "post_index_total",
    "Posts written to the search index, or already there newer.",
    outcome=("written", "older"),
)

FEED_READ_SECONDS = Histogram(
    "feed_read_seconds",
    "Time to read a page of a timeline, in the query layer.",
    ["how"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
FEED_CACHE = Counter(
    "feed_cache_requests_total", "Windows of computed timelines asked of the cache.", ["state"]
)


@register_collector
def timelines() -> Iterable[Metric]:
    """What is under way to timelines, and how large they are."""
    from feeds import queries

    found = queries.gauges()
    for name, text, key in (
        ("feed_fanouts_waiting", "Posts that are being delivered, up to 100,000.", "waiting"),
        ("feed_fanout_oldest_seconds", "Since the oldest of them was posted.", "oldest_seconds"),
        ("feed_fanouts_failing", "Deliveries whose last attempt failed.", "failing"),
        ("feed_timelines_unbuilt", "Timelines that are to be built, up to 100,000.", "unbuilt"),
        ("feed_timelines_kept", "Timelines that are kept, as PostgreSQL estimates.", "kept"),
        ("feed_rows", "Rows of all kept timelines, as PostgreSQL estimates.", "rows"),
    ):
        gauge = GaugeMetricFamily(name, text)
        gauge.add_metric([], found[key])
        yield gauge


@register_collector
def search_index() -> Iterable[Metric]:
    """How far the search index is behind."""
    from feeds import indexing

    backlog, seconds = indexing.lag()
    waiting = GaugeMetricFamily(
        "post_index_backlog", "Events that the search index does not know, up to 100,000."
    )
    waiting.add_metric([], backlog)
    lag = GaugeMetricFamily("post_index_lag_seconds", "Since the oldest of them happened.")
    lag.add_metric([], seconds)
    return [waiting, lag]
