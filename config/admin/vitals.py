"""The vital signs of what all apps share: worker, jobs, read models, the database itself."""

from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import timezone

from config import backup, partitions, readmodels, runs
from config.admin.base import span
from config.models import JobRun
from config.sqlfiles import queries
from config.vitals import Question, Vital, register, table_sizes

TABLES_SHOWN = 8
QUEUE_LATE_SECONDS = 900
CONNECTIONS_FULL = 0.85  # of max_connections
RECONCILED_LATE = timedelta(days=2)


@register
def worker() -> Iterable[Vital]:
    """The worker's sign of life, its queue, and jobs that failed."""
    age = runs.heartbeat_ages().get(runs.WORKER)
    alive = age is not None and age <= settings.WORKER_HEARTBEAT_STALE_SECONDS
    yield Vital(
        key="config.worker",
        question=Question.STUCK,
        title="Worker",
        number=age,
        unit="s",
        value="works" if alive else "silent",
        note="never seen" if age is None else f"last sign of life {span(age)} ago",
        link=reverse("admin:config_heartbeat_changelist"),
        help="Look at the signs of life",
        level="ok" if alive else "bad",
        permission="config.view_heartbeat",
    )
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["job_queue"])
        waiting, oldest = cursor.fetchone()
    yield Vital(
        key="config.task_queue",
        question=Question.STUCK,
        title="Task queue",
        number=waiting,
        value=f"{waiting:,} waiting",
        note=f"the oldest for {span(oldest)}" if waiting else "",
        link=reverse("admin:django_q_ormq_changelist"),
        help="Look at the queue",
        level="bad" if oldest > QUEUE_LATE_SECONDS else "ok",
        permission="django_q.view_ormq",
    )
    failed = JobRun.objects.filter(
        state__in=[JobRun.State.FAILED, JobRun.State.ABANDONED],
        started_at__gt=timezone.now() - timedelta(days=1),
    )
    names = sorted(set(failed.values_list("job", flat=True)[:1_000]))
    count = failed[:1_000].count()
    yield Vital(
        key="config.failed_jobs",
        question=Question.STUCK,
        title="Jobs that failed in 24 hours",
        number=count,
        value=f"{count:,}",
        note=", ".join(names[:4]) + ("…" if len(names) > 4 else ""),
        link=reverse("admin:config_jobrun_changelist") + "?state__exact=failed",
        help="See why, and run them again",
        level="bad" if count else "ok",
        permission="config.view_jobrun",
    )


@register
def backups() -> Iterable[Vital]:
    """How old the newest backup is."""
    last = backup.last_made_at()
    age = (timezone.now() - last).total_seconds() if last else None
    late = age is not None and age > backup.OLD.total_seconds()
    yield Vital(
        key="config.backup",
        question=Question.STALE,
        title="Backup",
        number=age,
        unit="s",
        value="none" if age is None else f"{span(age)} old",
        note="" if age is not None else "nothing is in the run log",
        link=reverse("admin:config_jobrun_changelist") + "?job=backup",
        help="Look at its runs",
        level="info" if age is None else "bad" if late else "ok",
        permission="config.view_jobrun",
    )


@register
def read_models() -> Iterable[Vital]:
    """Each read model: how old it is, what waits, how far it was from the truth."""
    link = reverse("admin:config_readmodelstate_changelist")
    now = timezone.now()
    for state in readmodels.states():
        waiting = f"{state.backlog:,} changes wait" if state.backlog else ""
        yield Vital(
            key=f"stale.{state.name}",
            question=Question.STALE,
            title=state.name,
            number=state.age_seconds,
            unit="s",
            value="never refreshed"
            if state.age_seconds is None
            else f"{span(state.age_seconds)} old",
            note=state.error or waiting,
            link=link,
            help="Refresh it",
            level="bad" if state.error else "warn" if state.stale else "ok",
            permission="config.view_readmodelstate",
        )
        late = state.reconciled_at is not None and now - state.reconciled_at > RECONCILED_LATE
        yield Vital(
            key=f"drift.{state.name}",
            question=Question.DRIFTS,
            title=state.name,
            number=state.differences,
            value=_drift(state.differences),
            note=f"compared {span((now - state.reconciled_at).total_seconds())} ago"
            if state.reconciled_at
            else "",
            link=link,
            help="Mend it" if state.differences else "Compare it",
            level=_drift_level(state.differences, late),
            permission="config.view_readmodelstate",
        )


def _drift(differences: int | None) -> str:
    if differences is None:
        return "not compared yet"
    return f"{differences:,} differences" if differences else "equal to the truth"


def _drift_level(differences: int | None, late: bool) -> str:
    if differences is None:
        return "quiet"
    return "bad" if differences else "warn" if late else "ok"


@register
def database() -> Iterable[Vital]:
    """The database's size, its largest tables, connections, and partitions made ahead."""
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["database_size"])
        [size] = cursor.fetchone()
        cursor.execute(queries("config")["connection_usage"])
        used, limit, _idle = cursor.fetchone()
    jobs = reverse("admin:config_jobrun_changelist")
    yield _grows("config.database", "Database", size, jobs)
    for name, taken in table_sizes(TABLES_SHOWN):
        yield _grows(f"table.{name}", name, taken, jobs)
    full = used / limit
    yield Vital(
        key="config.connections",
        question=Question.GROWS,
        title="Connections to PostgreSQL",
        number=used,
        value=f"{used:,} of {limit:,}",
        link=reverse("admin:config_heartbeat_changelist"),
        help="See who is alive",
        level="bad" if full > CONNECTIONS_FULL else "ok",
        permission="config.view_heartbeat",
    )
    lacking = {name: partitions.missing_ahead(name) for name in partitions.all()}
    yield Vital(
        key="config.partitions_lacking",
        question=Question.STUCK,
        title="Partitions not made ahead",
        number=sum(lacking.values()),
        value=f"{sum(lacking.values()):,}",
        note=", ".join(name for name, missing in lacking.items() if missing),
        link=f"{jobs}?job=partitions_ahead",
        help="Run partitions_ahead",
        level="bad" if any(lacking.values()) else "ok",
        permission="config.view_jobrun",
    )


def _grows(key: str, title: str, size: int, link: str) -> Vital:
    return Vital(
        key=key,
        question=Question.GROWS,
        title=title,
        number=size,
        unit="bytes",
        value=filesizeformat(size),
        link=link,
        help="Look at prune",
        permission="config.view_jobrun",
    )
