"""What discovery measures: every name is there, parses, and says what is so."""

from datetime import timedelta

import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from config import metrics
from discovery import queries
from discovery.models import Source
from tests.discovery import scenes

pytestmark = pytest.mark.django_db

NAMES = {
    "discovery_source_state",
    "discovery_last_success_age_seconds",
    "discovery_consecutive_failures",
    "discovery_open_slots",
    "discovery_unpublished_drops",
    "discovery_feed_age_seconds",
    "discovery_notifications_waiting",
    "discovery_notifications_oldest_seconds",
    "discovery_notifications_dead",
}


def samples() -> dict[tuple, float]:
    """{(name, *label values): value} of discovery; proves that the text parses."""
    families = list(text_string_to_metric_families(metrics.exposition().decode()))
    assert len({family.name for family in families}) == len(families)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name in NAMES or sample.name == "metrics_errors"
    }


def test_nothing_yet():
    found = samples()
    assert found["metrics_errors", "none"] == 0
    assert found["discovery_unpublished_drops",] == 0
    assert found["discovery_notifications_waiting",] == 0
    assert found["discovery_notifications_oldest_seconds",] == 0
    assert found["discovery_notifications_dead",] == 0
    assert ("discovery_feed_age_seconds",) not in found


def test_every_metric():
    now = timezone.now()
    source = scenes.make_source(last_success_at=now - timedelta(minutes=2), consecutive_failures=1)
    scenes.fill_window(source)
    scenes.make_source("quiet", is_paused=True)
    scenes.make_source("dead", last_success_at=now - timedelta(days=9))
    scenes.make_source("just-made")
    venue = scenes.make_venue(source)
    hidden = scenes.drop(venue, "a", age=timedelta(hours=1), length=None, published_at=None)
    watch = scenes.watch(scenes.person())
    other = scenes.watch(scenes.person("bob"))
    scenes.notification(watch, hidden, due_at=now - timedelta(minutes=7))
    scenes.notification(other, hidden, state="dead")
    scenes.build_feed()

    found = samples()
    assert {name for name, *_ in found} == NAMES | {"metrics_errors"}
    assert found["metrics_errors", "none"] == 0
    states = {key[1:]: value for key, value in found.items() if key[0] == "discovery_source_state"}
    assert {key for key, value in states.items() if value == 1} == {
        ("tables", "failing"),
        ("quiet", "paused"),
        ("dead", "frozen"),
        ("just-made", "new"),
    }
    assert len(states) == 4 * 5
    assert 120 <= found["discovery_last_success_age_seconds", "tables"] < 150
    assert ("discovery_last_success_age_seconds", "just-made") not in found
    assert found["discovery_consecutive_failures", "tables"] == 1
    open_slots = sum(row["open_slots"] for row in queries.bucket_health(source="tables"))
    assert found["discovery_open_slots", "tables"] == open_slots > 0
    assert found["discovery_open_slots", "quiet"] == 0
    assert found["discovery_unpublished_drops",] == 1
    assert 80 <= found["discovery_feed_age_seconds",] < 120  # as of when the test began
    assert found["discovery_notifications_waiting",] == 1
    assert 410 <= found["discovery_notifications_oldest_seconds",] < 450
    assert found["discovery_notifications_dead",] == 1


def test_what_is_not_due_is_not_overdue():
    source = scenes.make_source()
    event = scenes.drop(scenes.make_venue(source), "a", age=timedelta(), length=None)
    due = timezone.now() + timedelta(hours=6)
    scenes.notification(scenes.watch(scenes.person()), event, due_at=due)
    found = samples()
    assert found["discovery_notifications_waiting",] == 1
    assert found["discovery_notifications_oldest_seconds",] == 0


def test_the_number_of_sources_is_bounded():
    Source.objects.bulk_create(Source(name=f"s{at:03}") for at in range(queries.SOURCES + 50))
    found = samples()
    assert len([key for key in found if key[0] == "discovery_open_slots"]) == queries.SOURCES


def test_what_the_metrics_cost(django_assert_num_queries):
    from discovery import metrics as own

    for at in range(20):
        scenes.make_source(f"s{at}")
    with django_assert_num_queries(4):
        for collect in (own.sources, own.drops_and_feed, own.deliveries):
            list(collect())
