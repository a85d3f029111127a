"""The registry behind `refresh`, `reconcile`, `doctor`, `/metrics` and the admin.

A domain declares its read models in `<app>/readmodels.py` with `register`. Each can be refreshed
from what changed, rebuilt from nothing, and compared with the truth.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import OperationalError, connection, transaction
from django.utils import timezone
from django.utils.module_loading import autodiscover_modules
from psycopg.errors import LockNotAvailable

from config import generations, tally
from config.models import ReadModelState
from config.sqlfiles import queries

if TYPE_CHECKING:
    from config.runs import Run

Progress = Callable[[str], None]


class UnknownReadModel(KeyError):
    """No read model or app of that name declares one."""

    def __str__(self) -> str:
        return str(self.args[0])


class Busy(Exception):
    """Somebody else works on a read model, for longer than this process waits for a lock."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did: rows of source folded or rebuilt, and whether readers can see it."""

    rows: int
    changed: bool = True


@dataclass(frozen=True)
class Reconciled:
    """What a comparison found. `samples` describes up to 20 of the `count` differences.

    `pending`: source rows that were not folded yet, and so were left out on both sides.
    """

    checked: int
    count: int
    samples: list[str] = field(default_factory=list)
    pending: int = 0
    fixed: bool = False


@dataclass(frozen=True)
class ReadModel:
    """One read model.

    `refresh(full, progress) -> Refreshed` commits by itself and may be killed at any line; what it
    changes raises the generation in the same transaction (`config_raise_generation`);
    `reconcile(fix, progress) -> Reconciled`; `backlog() -> int` counts the changes that wait;
    `max_age`: older than this it is stale. `refresh_job`: the job that refreshes it, by default
    `refresh_<app>`; those that compare and mend are `reconcile_<app>` and `mend_<app>`.
    """

    name: str
    app: str
    description: str
    refresh: Callable[[bool, Progress], Refreshed]
    reconcile: Callable[[bool, Progress], Reconciled]
    backlog: Callable[[], int]
    max_age: timedelta
    refresh_job: str = ""

    def job(self, what: str) -> str:
        """The name of the job that does it: `refresh`, `reconcile` or `mend`."""
        return self.refresh_job if what == "refresh" and self.refresh_job else f"{what}_{self.app}"


@dataclass(frozen=True)
class ModelStatus:
    """A read model's state for people: ages in seconds, None where it was never refreshed."""

    name: str
    app: str
    description: str
    generation: int
    refreshed_at: datetime | None
    age_seconds: float | None
    backlog: int
    duration_ms: float | None
    rows: int | None
    error: str
    reconciled_at: datetime | None
    differences: int | None
    max_age: timedelta
    stale: bool


_models: dict[str, ReadModel] = {}


def register(model: ReadModel) -> ReadModel:
    """Declare a read model. The order of declaration is the order of refresh."""
    _models[model.name] = model
    return model


def all() -> dict[str, ReadModel]:
    """Every declared read model by name, in the order in which they must be refreshed."""
    autodiscover_modules("readmodels")
    return dict(_models)


def select(names: Iterable[str] = ()) -> list[ReadModel]:
    """The read models of these names or app labels; all of them for none.

    Raises UnknownReadModel.
    """
    known, wanted = all(), list(names)
    for name in wanted:
        if name not in known and name not in {model.app for model in known.values()}:
            raise UnknownReadModel(f"no read model {name!r}; known: {', '.join(known)}")
    return [
        model for model in known.values() if not wanted or {model.name, model.app} & set(wanted)
    ]


@contextmanager
def patience(model: ReadModel) -> Iterator[None]:
    """Raises Busy, with what to do, where a lock in the block was not to be had in time."""
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        raise Busy(
            f"{model.name}: another refresh or reconcile is at work on it; what it began goes on,"
            " so try again when it is done"
        ) from error


def refresh(
    model: ReadModel, *, full: bool = False, progress: Progress = lambda text: None
) -> Refreshed:
    """Refresh one read model and record it; readers see the new generation at once.

    An error is recorded in the model's state and raised again.
    """
    started = time.monotonic()
    try:
        done = model.refresh(full, progress)
    except Exception as error:
        ReadModelState.objects.update_or_create(
            name=model.name, defaults={"error": f"{type(error).__name__}: {error}"}
        )
        raise
    record(model.name, done, seconds=time.monotonic() - started, full=full)
    return done


def record(name: str, done: Refreshed, *, seconds: float, full: bool = False) -> None:
    """Store that `name` was refreshed, count it, and announce its generation after commit.

    The generation itself was raised in the transaction that changed the read model (SQL function
    `config_raise_generation`): a process that dies before this loses a log line, not freshness.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            queries("config")["record_refresh"],
            {
                "name": name,
                "full": full,
                "duration_ms": seconds * 1000,
                "rows": done.rows,
            },
        )
        generation = cursor.fetchone()[0]
        tally.add("read_model_refresh_seconds_sum", seconds, model=name)
        tally.add("read_model_refresh_seconds_count", 1, model=name)
        tally.add("read_model_refresh_rows_total", done.rows, model=name)
        transaction.on_commit(lambda: generations.announce(name, generation))


def reconcile(
    model: ReadModel, *, fix: bool = False, progress: Progress = lambda text: None
) -> Reconciled:
    """Compare one read model with the truth, mend it where asked, and record the outcome."""
    started = time.monotonic()
    found = model.reconcile(fix, progress)
    ReadModelState.objects.update_or_create(
        name=model.name,
        defaults={
            "reconciled_at": timezone.now(),
            "differences": 0 if found.fixed else found.count,
        },
    )
    if found.fixed and found.count:
        record(model.name, Refreshed(found.count), seconds=time.monotonic() - started)
    return found


def states() -> list[ModelStatus]:
    """Every read model with freshness and backlog."""
    stored = {state.name: state for state in ReadModelState.objects.all()}
    now = timezone.now()
    return [_status(model, stored.get(model.name), now) for model in all().values()]


def _status(model: ReadModel, state: ReadModelState | None, now: datetime) -> ModelStatus:
    state = state or ReadModelState(name=model.name)
    age = (now - state.refreshed_at).total_seconds() if state.refreshed_at else None
    return ModelStatus(
        name=model.name,
        app=model.app,
        description=model.description,
        generation=state.generation,
        refreshed_at=state.refreshed_at,
        age_seconds=age,
        backlog=model.backlog(),
        duration_ms=state.duration_ms,
        rows=state.rows,
        error=state.error,
        reconciled_at=state.reconciled_at,
        differences=state.differences,
        max_age=model.max_age,
        stale=age is None or age > model.max_age.total_seconds(),
    )


def refresh_app(app: str, run: "Run") -> int:
    """What an app's refresh job does: all its read models; the rows taken in."""
    rows = 0
    for model in select([app]):
        run.check()
        done = refresh(model, progress=lambda text: run.progress(at=text))
        run.detail[model.name] = done.rows
        rows += done.rows
    return rows


def reconcile_app(app: str, run: "Run", *, fix: bool = False) -> int:
    """What an app's jobs `reconcile_…` and `mend_…` do; the differences found, and mended."""
    differences = 0
    for model in select([app]):
        run.check()
        found = reconcile(model, fix=fix)
        word = "mended" if fix else "differences"
        run.detail[model.name] = {word: found.count, "samples": found.samples}
        differences += found.count
    return differences
