"""Probes tell alive from ready, and degraded from down."""

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from config import caching, health
from config.models import Heartbeat


@pytest.fixture
def beating(db):
    Heartbeat.objects.update_or_create(name="worker", defaults={"beat_at": timezone.now()})


def test_live_needs_neither_database_nor_cache(client):
    answer = client.get("/health/live")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}
    assert answer["Cache-Control"] == "no-store"


def test_ready_when_everything_answers(client, beating):
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "checks": {"database": "ok", "migrations": "ok", "cache": "ok", "worker": "ok"},
    }


def test_a_silent_worker_is_degraded(client, db):
    old = timezone.now() - timezone.timedelta(hours=1)
    Heartbeat.objects.update_or_create(name="worker", defaults={"beat_at": old})
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")


def test_a_stopped_valkey_is_degraded(client, beating, own_valkey):
    assert client.get("/health/ready").json()["checks"]["cache"] == "ok"
    own_valkey.stop()
    caching.forget()
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {
        "database": "ok",
        "migrations": "ok",
        "cache": "degraded",
        "worker": "ok",
    }


def test_an_unapplied_migration_is_down(client, beating):
    app, name = min(health._migrations_on_disk())
    MigrationRecorder(connection).record_unapplied(app, name)
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["migrations"] == "down"


def test_an_unreachable_database_is_down(client, unreachable_database):
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "down"
    assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_only_reads(client, path):
    assert client.post(path).status_code == 405
