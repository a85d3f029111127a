"""Checks of an installation, for people and for cron. Each looks, changes nothing, and says what
to do."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import django
from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Q
from django.utils import timezone
from django_q.models import Schedule
from redis.exceptions import RedisError

from config import (
    archive,
    backup,
    jobs,
    limits,
    partitions,
    readmodels,
    runs,
    schedules,
    stores,
    valkey,
)
from config.admin.base import span
from config.logs import first_line
from config.models import UNUSED_AFTER, ApiToken, JobRun

OK, WARN, FAIL = "ok", "warn", "FAIL"

EXTENSIONS = {"vector": (0, 8, 4), "pg_trgm": (), "unaccent": (), "pg_stat_statements": ()}
OPTIONAL_EXTENSIONS = {"pg_stat_statements"}
SECRET_KEY_LENGTH = 32


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` says what to do, and is empty where all is well."""

    level: str
    name: str
    finding: str
    advice: str = ""


def examine() -> list[Check]:
    """Every check. Without a database only those that need none."""
    checks = [*_versions(), *_settings(), *_cache()]
    try:
        connection.ensure_connection()
    except Error as error:
        return [
            Check(FAIL, "database", first_line(error), "start PostgreSQL, or correct DATABASE_URL"),
            *checks,
        ]
    for look in (_postgresql, _limits, _extensions, _migrations):
        checks += _guarded(look)
    if checks[-1].level == FAIL:  # the rest reads tables that may not exist yet
        return checks
    for look in (
        _worker,
        _schedules,
        _foreign_schedules,
        _runs,
        _read_models,
        _partitions,
        _backup,
        _archive,
        _tokens,
    ):
        checks += _guarded(look)
    return checks


def _guarded(look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except Exception as error:  # noqa: BLE001 - one check that cannot work must not hide the others
        reason = f"{type(error).__name__}: {first_line(error)}"
        name = look.__name__.strip("_").replace("_", " ")
        return [Check(FAIL, name, f"cannot be checked: {reason}", "see the checks above first")]


def _versions() -> Iterator[Check]:
    yield Check(OK, "Python", platform.python_version())
    yield Check(OK, "Django", django.get_version())


def _settings() -> Iterator[Check]:
    if settings.EMBEDDED:
        yield Check(OK, "settings", "embedded mode: own servers, made-up secret key")
        return
    if settings.DEBUG:
        yield Check(FAIL, "settings", "DEBUG is on", "unset DEBUG: it shows internals to anybody")
    if len(settings.SECRET_KEY) < SECRET_KEY_LENGTH or "insecure" in settings.SECRET_KEY:
        advice = f"set SECRET_KEY to {SECRET_KEY_LENGTH} or more random characters"
        yield Check(FAIL, "settings", "SECRET_KEY can be guessed", advice)
    if not settings.ALLOWED_HOSTS:
        advice = "set ALLOWED_HOSTS to the host names of this site"
        yield Check(FAIL, "settings", "ALLOWED_HOSTS is empty: every request is refused", advice)
    if "*" in settings.ALLOWED_HOSTS:
        advice = "set ALLOWED_HOSTS to the host names of this site"
        yield Check(WARN, "settings", "ALLOWED_HOSTS accepts every name", advice)
    if not settings.DEBUG:
        yield Check(OK, "settings", "production mode")


def _cache() -> Iterator[Check]:
    try:
        version = valkey.client().info("server")
    except (RedisError, OSError) as error:
        advice = "start Valkey, or correct REDIS_URL; until then everything works, slower"
        yield Check(WARN, "cache", f"unreachable: {error}", advice)
        return
    name = version.get("server_name", "redis").capitalize()
    yield Check(OK, "cache", f"{name} {version.get('valkey_version') or version['redis_version']}")


def _postgresql() -> Iterator[Check]:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        version = cursor.fetchone()[0].split()[0]
    major = connection.pg_version // 10_000
    if major < 16:
        yield Check(FAIL, "PostgreSQL", version, "upgrade to PostgreSQL 18; 16 is the least")
    elif major < 18:
        yield Check(WARN, "PostgreSQL", version, "upgrade to PostgreSQL 18, which this is made for")
    else:
        yield Check(OK, "PostgreSQL", version)


def _limits() -> Iterator[Check]:
    kind = settings.PROCESS_ROLE
    wrong = limits.missing(kind)
    if wrong:
        finding = ", ".join(f"{name} is {value}" for name, value in sorted(wrong.items()))
        advice = f"name this database role in DB_ROLES (ROLE={kind}) and run manage.py migrate"
        yield Check(WARN, "limits", f"not those of a {kind} process: {finding}", advice)
    else:
        yield Check(OK, "limits", f"those of a {kind} process")


def _extensions() -> Iterator[Check]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extname, extversion FROM pg_extension")
        installed = dict(cursor.fetchall())
    for name, least in EXTENSIONS.items():
        version = installed.get(name)
        if version is None:
            level = WARN if name in OPTIONAL_EXTENSIONS else FAIL
            advice = f"as a superuser: CREATE EXTENSION {name}"
            yield Check(level, f"extension {name}", "not installed", advice)
        elif least and tuple(int(part) for part in version.split(".")) < least:
            wanted = ".".join(map(str, least))
            advice = f"upgrade it to {wanted} or later, then ALTER EXTENSION {name} UPDATE"
            yield Check(FAIL, f"extension {name}", f"{version} has index bugs", advice)
        else:
            yield Check(OK, f"extension {name}", version)


def _migrations() -> Iterator[Check]:
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        names = ", ".join(f"{step.app_label}.{step.name}" for step, _ in waiting[:3])
        finding = f"{len(waiting)} not applied: {names}{' …' if len(waiting) > 3 else ''}"
        yield Check(FAIL, "migrations", finding, "manage.py migrate")
    else:
        yield Check(OK, "migrations", "all applied")


def _worker() -> Iterator[Check]:
    ages = runs.heartbeat_ages()
    limit = settings.WORKER_HEARTBEAT_STALE_SECONDS
    age = ages.get(runs.WORKER)
    if age is None:
        yield Check(FAIL, "worker", "never seen", "start it: manage.py worker")
    elif age > limit:
        yield Check(FAIL, "worker", f"silent for {span(age)}", "start it: manage.py worker")
    elif ages.get(jobs.RESULTS, age) - ages.get(jobs.CANARY, age) > limit:
        finding = "works, but results are not stored"
        yield Check(WARN, "worker", finding, "wait for its restart, or restart manage.py worker")
    else:
        yield Check(OK, "worker", f"last sign of life {span(age)} ago")


def _schedules() -> Iterator[Check]:
    rows = {row.name: row for row in Schedule.objects.filter(name__startswith=jobs.PREFIX)}
    for job in jobs.all().values():
        if job.schedule == "on demand":
            continue
        row = rows.get(jobs.PREFIX + job.name)
        name, repair = f"job {job.name}", "manage.py sync_schedules"
        if row is None:
            yield Check(FAIL, name, "has no schedule", repair)
        elif row.repeats == 0 or row.next_run is None:
            yield Check(FAIL, name, "its schedule is switched off", repair)
        elif row.next_run < timezone.now() - jobs.OVERDUE:
            late = span((timezone.now() - row.next_run).total_seconds())
            yield Check(FAIL, name, f"overdue by {late}", "start manage.py worker, or see its log")
        else:
            yield _last_run(job)


def _last_run(job: jobs.Job) -> Check:
    finished = JobRun.objects.filter(job=job.name).exclude(
        state__in=[JobRun.State.RUNNING, JobRun.State.SKIPPED]
    )
    last = finished.order_by("-started_at").first()
    if last is None:
        return Check(OK, f"job {job.name}", f"{job.schedule}; has not run yet")
    ago = span((timezone.now() - last.started_at).total_seconds())
    if last.state == JobRun.State.SUCCEEDED:
        return Check(OK, f"job {job.name}", f"{job.schedule}; last run {ago} ago")
    reason = runs.last_line(last.error) or last.state
    advice = f"manage.py run_job {job.name} -v 2 shows the whole error"
    return Check(WARN, f"job {job.name}", f"{last.state} {ago} ago: {reason}", advice)


def _foreign_schedules() -> Iterator[Check]:
    for row in Schedule.objects.exclude(name__startswith=jobs.PREFIX).exclude(repeats=0):
        if reason := schedules.fault(row):
            advice = "correct it in the admin; manage.py sync_schedules switches it off"
            yield Check(WARN, f"schedule {row.name or row.pk}", reason, advice)


def _runs() -> Iterator[Check]:
    silent = JobRun.objects.filter(
        state=JobRun.State.RUNNING, heartbeat_at__lt=timezone.now() - runs.SILENT
    )
    count = 0
    for run in silent.order_by("heartbeat_at")[:20]:
        count += 1
        age = span((timezone.now() - run.heartbeat_at).total_seconds())
        finding = f"process {run.pid} on {run.host} has been silent for {age}"
        yield Check(WARN, f"run of {run.job}", finding, f"manage.py run_job {run.job}")
    if not count:
        yield Check(OK, "runs", "no dead run is marked as running")


def _read_models() -> Iterator[Check]:
    for state in readmodels.states():
        name, refresh = f"read model {state.name}", f"manage.py refresh {state.name}"
        waiting = f", {state.backlog:,} changes wait" if state.backlog else ""
        if state.age_seconds is None:
            yield Check(WARN, name, f"never refreshed{waiting}", refresh)
            continue
        finding = f"{span(state.age_seconds)} old{waiting}"
        if state.error:
            yield Check(FAIL, name, f"{finding}; last refresh failed: {state.error}", refresh)
        elif state.stale:
            limit = span(state.max_age.total_seconds())
            yield Check(FAIL, name, f"{finding}; {limit} is the limit", refresh)
        elif state.differences:
            advice = f"manage.py reconcile {state.name} --fix"
            yield Check(FAIL, name, f"{state.differences:,} rows differ from the truth", advice)
        else:
            yield Check(OK, name, finding)


def _partitions() -> Iterator[Check]:
    for name, table in partitions.all().items():
        missing = partitions.missing_ahead(name)
        if missing:
            finding = f"{missing} of {table.ahead + 1} {table.unit}s from now on have none"
            yield Check(FAIL, f"partitions of {name}", finding, "manage.py partitions")
        else:
            finding = f"this {table.unit} and {table.ahead} ahead"
            yield Check(OK, f"partitions of {name}", finding)
        if estranged := partitions.estranged(name):
            first, holder, owner = estranged[0]
            finding = f"{len(estranged)} do not belong to {owner}, as {first} to {holder}"
            advice = f"as a superuser: ALTER TABLE {first} OWNER TO {owner}, and so on"
            yield Check(FAIL, f"partitions of {name}", finding, advice)


def _backup() -> Iterator[Check]:
    last = backup.last_made_at()
    advice = "manage.py backup PATH, or set BACKUP_DIR: docs/backup.md"
    if last is None:
        yield Check(WARN, "backup", "none in the run log", advice)
        return
    age = timezone.now() - last
    late = age > backup.OLD
    finding = f"{span(age.total_seconds())} ago"
    yield Check(FAIL if late else OK, "backup", finding, advice if late else "")


def _archive() -> Iterator[Check]:
    if not settings.ARCHIVE_URL:
        yield Check(OK, "archive", "off: what expires is dropped")
        return
    try:
        stores.get().check()
    except stores.StoreError as error:
        advice = "correct ARCHIVE_URL or its credentials; until then nothing archivable is dropped"
        yield Check(FAIL, "archive", f"unreachable: {error}", advice)
        return
    due = sum(len(partitions.expired(table)) for table in archive.archivable())
    finding = f"{settings.ARCHIVE_URL} can be reached, {due} partitions wait"
    yield Check(OK, "archive", finding)


def _tokens() -> Iterator[Check]:
    """By number: names of tokens are for the admin."""
    valid = ApiToken.objects.filter(Q(expiry=None) | Q(expiry__gt=timezone.now()))
    forever = valid.filter(expiry=None).count()
    unused = valid.unused().count()
    where = "the API tokens of the admin, filter `use`: revoke what nobody needs"
    if forever:
        yield Check(WARN, "tokens", f"{forever:,} never expire", where)
    if unused:
        yield Check(WARN, "tokens", f"{unused:,} unused for {UNUSED_AFTER.days} days", where)
    if not forever and not unused:
        yield Check(OK, "tokens", "all expire and are used")
