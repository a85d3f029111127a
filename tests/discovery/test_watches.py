"""Watches: what they may hold, whose they are, and how many."""

import threading
from datetime import date, time

import pytest
from django.contrib.auth.models import User
from django.db import connection

from discovery import watches
from discovery.models import Source, UserNotification, Venue, Watch, WatchVenue
from discovery.watches import InvalidWatch, TooManyWatches, WatchNotFound
from tests.discovery.town import Town, states

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(db):
    return User.objects.create_user("ann")


@pytest.fixture
def bob(db):
    return User.objects.create_user("bob")


@pytest.fixture
def venues(db):
    source = Source.objects.create(name="tables")
    return [
        Venue.objects.create(source=source, key=str(at), last_seen_at="2026-02-18T00:00Z")
        for at in range(3)
    ]


def wrong(**fields) -> dict[str, str]:
    with pytest.raises(InvalidWatch) as caught:
        watches.create_watch(user=None, **{"channel": "none"} | fields)
    return caught.value.errors


def named(watch) -> list[int]:
    rows = WatchVenue.objects.filter(watch=watch).order_by("venue_id")
    return list(rows.values_list("venue_id", flat=True))


def test_a_watch_of_everything(ann):
    watch = watches.create_watch(user=ann, channel="none")
    assert (watch.user, watch.has_venues, watch.secret) == (ann, False, "")
    assert (watch.cooldown_seconds, watch.max_per_hour, watch.timezone) == (300, 12, "UTC")


def test_a_watch_with_all_fields(ann, venues):
    watch = watches.create_watch(
        user=ann,
        name=" Dinner ",
        source="tables",
        venues=[venues[1].pk, venues[0].pk, venues[1].pk],
        date_from="2026-02-18",
        date_to=date(2026, 2, 28),
        weekdays=[6, 5, 5],
        time_from="18:30",
        time_to="21:00",
        party_size=2,
        latitude=52,
        longitude=13.4,
        radius_m=1_000,
        channel="webhook",
        target="https://1.1.1.1/hook",
        timezone="Europe/Berlin",
        quiet_from="23:00",
        quiet_to="07:00",
        cooldown_seconds=60,
        max_per_hour=5,
    )
    watch.refresh_from_db()
    assert (watch.name, watch.has_venues, watch.source) == ("Dinner", True, venues[0].source)
    assert named(watch) == [venues[0].pk, venues[1].pk]
    assert (watch.date_from, watch.weekdays) == (date(2026, 2, 18), [5, 6])
    assert (watch.quiet_from, watch.quiet_to) == (time(23), time(7))
    assert len(watch.secret) >= 32


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 7), ("name", "x" * 101), ("name", "a\x00b"), ("name", "a\nb"), ("name", None),
        ("is_active", 1), ("is_active", "yes"),
        ("source", 7), ("source", "nowhere"), ("source", "x" * 101),
        ("venues", "1"), ("venues", [0]), ("venues", [True]), ("venues", ["1"]), ("venues", [1.0]),
        ("venues", [2**63]), ("venues", list(range(1, 102))), ("venues", [999_999]),
        ("date_from", "soon"), ("date_from", "1999-12-31"), ("date_from", "2200-01-01"),
        ("date_from", 20260218), ("date_to", "2026-02-30"), ("date_to", True),
        ("weekdays", [0]), ("weekdays", [8]), ("weekdays", 5), ("weekdays", [1] * 8),
        ("time_from", "7:30"), ("time_from", "24:00"), ("time_from", "19:30:00"),
        ("time_from", 0), ("time_to", "19.30"), ("time_to", False), ("time_to", "١٩:٣٠"),
        ("party_size", 0), ("party_size", 1001), ("party_size", "2"), ("party_size", True),
        ("channel", "pigeon"), ("channel", None), ("channel", ["email"]),
        ("target", 7), ("target", "anything"), ("target", "x" * 2001),
        ("timezone", "Berlin"), ("timezone", "../etc/passwd"), ("timezone", None),
        ("cooldown_seconds", -1), ("cooldown_seconds", 86_401), ("cooldown_seconds", None),
        ("max_per_hour", 0), ("max_per_hour", 3_601), ("max_per_hour", 1.5),
        ("colour", "red"), ("user_id", 1), ("secret", "mine"), ("has_venues", True), ("id", 1),
    ],
)  # fmt: skip
def test_each_field_that_is_wrong_is_named(db, field, value):
    assert set(wrong(**{field: value})) == {field}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"latitude": 1}, {"longitude", "radius_m"}),
        ({"latitude": 1, "longitude": 1}, {"radius_m"}),
        ({"radius_m": 1}, {"latitude", "longitude"}),
        ({"latitude": float("nan"), "longitude": 1, "radius_m": 5}, {"latitude"}),
        ({"latitude": 91, "longitude": 181, "radius_m": 0}, {"latitude", "longitude", "radius_m"}),
        ({"quiet_from": "23:00"}, {"quiet_to"}),
        ({"quiet_to": "23:00"}, {"quiet_from"}),
        ({"quiet_from": "23:00", "quiet_to": "23:00"}, {"quiet_to"}),
        ({"quiet_from": "25:00", "quiet_to": "x"}, {"quiet_from", "quiet_to"}),
        ({"date_from": "2026-02-19", "date_to": "2026-02-18"}, {"date_from"}),
        ({"time_from": "19:31", "time_to": "19:30"}, {"time_from"}),
        ({"channel": "email"}, {"target"}),
        ({"channel": "webhook", "target": ""}, {"target"}),
        ({"channel": "webhook", "target": "ftp://1.1.1.1/"}, {"target"}),
        ({"channel": "webhook", "target": "http://127.0.0.1/"}, {"target"}),
        ({"channel": "apprise", "target": "json://127.0.0.1/"}, {"target"}),
        ({"channel": "apprise", "target": "syslog://"}, {"target"}),
    ],
)
def test_what_does_not_go_together_is_named(db, fields, named):
    assert set(wrong(**fields)) == named


@pytest.mark.parametrize("address", ["ann", "ann@", "@example.org", "a b@example.org", "a@b",
    "ann@example.org, bob@example.org", "ann@example.org\r\nBcc: x@example.org",
    "Ann <ann@example.org>", f"{'a' * 250}@example.org"])  # fmt: skip
def test_what_is_no_mail_address(settings, db, address):
    settings.EMAIL_URL = "smtp://127.0.0.1:25"
    assert set(wrong(channel="email", target=address)) == {"target"}


def test_mail_needs_a_mail_server(settings, ann):
    settings.EMAIL_URL = ""
    assert "No mail" in wrong(channel="email", target="ann@example.org")["target"]
    settings.EMAIL_URL = "smtp://127.0.0.1:25"
    watch = watches.create_watch(user=ann, channel="email", target="ann+x@example.org")
    assert watch.target == "ann+x@example.org"


def test_venues_are_of_the_source(ann, venues):
    other = Source.objects.create(name="clinics")
    assert set(wrong(source="clinics", venues=[venues[0].pk])) == {"venues"}
    watch = watches.create_watch(user=ann, channel="none", venues=[venues[0].pk])
    with pytest.raises(InvalidWatch) as caught:
        watches.edit_watch(watch_id=watch.pk, user=ann, source=other.name)
    assert set(caught.value.errors) == {"source"}


def test_a_change_touches_what_it_names(ann, venues):
    watch = watches.create_watch(
        user=ann, name="A", channel="none", venues=[venues[0].pk], time_from="18:00"
    )
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, name="B")
    assert (changed.name, changed.time_from, named(changed)) == ("B", "18:00", [venues[0].pk])
    assert changed.updated_at > watch.updated_at
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, venues=[venues[2].pk, venues[1].pk])
    assert named(changed) == [venues[1].pk, venues[2].pk]
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, venues=[], source="tables")
    assert (named(changed), changed.has_venues, changed.source.name) == ([], False, "tables")
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, source=None, time_from=None)
    assert (changed.source, changed.time_from) == (None, "")


def test_a_change_is_checked_with_what_is_there(ann):
    watch = watches.create_watch(
        user=ann, channel="none", time_to="12:00", quiet_from="22:00", quiet_to="07:00"
    )
    for changes, field in [
        ({"time_from": "13:00"}, "time_from"),
        ({"quiet_from": None}, "quiet_from"),
        ({"quiet_to": "22:00"}, "quiet_to"),
        ({"channel": "webhook"}, "target"),
        ({"target": "https://1.1.1.1/"}, "target"),
        ({"radius_m": 5}, "latitude"),
    ]:
        with pytest.raises(InvalidWatch) as caught:
            watches.edit_watch(watch_id=watch.pk, user=ann, **changes)
        assert field in caught.value.errors, changes
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, quiet_from=None, quiet_to=None)
    assert changed.quiet_from is None


def test_a_secret_is_made_when_the_channel_becomes_a_webhook(ann):
    watch = watches.create_watch(user=ann, channel="none")
    assert not watch.is_secret_new
    hook = {"channel": "webhook", "target": "https://1.1.1.1/a"}
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, **hook)
    assert changed.is_secret_new
    first = changed.secret
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, target="https://1.1.1.1/b")
    assert (changed.secret, changed.is_secret_new) == (first, False)
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, channel="none")
    assert changed.target == ""
    changed = watches.edit_watch(watch_id=watch.pk, user=ann, **hook)
    assert changed.is_secret_new
    assert changed.secret != first


def test_anybody_elses_watch_does_not_exist(ann, bob):
    watch = watches.create_watch(user=ann, channel="none", name="mine")
    with pytest.raises(WatchNotFound):
        watches.edit_watch(watch_id=watch.pk, user=bob, name="x")
    with pytest.raises(WatchNotFound):
        watches.delete_watch(watch_id=watch.pk, user=bob)
    watch.refresh_from_db()
    assert watch.name == "mine"
    watches.delete_watch(watch_id=watch.pk, user=ann)
    with pytest.raises(WatchNotFound):
        watches.delete_watch(watch_id=watch.pk, user=ann)


def test_pausing_and_deleting_forget_what_was_to_be_told(ann):
    town = Town()
    first, second = (watches.create_watch(user=ann, channel="none") for _ in range(2))
    town.open("a")
    UserNotification.objects.filter(watch=first).update(state="sent")
    town.open("b")
    assert states() == ["sent", "pending", "pending", "pending"]
    watches.edit_watch(watch_id=first.pk, user=ann, is_active=False)
    assert states(first) == ["sent"]
    watches.delete_watch(watch_id=second.pk, user=ann)
    assert states() == ["sent"]


def test_a_person_has_so_many_at_most(ann, bob, monkeypatch):
    monkeypatch.setattr(watches, "WATCHES", 2)
    for _ in range(2):
        last = watches.create_watch(user=ann, channel="none")
    with pytest.raises(TooManyWatches):
        watches.create_watch(user=ann, channel="none")
    watches.create_watch(user=bob, channel="none")
    watches.delete_watch(watch_id=last.pk, user=ann)
    watches.create_watch(user=ann, channel="none")


@pytest.mark.django_db(transaction=True)
def test_two_requests_do_not_each_make_the_last_one(ann, monkeypatch):
    monkeypatch.setattr(watches, "WATCHES", 3)
    start, outcomes = threading.Barrier(8), []

    def make():
        try:
            start.wait(10)
            watches.create_watch(user=ann, channel="none")
            outcomes.append("made")
        except TooManyWatches:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["made"] * 3 + ["refused"] * 5
    assert Watch.objects.count() == 3
