"""Which watches a drop fits, and that each is told of it once."""

import threading
from datetime import UTC, date, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from discovery import actions
from discovery.models import DropEvent, Source, UserNotification, Venue, WatchVenue
from tests.discovery.town import Town, states, watch

pytestmark = pytest.mark.django_db

# 2026-02-20 is a Friday; 19:30 in Berlin is 18:30 UTC.
STARTS = datetime(2026, 2, 20, 18, 30, tzinfo=UTC)
PLACE = (52.52, 13.405)


@pytest.fixture
def ann(db):
    return User.objects.create_user("ann")


@pytest.fixture
def venue(db):
    source = Source.objects.create(name="tables", timezone="Europe/Berlin")
    return Venue.objects.create(
        source=source, key="a", last_seen_at=STARTS, latitude=PLACE[0], longitude=PLACE[1]
    )


@pytest.fixture
def other(db):
    source = Source.objects.create(name="clinics")
    return Venue.objects.create(source=source, key="b", last_seen_at=STARTS)


def fitting(venue, *, starts_at=STARTS, local_time="19:30", party=(None, None)) -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM discovery_fitting_watches(%s, %s, %s, %s, %s::int2, %s::int2)",
            [venue.source_id, venue.pk, starts_at, local_time, *party],
        )
        found = [row[0] for row in cursor.fetchall()]
    assert len(found) == len(set(found)), "a watch is found twice"
    return set(found)


def named(user, *venues, **fields):
    made = watch(user, has_venues=True, **fields)
    WatchVenue.objects.bulk_create(WatchVenue(venue=one, watch=made) for one in venues)
    return made


def fits(user, venue, *, fields, drop) -> bool:
    """Whether it fits; the same for a watch that names the venue, its source, or nothing."""
    found = fitting(venue, **drop)
    ways = [
        watch(user, **fields),
        watch(user, source=venue.source, **fields),
        named(user, venue, **fields),
        named(user, venue, source=venue.source, **fields),
    ]
    new = fitting(venue, **drop) - found
    assert new in (set(), {one.pk for one in ways}), "the ways of naming a venue differ"
    return bool(new)


def test_a_watch_of_anything_fits_everything(ann, venue):
    assert fits(ann, venue, fields={}, drop={})
    assert fits(ann, venue, fields={}, drop={"starts_at": None, "local_time": ""})
    assert fits(ann, venue, fields={}, drop={"party": (2, 4)})


def test_paused_watches_fit_nothing(ann, venue):
    assert not fits(ann, venue, fields={"is_active": False}, drop={})


def test_venues_and_sources(ann, venue, other):
    mine = [
        named(ann, venue),
        named(ann, venue, other),
        watch(ann, source=venue.source),
        watch(ann),
    ]
    not_mine = [
        named(ann, other),
        watch(ann, source=other.source),
        watch(ann, has_venues=True),  # all that it named are gone
        named(ann, venue, source=other.source),
    ]
    assert fitting(venue) == {one.pk for one in mine}
    assert not fitting(venue) & {one.pk for one in not_mine}
    assert fitting(other) == {mine[1].pk, mine[3].pk, not_mine[0].pk, not_mine[1].pk}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"date_from": date(2026, 2, 20)}, True),
        ({"date_from": date(2026, 2, 21)}, False),
        ({"date_to": date(2026, 2, 20)}, True),
        ({"date_to": date(2026, 2, 19)}, False),
        ({"date_from": date(2026, 2, 20), "date_to": date(2026, 2, 20)}, True),
        ({"weekdays": [5]}, True),
        ({"weekdays": [1, 5]}, True),
        ({"weekdays": [1, 2, 3, 4, 6, 7]}, False),
        ({"time_from": "19:30"}, True),
        ({"time_from": "19:31"}, False),
        ({"time_to": "19:30"}, True),
        ({"time_to": "19:29"}, False),
        ({"time_from": "19:00", "time_to": "20:00"}, True),
        ({"time_from": "09:00", "time_to": "10:00"}, False),
    ],
)
def test_days_and_times(ann, venue, fields, expected):
    assert fits(ann, venue, fields=fields, drop={}) is expected
    # What is free now and names no day fits all days and times.
    assert fits(ann, venue, fields=fields, drop={"starts_at": None, "local_time": ""})


def test_days_are_those_of_the_place(ann, venue):
    """23:30 UTC on Friday is 00:30 on Saturday in Berlin."""
    late = {"starts_at": datetime(2026, 2, 20, 23, 30, tzinfo=UTC), "local_time": "00:30"}
    assert fits(ann, venue, fields={"weekdays": [6]}, drop=late)
    assert not fits(ann, venue, fields={"weekdays": [5]}, drop=late)
    assert fits(ann, venue, fields={"date_from": date(2026, 2, 21)}, drop=late)
    assert not fits(ann, venue, fields={"date_to": date(2026, 2, 20)}, drop=late)


@pytest.mark.parametrize(
    ("size", "party", "expected"),
    [
        (2, (2, 4), True),
        (4, (2, 4), True),
        (1, (2, 4), False),
        (5, (2, 4), False),
        (2, (None, None), True),
        (1000, (None, None), True),
        (3, (4, None), False),
        (9, (4, None), True),
        (4, (None, 4), True),
        (5, (None, 4), False),
        (None, (2, 4), True),
    ],
)
def test_parties(ann, venue, size, party, expected):
    assert fits(ann, venue, fields={"party_size": size}, drop={"party": party}) is expected


def test_areas(ann, venue):
    def near(latitude, longitude, radius):
        area = {"latitude": latitude, "longitude": longitude, "radius_m": radius}
        return fits(ann, venue, fields=area, drop={})

    assert near(*PLACE, 1)
    # A thousandth of a degree of latitude is 111.19 m, of longitude here 67.7 m.
    assert near(52.521, 13.405, 112)
    assert not near(52.521, 13.405, 111)
    assert near(52.52, 13.406, 68)
    assert not near(52.52, 13.406, 67)
    assert near(52.4, 16.9, 500_000)


def test_areas_at_the_date_line_and_the_poles(ann, venue):
    Venue.objects.filter(pk=venue.pk).update(latitude=0, longitude=179.9995)
    area = {"latitude": 0, "longitude": -179.9995, "radius_m": 112}
    assert fits(ann, venue, fields=area, drop={})
    assert not fits(ann, venue, fields=area | {"radius_m": 111}, drop={})
    Venue.objects.filter(pk=venue.pk).update(latitude=90, longitude=0)
    area = {"latitude": 89.999, "longitude": 120, "radius_m": 112}
    assert fits(ann, venue, fields=area, drop={})


def test_a_venue_without_a_place_is_in_no_area(ann, other):
    area = {"latitude": 0, "longitude": 0, "radius_m": 500_000}
    assert not fits(ann, other, fields=area, drop={})


def test_all_criteria_at_once_and_each_that_fails(ann, venue):
    right = {
        "date_from": date(2026, 2, 18),
        "date_to": date(2026, 2, 22),
        "weekdays": [5, 6],
        "time_from": "18:00",
        "time_to": "21:00",
        "party_size": 3,
        "latitude": 52.52,
        "longitude": 13.4,
        "radius_m": 1_000,
    }
    wrong = {
        "date_from": date(2026, 2, 21),
        "date_to": date(2026, 2, 19),
        "weekdays": [1],
        "time_from": "20:00",
        "time_to": "19:00",
        "party_size": 5,
        "radius_m": 10,
    }
    drop = {"party": (2, 4)}
    assert fits(ann, venue, fields=right, drop=drop)
    for name, value in wrong.items():
        assert not fits(ann, venue, fields=right | {name: value}, drop=drop), name


def test_a_drop_makes_one_row_for_each_watch_that_fits(ann, settings):
    town = Town()
    first, second = watch(ann), watch(ann, source=town.source)
    watch(ann, party_size=9)
    drop = town.open("a", party_min=2, party_max=4)
    rows = UserNotification.objects.order_by("watch_id")
    assert list(rows.values_list("watch_id", "drop_id", "user_id", "state")) == [
        (one.pk, drop.pk, ann.pk, "pending") for one in (first, second)
    ]
    town.poll()
    actions.publish_drops()
    DropEvent.objects.update(published_at=None)  # as if it had not been published
    assert actions.publish_drops() == (1, 0)
    assert rows.count() == 2


def test_of_old_drops_nobody_is_told(ann, settings):
    settings.DISCOVERY_NOTIFY_WITHIN_MINUTES = 60
    town = Town()
    watch(ann)
    town.at = timezone.now() - timedelta(minutes=63)
    Source.objects.filter(pk=town.source.pk).update(window_days=0)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE bucket_calendars SET polled_at = %s", [town.at])
    town.open("old")  # an hour and three minutes ago
    assert states() == []
    town.at = timezone.now() - timedelta(minutes=58)
    town.open("new")
    assert states() == ["pending"]


def test_a_drop_of_the_baseline_tells_nobody(ann):
    watch(ann)
    Town()
    assert states() == []


@pytest.mark.django_db(transaction=True)
def test_two_processes_that_publish_make_one_row(ann):
    town = Town()
    for number in range(20):
        watch(ann, name=str(number))
    slots = [f"s{number}" for number in range(30)]
    town.open(*slots)
    UserNotification.objects.all().delete()
    DropEvent.objects.update(published_at=None)
    start, told = threading.Barrier(4), []

    def publish():
        try:
            start.wait(10)
            told.append(actions.publish_drops()[1])
        finally:
            connection.close()

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(told) == [0, 0, 0, 600]
    assert UserNotification.objects.count() == 600
