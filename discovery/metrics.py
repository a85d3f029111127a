"""What discovery measures for `/metrics`, read when asked: sources, the feed, deliveries.

What it counts (polls, events, drops) commits in PostgreSQL with the polls: see `actions.py`.
"""

from collections.abc import Iterable

from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from config import tally
from config.metrics import register_collector
from discovery import notifier, queries

STATES = ("fresh", "failing", "frozen", "paused", "new")

tally.declare("discovery_polls_total", "Polls of a source.", source=(), outcome=())
tally.declare("discovery_events_total", "What polls found changed.", event=())
tally.declare("discovery_drops_published_total", "Drops that pollers can see.")
tally.declare(
    "discovery_notifications_total",
    "Notifications, by what became of them.",
    state=("pending", "sent", "gone", "failed", "dead", "retried"),
)
tally.declare_histogram(
    "discovery_delivery_seconds",
    "From the poll that saw an opening to the message that told it.",
    notifier.SECONDS,
)


@register_collector
def sources() -> Iterable[Metric]:
    """State, failures, silence and open slots by source; of 200 sources at most."""
    state = GaugeMetricFamily(
        "discovery_source_state",
        "1 for the state that a source is in, 0 for the others.",
        labels=["source", "state"],
    )
    age = GaugeMetricFamily(
        "discovery_last_success_age_seconds",
        "Time since a source answered last; none before its first answer.",
        labels=["source"],
    )
    failures = GaugeMetricFamily(
        "discovery_consecutive_failures",
        "Polls of a source that failed, one after another.",
        labels=["source"],
    )
    slots = GaugeMetricFamily(
        "discovery_open_slots", "Open slots in the window of a source.", labels=["source"]
    )
    now = timezone.now()
    for row in queries.source_overview():
        name = row["source"]
        for each in STATES:
            state.add_metric([name, each], float(row["state"] == each))
        if row["last_success_at"] is not None:
            age.add_metric([name], max(0.0, (now - row["last_success_at"]).total_seconds()))
        failures.add_metric([name], row["consecutive_failures"])
        slots.add_metric([name], row["open_slots"])
    return [state, age, failures, slots]


@register_collector
def drops_and_feed() -> Iterable[Metric]:
    """Drops that nobody could see yet, and the age of what pollers read."""
    waiting = GaugeMetricFamily(
        "discovery_unpublished_drops", "Drops that pollers cannot see yet, up to 100,000."
    )
    waiting.add_metric([], queries.unpublished())
    age = GaugeMetricFamily(
        "discovery_feed_age_seconds", "Age of the feed; none before it was built."
    )
    if (seconds := queries.feed_age()) is not None:
        age.add_metric([], seconds)
    return [waiting, age]


@register_collector
def deliveries() -> Iterable[Metric]:
    """Notifications that wait, for how long the most overdue has, and the dead letters."""
    found = queries.delivery_gauges()
    waiting = GaugeMetricFamily(
        "discovery_notifications_waiting", "Notifications not yet told, up to 100,000 a state."
    )
    waiting.add_metric([], found["waiting"])
    oldest = GaugeMetricFamily(
        "discovery_notifications_oldest_seconds",
        "For how long the most overdue notification has been due; 0 where none is.",
    )
    oldest.add_metric([], found["overdue_seconds"])
    dead = GaugeMetricFamily(
        "discovery_notifications_dead", "Notifications that were given up, up to 100,000."
    )
    dead.add_metric([], found["dead"])
    return [waiting, oldest, dead]
