"""The queue's schedule rows: kept equal to what is wanted, and unable to stop one another.

django-q2 walks all due schedules in one transaction. A row that raises there rolls back the
others, every time. So no such row may stay switched on.
"""

import ast
import pydoc
from datetime import datetime, timedelta

from croniter import croniter
from django.utils import timezone
from django_q.models import Schedule

# From here on the scheduler steps minute by minute up to now; a year takes it 2 s.
OLDEST_NEXT_RUN = timedelta(days=366)


def cron_fault(expression: str | None) -> str:
    """Why a cron expression cannot be used, or ""."""
    try:
        if len((expression or "").split()) != 5:
            return f"cron {expression!r} must have five fields"
        croniter(expression, timezone.now()).get_next(datetime)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"cron {expression!r} cannot be used: {error}"
    return ""


def fault(row: Schedule) -> str:
    """Why this row would break the scheduler or fail in every worker, or "" where it is sound."""
    return _type_fault(row) or _arguments_fault(row) or _function_fault(row.func)


def upsert(prefix: str, wanted: dict[str, dict]) -> list[str]:
    """Make the rows whose name starts with `prefix` equal to `wanted` (name → fields).

    `next_run` is kept while the schedule stays the same and the time is plausible. Returns what
    was changed, in words. The caller holds a lock against another `upsert`.
    """
    changes = []
    existing: dict[str, Schedule] = {}
    for row in Schedule.objects.filter(name__startswith=prefix).order_by("pk"):
        if row.name in existing or row.name not in wanted:
            row.delete()
            changes.append(f"removed {row.name}")
        else:
            existing[row.name] = row
    for name, fields in wanted.items():
        row = existing.get(name)
        if row is None:
            Schedule.objects.create(name=name, next_run=_first_run(fields), **fields)
            changes.append(f"made {name}")
            continue
        different = {key: value for key, value in fields.items() if getattr(row, key) != value}
        if different.keys() & {"schedule_type", "minutes", "cron", "repeats"} or _lost(row, fields):
            different["next_run"] = _first_run(fields)
        if different:
            Schedule.objects.filter(pk=row.pk).update(**different)
            changes.append(f"corrected {name} ({', '.join(sorted(different))})")
    return changes


def repair(prefix: str) -> list[str]:
    """Mend the rows of others, or switch them off (repeats 0); returns which and why.

    Sound rows are left as they are.
    """
    changes = []
    for row in Schedule.objects.exclude(repeats=0).order_by("pk"):
        if (row.name or "").startswith(prefix):
            continue
        this = Schedule.objects.filter(pk=row.pk)
        if reason := fault(row):
            this.update(repeats=0)
            changes.append(f"switched off schedule {row.name or row.pk}: {reason}")
        elif row.next_run and row.next_run < timezone.now() - OLDEST_NEXT_RUN:
            this.update(next_run=timezone.now())
            changes.append(
                f"moved schedule {row.name or row.pk}: due since {row.next_run:%Y-%m-%d}"
            )
    return changes


def _first_run(fields: dict) -> datetime:
    if fields["schedule_type"] == Schedule.CRON:
        return croniter(fields["cron"], timezone.now()).get_next(datetime)
    return timezone.now()


def _lost(row: Schedule, fields: dict) -> bool:
    """Whether the row would never run again, or not when it should."""
    if row.next_run is None or row.next_run < timezone.now() - OLDEST_NEXT_RUN:
        return True
    if fields["schedule_type"] == Schedule.CRON:
        return row.next_run > _first_run(fields)
    return row.next_run > timezone.now() + timedelta(minutes=fields["minutes"])


def _type_fault(row: Schedule) -> str:
    if row.schedule_type not in dict(Schedule.TYPE):
        return f"unknown schedule type {row.schedule_type!r}"
    return cron_fault(row.cron) if row.schedule_type == Schedule.CRON else ""


def _arguments_fault(row: Schedule) -> str:
    """Reads the arguments as the scheduler does, here where an error is harmless."""
    try:
        if row.args:
            ast.literal_eval(row.args)
        keywords = _keywords(row.kwargs or "{}")
        options = keywords.get("q_options", {})
        special = {"sync", "broker"} & (keywords.keys() | options.keys())
    except Exception as error:  # noqa: BLE001 - the scheduler would stop at it, whatever it is
        return f"its arguments cannot be read: {type(error).__name__}: {error}"
    if "func" in keywords or any(not isinstance(key, str) for key in keywords):
        return "its keyword arguments are not usable as names"
    if special:
        return f"the option {special.pop()} would run the task inside the scheduler"
    return ""


def _keywords(text: str) -> dict:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        try:
            words = ast.parse(f"f({text})").body[0].value.keywords
            return {word.arg: ast.literal_eval(word.value) for word in words}
        except (SyntaxError, ValueError):
            return {}


def _function_fault(path: str) -> str:
    """A function whose module raises at import kills the worker that looks for it."""
    try:
        found = pydoc.locate(path) if path else None
    except pydoc.ErrorDuringImport as error:
        return f"function {path} cannot be imported: {error}"
    return "" if callable(found) else f"there is no function {path!r}"
