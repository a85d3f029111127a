"""Demo tables: the same for one seed, nothing twice, and something to see in every room."""

from datetime import timedelta

import pytest

from discovery import demo
from discovery.models import (
    Availability,
    DropEvent,
    FeedSegment,
    Scan,
    Source,
    UserNotification,
    Venue,
    VenueStats,
    Watch,
)

pytestmark = pytest.mark.django_db(transaction=True)  # jobs beat on other connections


def test_there_is_something_to_see_and_nothing_twice(monkeypatch):
    monkeypatch.setitem(demo.HOURS, "small", 2)
    assert demo.is_empty()
    added = demo.load(size="small", seed=1)
    assert not demo.is_empty()
    assert added == DropEvent.objects.count() > 50
    assert not DropEvent.objects.filter(published_at__isnull=True).exists()
    assert DropEvent.objects.filter(closed_at__isnull=False).exists()
    assert 23 <= Scan.objects.filter(outcome="recorded").count() <= 24
    assert Venue.objects.exclude(name="").filter(latitude__isnull=False).count() == 12
    assert Availability.objects.count() > 50
    assert VenueStats.objects.filter(drops__gt=0).exists()
    assert FeedSegment.objects.get(segment="board").items > 0
    watch = Watch.objects.get()
    assert watch.channel == "none"
    assert UserNotification.objects.filter(watch=watch).exists()
    source = Source.objects.get()
    assert source.provider == "demo"

    # A poller goes on with it at once; what stands is not recorded again.
    assert source.next_poll_at - source.last_success_at < timedelta(minutes=10)
    assert demo.load(size="small", seed=1) == 0
    assert Scan.objects.count() <= 24
    assert Watch.objects.count() == 1
