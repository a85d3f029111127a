"""The admin's first page: one tile for each thing that staff should know before they ask.

A domain adds its own with `register` in its `admin.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from config import readmodels, runs
from config.admin.base import span
from config.models import JobRun


@dataclass(frozen=True)
class Tile:
    """`level`: ok, info, warn, bad or quiet. `permission`: who sees it."""

    title: str
    value: str
    note: str
    link: str
    level: str = "quiet"
    permission: str = ""


_sources: list[Callable[[], Iterable[Tile]]] = []


def register(source: Callable[[], Iterable[Tile]]) -> Callable:
    """Declare a function that yields tiles; usable as a decorator."""
    _sources.append(source)
    return source


def callback(request: HttpRequest, context: dict) -> dict:
    """Unfold's DASHBOARD_CALLBACK."""
    tiles = [tile for source in _sources for tile in source()]
    context["tiles"] = [
        tile for tile in tiles if not tile.permission or request.user.has_perm(tile.permission)
    ]
    return context


@register
def operations() -> Iterable[Tile]:
    """Worker, read models, failed jobs."""
    age = runs.heartbeat_ages().get(runs.WORKER)
    alive = age is not None and age <= settings.WORKER_HEARTBEAT_STALE_SECONDS
    yield Tile(
        title="Worker",
        value="works" if alive else "silent",
        note="never seen" if age is None else f"last sign of life {span(age)} ago",
        link=reverse("admin:config_heartbeat_changelist"),
        level="ok" if alive else "bad",
        permission="config.view_heartbeat",
    )
    states = readmodels.states()
    stale = [state.name for state in states if state.stale or state.error]
    waiting = sum(state.backlog for state in states)
    yield Tile(
        title="Read models",
        value=f"{len(stale)} of {len(states)} stale" if stale else "fresh",
        note=f"{waiting:,} changes wait" if waiting else "nothing waits",
        link=reverse("admin:config_readmodelstate_changelist"),
        level="warn" if stale else "ok",
        permission="config.view_readmodelstate",
    )
    failed = JobRun.objects.filter(
        state__in=[JobRun.State.FAILED, JobRun.State.ABANDONED],
        started_at__gt=timezone.now() - timedelta(days=1),
    )[:1_000].count()
    yield Tile(
        title="Jobs that failed",
        value=f"{failed:,}",
        note="in the last 24 hours",
        link=reverse("admin:config_jobrun_changelist") + "?state__exact=failed",
        level="bad" if failed else "ok",
        permission="config.view_jobrun",
    )
