"""The task queue as it stands: what waits, what is at work, what failed, what cannot be read."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django_q.models import Failure, OrmQ

LOOKED_AT = 10_000  # rows, by age: more are counted, but not told apart
UNREADABLE = "(unreadable)"
FAILED_WITHIN = timedelta(days=1)


@dataclass(frozen=True)
class Line:
    """One kind of task. `oldest_seconds`: since the oldest could have begun; None where none waits.

    `error`: the last line of the last failure within a day.
    """

    name: str
    waiting: int = 0
    running: int = 0
    failed: int = 0
    oldest_seconds: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Overview:
    """The whole queue, and each kind of task, the most waiting first."""

    waiting: int
    running: int
    failed: int
    oldest_seconds: float | None
    lines: list[Line]


def overview() -> Overview:
    """What the queue holds now. A task that is taken is locked until it counts as lost."""
    now = timezone.now()
    lines = _lines(_queued(now), now)
    waiting = OrmQ.objects.filter(lock__lte=now)
    oldest = waiting.order_by("lock").values_list("lock", flat=True).first()
    return Overview(
        waiting=waiting.count(),
        running=OrmQ.objects.filter(lock__gt=now).count(),
        failed=Failure.objects.filter(stopped__gt=now - FAILED_WITHIN).count(),
        oldest_seconds=(now - oldest).total_seconds() if oldest else None,
        lines=sorted(lines, key=lambda line: (-line.waiting, -line.running, line.name)),
    )


def unreadable() -> list[int]:
    """Ids of tasks whose payload nobody can read: of another SECRET_KEY, or broken."""
    return [row.pk for row in OrmQ.objects.order_by("pk")[:LOOKED_AT] if _name(row) == UNREADABLE]


def delete(ids: Iterable[int]) -> int:
    """Take tasks out of the queue; how many were there. One at work goes on to its end."""
    return OrmQ.objects.filter(pk__in=list(ids)).delete()[0]


def _queued(now: datetime) -> Iterable[tuple[str, bool, datetime]]:
    for row in OrmQ.objects.order_by("lock")[:LOOKED_AT]:
        yield _name(row), row.lock <= now, row.lock


def _name(row: OrmQ) -> str:
    task = row.task
    if str(task.get("id", "")).startswith("*"):  # django-q's mark of a payload that it cannot load
        return UNREADABLE
    return task.get("group") or str(task.get("func"))


def _lines(queued: Iterable[tuple[str, bool, datetime]], now: datetime) -> list[Line]:
    found: dict[str, dict] = {}
    for name, is_waiting, lock in queued:
        line = found.setdefault(name, {"waiting": 0, "running": 0, "oldest_seconds": None})
        line["waiting" if is_waiting else "running"] += 1
        if is_waiting and line["oldest_seconds"] is None:
            line["oldest_seconds"] = (now - lock).total_seconds()
    for failure in Failure.objects.filter(stopped__gt=now - FAILED_WITHIN).order_by("-stopped")[
        :LOOKED_AT
    ]:
        line = found.setdefault(failure.group or failure.func, {})
        line["failed"] = line.get("failed", 0) + 1
        line.setdefault("error", (str(failure.result or "").strip().splitlines() or [""])[-1][:200])
    return [Line(name=name, **line) for name, line in found.items()]
