"""The first page: what it says, what it hides, and how numbers moved."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.utils import timezone

from config import retention, vitals
from config.jobs import run_job
from config.models import JobRun, ReadModelState, VitalSample
from config.vitals import Question, Vital

pytestmark = pytest.mark.django_db

SAMPLE = {"key": "test.sign", "question": Question.STUCK, "title": "A sign", "link": "/admin/x/"}


@pytest.fixture
def sign(monkeypatch):
    """`sign(level=…, number=…)` leaves one vital sign, and no other."""

    def declare(**values) -> None:
        own = Vital(**SAMPLE, **{"number": 5, "value": "five"} | values)
        monkeypatch.setattr(vitals, "_sources", [lambda: [own]])

    return declare


def sampled(age: timedelta, value: float, key: str = "test.sign") -> None:
    VitalSample.objects.create(at=timezone.now() - age, key=key, value=value)


def first_page(client) -> str:
    answer = client.get("/admin/")
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_every_app_has_its_signs():
    found, failed = vitals.read()
    assert failed == []
    keys = [vital.key for vital in found]
    assert len(keys) == len(set(keys))
    apps = {key.partition(".")[0] for key in keys}
    assert {"catalog", "matching", "discovery", "feeds", "counters", "config"} <= apps
    assert {vital.question for vital in found} == set(Question)
    assert all(vital.permission for vital in found)


def test_every_link_opens(admin_client):
    for vital in vitals.read()[0]:
        assert admin_client.get(vital.link).status_code == 200, vital.key


def test_every_trouble_names_what_helps(admin_client):
    """Whatever may be in trouble has a button that says what it does."""
    for vital in vitals.read()[0]:
        if vital.question != Question.GROWS:
            assert vital.help, vital.key


@pytest.mark.parametrize(
    ("level", "says"),
    [("ok", "All is well."), ("warn", "1 wants a look."), ("bad", "1 thing needs you now.")],
)
def test_the_verdict(admin_client, sign, level, says):
    sign(level=level, help="Press it")
    text = first_page(admin_client)
    assert f'<h2 id="verdict">{says}</h2>' in text
    assert ("Press it" in text) == (level != "ok")
    assert ("Nothing is stuck." in text) == (level == "ok")


def test_how_it_moved(admin_client, sign):
    sign(number=1_500, value="1,500")
    sampled(timedelta(minutes=61), 1_000)
    sampled(timedelta(minutes=80), 900)  # older than the one an hour ago
    sampled(timedelta(hours=24, minutes=5), 2_000)
    trend = vitals.trends()["test.sign"]
    assert (trend.hour_ago, trend.day_ago) == (1_000, 2_000)
    assert [value for value in trend.slots if value is not None] == [2_000, 1_000]
    text = first_page(admin_client)
    assert "+500" in text
    assert "−500" in text
    assert "<polyline points=" in text


@pytest.mark.parametrize(
    ("unit", "now", "before", "says"),
    [
        ("s", 90, 30, "+60 s"),
        ("bytes", 3 * 2**30, 2**30, "+2.0 GB"),
        ("", 7, 7, "±0"),
        ("", 1, 1_001, "−1,000"),
        ("", None, 3, "–"),
    ],
)
def test_changes_in_their_units(admin_client, sign, unit, now, before, says):
    sign(number=now, value="now", unit=unit)
    sampled(timedelta(minutes=65), before)
    assert f'data-label="Last hour" class="sg-number">{says}</td>' in first_page(admin_client)


def test_without_samples_nobody_knows(admin_client, sign):
    sign()
    text = first_page(admin_client)
    assert text.count('class="sg-number">–</td>') == 2
    assert "<polyline" not in text


def test_staff_see_what_they_may(client, sign):
    sign(level="bad", permission="matching.view_matchjob")
    eve = User.objects.create_user("eve", is_staff=True)
    client.force_login(eve)
    text = first_page(client)
    assert "A sign" not in text
    assert "You may see none" in text
    eve.user_permissions.add(Permission.objects.get(codename="view_matchjob"))
    assert "A sign" in first_page(client)


def test_a_source_that_cannot_be_read_is_named(admin_client, monkeypatch):
    def broken():
        with connection.cursor() as cursor:
            cursor.execute("SAVEPOINT before")
            try:
                cursor.execute("SELECT nothing FROM nowhere")
            finally:
                cursor.execute("ROLLBACK TO SAVEPOINT before")
        yield

    broken.__module__ = "discovery.vitals"
    monkeypatch.setattr(vitals, "_sources", [broken])
    assert "Not all can be read: discovery." in first_page(admin_client)


def test_the_job_samples_and_old_samples_go():
    run = run_job("sample_vitals", trigger="test")
    assert VitalSample.objects.count() == run.detail["samples"] > 20
    VitalSample.objects.update(at=timezone.now() - timedelta(days=7, hours=23))
    sampled(timedelta(days=8, hours=1), 1)
    retention.prune(["vital_samples"])
    assert VitalSample.objects.count() == run.detail["samples"]


def test_real_troubles_show(admin_client):
    JobRun.objects.create(
        job="prune", trigger="test", state="failed", owner="x", host="h", pid=1, error="no"
    )
    ReadModelState.objects.create(
        name="catalog_slug_summary", differences=3, reconciled_at=timezone.now()
    )
    text = first_page(admin_client)
    assert "<strong>Jobs that failed in 24 hours</strong> 1, prune" in text
    assert "<strong>catalog_slug_summary</strong> 3 differences" in text
    assert "<strong>Worker</strong> silent, never seen" in text
