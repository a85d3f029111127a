"""Probes: alive (this process answers) and ready (it can do its work)."""

import functools
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from config import routing, runs, valkey
from config.rendering import dumps

OK, DEGRADED, DOWN = "ok", "degraded", "down"


@require_safe
def live(_request: HttpRequest) -> HttpResponse:
    """200 as long as this process answers; touches neither PostgreSQL nor Valkey."""
    return _answer({"status": OK})


@require_safe
def ready(_request: HttpRequest) -> HttpResponse:
    """200 while requests can be served, also without cache or worker (degraded); else 503."""
    checks = check()
    worst = max(checks.values(), key=[OK, DEGRADED, DOWN].index)
    return _answer({"status": worst, "checks": checks}, status=503 if worst == DOWN else 200)


def _answer(document: dict, status: int = 200) -> HttpResponse:
    return HttpResponse(
        dumps(document),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def check() -> dict[str, str]:
    """The state of each part: ok, degraded or down."""
    database = _of_database(_database)
    if database == DOWN:
        return {"database": DOWN, "migrations": DOWN, "cache": _cache(), "worker": DEGRADED}
    checks = {
        "database": database,
        "migrations": _of_database(_migrations),
        "cache": _cache(),
        "worker": _of_database(_worker),
    }
    if routing.is_on():
        checks["replica"] = OK if routing.standby.lag is not None else DEGRADED
    return checks


def _of_database(probe: Callable[[], str]) -> str:
    try:
        return probe()
    except (DatabaseError, InterfaceError):
        return DOWN


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return OK


@functools.cache
def _migrations_on_disk() -> frozenset[tuple[str, str]]:
    # What is on disk does not change under a running process, and reading it takes 50 ms.
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


def _migrations() -> str:
    applied = MigrationRecorder(connection).applied_migrations()
    return OK if _migrations_on_disk() <= set(applied) else DOWN


def _cache() -> str:
    return OK if valkey.attempt(lambda: valkey.client().ping(), False) else DEGRADED


def _worker() -> str:
    return OK if runs.worker_is_alive() else DEGRADED
