"""Writes of the catalog: snapshots in, from a file or from a request.

Both ways end in `_record`: the rows go by COPY into a temporary table and from there, in the
order of the natural key, into product_price_snapshots. What stands already is compared: the same
price is a duplicate, another price a conflict, and the first stays. A file whose rows are new goes
straight in by COPY, until a row turns out to stand already.
"""

import contextlib
import logging
import os
import reprlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple, TypeVar

import orjson
import psycopg
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from catalog.models import IngestReject, IngestRun
from catalog.readers import FieldMap, Source
from catalog.rows import Row, Seen, Validator
from config import importing, leases, partitions, tally
from config.files import Refused, Rejection, RejectsFile, ahead, default_rejects_path
from config.importing import Counts, Progress, chunks, transact
from config.sqlfiles import queries
from config.text import storable

logger = logging.getLogger("spyglass.catalog")
T = TypeVar("T")

SNAPSHOTS_AT_ONCE = 5_000
CHUNK_ROWS = 25_000
CHUNK_CHARACTERS = 8_000_000
KEPT_REJECTS = 1_000  # of each run, and as many conflicts: for the admin; the file has them all
KEPT_RAW = 1_000
_FILE_RAW = 10_000
ERROR_LENGTH = 10_000
_PRESUMED_DEAD = timedelta(days=1)


class Outcome(NamedTuple):
    """What became of one row: accepted, duplicate, conflict or rejected.

    A conflict has another price than the row of the same key that stands, and stays out. `reason`
    is a key of `catalog.rows.REASONS` where the row was rejected.
    """

    outcome: str
    reason: str = ""
    field: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Report(importing.Report):
    """What an ingest did. `run_id` is None after a dry run."""

    run_id: int | None


def record_snapshots(
    *,
    rows: Sequence[Mapping],
    source: str,
    user_label: str = "",
    finish: Callable[[list[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Record up to 5,000 observations; one outcome a row, in order. All or nothing on an error.

    `rows`: objects with the fields of `catalog.rows` as keys. `source`: who sent them, for the
    ingest run. `finish` is called with the outcomes in the transaction of the rows, say to store
    an answer with them, and again where that is repeated after a lost deadlock. In a transaction
    of the caller's, call it last, for it ends by locking the counters of `/metrics`. Raises
    ValueError for too many rows.
    """
    if len(rows) > SNAPSHOTS_AT_ONCE:
        raise ValueError(f"{len(rows):,} rows: at most {SNAPSHOTS_AT_ONCE:,} at once")
    if not rows:
        return []
    chunk = _checked(rows)

    def record() -> list[Outcome]:
        run = IngestRun.objects.create(
            source=source,
            state=IngestRun.State.FINISHED,
            host=socket.gethostname(),
            user_label=user_label,
        )
        recorded = _record(chunk, run.pk)
        outcomes = _outcomes(chunk, recorded)
        finish(outcomes)
        refused = _kept(_refused(chunk, recorded), Counts())
        _account(run.pk, run.state, Counts(), _counts(chunk, recorded), refused)
        return outcomes

    return _transact(chunk, record)


def ingest_file(
    *,
    path: str,
    file_format: str = "",
    field_map: FieldMap | None = None,
    rejects_path: str = "",
    dry_run: bool = False,
    user_label: str = "",
    progress: Progress | None = None,
) -> Report:
    """Ingest one file (`-`: standard input), 25,000 rows a transaction, in constant memory.

    Killed anywhere, it has committed whole chunks together with their counters; ingesting the
    file again finds those rows as duplicates and adds the rest. `rejects_path`: a CSV file, made
    where a row is refused (default: `<name>.rejects.csv` here). `progress` is called after each
    chunk. Raises SourceError where the file cannot be opened (nothing was written) or breaks off
    (the rows before that are in), RejectsError where the rejects file stops taking rows (the same).
    """
    started = time.monotonic()
    with Source(path, file_format=file_format, field_map=field_map) as source:
        rejects = RejectsFile(rejects_path or default_rejects_path(path), path)
        run = None if dry_run else _start_run(source.name, user_label)
        counts = Counts()
        recorded = _Recorded(accepted=0, refused={})
        validator, escaped = Validator(), Seen(_escaped)
        checked = chunks(source, validator.check, lambda: _Chunk(escaped))
        with _ending(run, source), rejects, ahead(checked) as ready:
            for chunk in ready:
                if run:
                    recorded = _commit(chunk, run, counts, straight=not recorded.refused)
                else:
                    recorded = _Recorded(accepted=len(chunk.lines), refused={})
                counts += _counts(chunk, recorded)
                rejects.write(_refused(chunk, recorded))
                if run and rejects.path and not run.rejects_path:
                    run.rejects_path = rejects.path
                    run.save(update_fields=["rejects_path"])
                if progress:
                    progress(chunk.position, source.size, counts)
    seconds = time.monotonic() - started
    return Report(source.name, counts, seconds, rejects.path, run.pk if run else None)


def mark_dead_runs() -> int:
    """Mark the ingest runs whose process is gone as interrupted; how many there were."""
    running = IngestRun.objects.filter(state=IngestRun.State.RUNNING)
    dead = [run.pk for run in running if is_dead(run)]
    return running.filter(pk__in=dead).update(state=IngestRun.State.INTERRUPTED, finished_at=Now())


def is_dead(run: IngestRun) -> bool:
    """Whether the process of a running ingest is gone.

    A process of another host is presumed dead after a day; if it lives, its next chunk says so.
    """
    return leases.is_dead(run.owner, run.pid) or run.started_at < timezone.now() - _PRESUMED_DEAD


class _Recorded(NamedTuple):
    """How many staged rows went in, and what became of the others, by position in the chunk."""

    accepted: int
    refused: dict[int, Outcome]


class _Chunk:
    """Valid rows as COPY text with their lines, and the rejected ones. Bounded in memory.

    `position`: how many bytes of the source were read when the chunk was full.
    """

    def __init__(self, escaped: Seen):
        self.lines: list[int] = []
        self.raw: list[str] = []
        self.rejected: list[Refused] = []
        self.times: set[datetime] = set()
        self.position = 0
        self._characters = 0
        self._copy: list[str] = []
        self._keys: list[tuple] = []
        self._escaped = escaped

    def add(self, line: int, raw: str, checked: Row | Rejection) -> None:
        self._characters += len(raw)
        if isinstance(checked, Rejection):
            self.rejected.append(Refused(line, *checked, raw[:_FILE_RAW]))
            return
        self._copy.append(_copy_line(checked, self._escaped))
        self._keys.append(
            (checked.slug, checked.seller, checked.scraped_at, checked.code, checked.currency)
        )
        self.lines.append(line)
        self.raw.append(raw[:_FILE_RAW])
        self.times.add(checked.scraped_at)

    def staged(self) -> bytes:
        """The rows for `fill_stage`."""
        return "".join(f"{at}\t{line}\n" for at, line in enumerate(self._copy)).encode()

    def straight(self, run_id: int) -> bytes:
        """The rows for `record_straight`, in the order in which `record_stage` would write them."""
        order = sorted(range(len(self._keys)), key=self._keys.__getitem__)
        return "".join(f"{self._copy[at]}\t{run_id}\n" for at in order).encode()

    def months(self) -> list[date]:
        return sorted({moment.date().replace(day=1) for moment in self.times})

    @property
    def full(self) -> bool:
        rows = len(self.lines) + len(self.rejected)
        return rows >= CHUNK_ROWS or self._characters >= CHUNK_CHARACTERS


def _checked(rows: Iterable[Mapping]) -> _Chunk:
    validator, chunk = Validator(), _Chunk(Seen(_escaped))
    for line, row in enumerate(rows, 1):
        if isinstance(row, Mapping):
            checked = validator.check_mapping(row)
        else:
            checked = Rejection("wrong_type", "", f"{type(row).__name__}, not an object")
        raw = "" if isinstance(checked, Row) else _shown_json(row)
        chunk.add(line, raw, checked)
    return chunk


def _shown_json(value) -> str:
    """`value` as JSON where it can be, for people to look at; at most 1,000 characters."""
    try:
        return orjson.dumps(value, default=str).decode()[:KEPT_RAW]
    except TypeError:  # nested too deeply, even for repr
        return reprlib.repr(value)[:KEPT_RAW]


def _start_run(source: str, user_label: str) -> IngestRun:
    mark_dead_runs()
    return IngestRun.objects.create(
        source=source,
        host=socket.gethostname(),
        pid=os.getpid(),
        owner=leases.new_owner(),
        user_label=user_label,
    )


@contextlib.contextmanager
def _ending(run: IngestRun | None, source: Source) -> Iterator[None]:
    """Write how the run ended. Where even that fails, the next run marks it as interrupted."""
    state, error = IngestRun.State.FINISHED, ""
    try:
        yield
    except KeyboardInterrupt:
        state = IngestRun.State.INTERRUPTED
        raise
    except BaseException as failure:
        state, error = IngestRun.State.FAILED, f"{type(failure).__name__}: {failure}"
        raise
    finally:
        if run:
            _end_run(run, state, error, source.digest)


def _end_run(run: IngestRun, state: str, error: str, digest: str) -> None:
    finished = state == IngestRun.State.FINISHED
    try:
        IngestRun.objects.filter(pk=run.pk).update(
            state=state,
            finished_at=Now(),
            error=storable(error, ERROR_LENGTH),
            source_hash=digest if finished else "",
        )
    except (OperationalError, psycopg.Error):
        if finished:
            raise
        logger.exception("ingest run %s ended as %s, which could not be stored", run.pk, state)


def _commit(chunk: _Chunk, run: IngestRun, before: Counts, *, straight: bool) -> _Recorded:
    """One chunk in one transaction with its counters. `straight`: its rows are likely all new."""
    expected_new = [straight]  # once: what comes again after an error has met somebody

    def record() -> _Recorded:
        recorded = None
        if expected_new and expected_new.pop():
            recorded = _record_straight(chunk, run.pk)
        recorded = recorded or _record(chunk, run.pk)
        refused = _kept(_refused(chunk, recorded), before)
        _account(run.pk, run.state, before, _counts(chunk, recorded), refused)
        return recorded

    return _transact(chunk, record)


def _transact(chunk: _Chunk, record: Callable[[], T]) -> T:
    """`record()` in a transaction, the chunk's months being there."""
    return transact(record, before=lambda: _ensure_partitions(chunk), passes=_is_dropped_month)


def _is_dropped_month(error: BaseException | None) -> bool:
    """Whether it says "no partition of relation …": retention dropped a month in the meantime."""
    return isinstance(error, psycopg.errors.CheckViolation) and not error.diag.constraint_name


def _ensure_partitions(chunk: _Chunk) -> None:
    # Month by month: from the first to the last would make every empty month between them.
    for month in chunk.months():
        partitions.ensure(table="product_price_snapshots", start=month, end=month)


def _record_straight(chunk: _Chunk, run_id: int) -> _Recorded | None:
    """Put in rows of which none stands yet; None, and nothing done, where one does.

    COPY writes a third faster than INSERT … ON CONFLICT, but ends at the first row that stands.
    """
    if not chunk.lines:
        return None
    try:
        with (
            transaction.atomic(),
            connection.cursor() as cursor,
            connection.wrap_database_errors,  # Django does so for statements, not for a COPY
            cursor.copy(queries("catalog")["record_straight"]) as copy,
        ):
            copy.write(chunk.straight(run_id))
    except IntegrityError as error:
        if isinstance(error.__cause__, psycopg.errors.UniqueViolation):
            return None
        raise
    return _Recorded(accepted=len(chunk.lines), refused={})


def _record(chunk: _Chunk, run_id: int) -> _Recorded:
    """Stage the chunk's rows and put in those whose key is new. Needs a transaction."""
    if not chunk.lines:
        return _Recorded(accepted=0, refused={})
    sql = queries("catalog")
    with connection.cursor() as cursor:
        cursor.execute(sql["create_stage"])
        cursor.execute(sql["empty_stage"])
        with cursor.copy(sql["fill_stage"]) as copy:
            copy.write(chunk.staged())
        cursor.execute(sql["record_stage"], {"run": run_id})
        left = [at for (at,) in cursor.fetchall()]
        standing = []
        if left:
            cursor.execute(sql["compare_stage"], {"positions": left})
            standing = cursor.fetchall()
    # A row that stood and was pruned before it could be compared was a duplicate.
    refused = dict.fromkeys(left, Outcome("duplicate"))
    refused.update((at, _compared(new, kept)) for at, new, kept in standing)
    return _Recorded(accepted=len(chunk.lines) - len(left), refused=refused)


def _compared(new, kept) -> Outcome:
    if new == kept:
        return Outcome("duplicate")
    detail = f"{_shown(kept)} stands, this row says {_shown(new)}"
    return Outcome("conflict", "conflict", "price", detail)


def _shown(price) -> str:
    return "no price" if price is None else f"{price.normalize():f}"


def _counts(chunk: _Chunk, recorded: _Recorded) -> Counts:
    by_outcome = Counter(outcome.outcome for outcome in recorded.refused.values())
    return Counts(
        rows_read=len(chunk.lines) + len(chunk.rejected),
        accepted=recorded.accepted,
        duplicate=by_outcome["duplicate"],
        conflicts=by_outcome["conflict"],
        rejected=len(chunk.rejected),
        reasons=Counter(refused.reason for refused in chunk.rejected),
    )


def _refused(chunk: _Chunk, recorded: _Recorded) -> list[Refused]:
    """The rejected and conflicting lines of a chunk, in the order of the file."""
    conflicts = [
        Refused(chunk.lines[at], *outcome[1:], chunk.raw[at])
        for at, outcome in recorded.refused.items()
        if outcome.outcome == "conflict"
    ]
    return sorted(chunk.rejected + conflicts, key=lambda refused: refused.line)


def _outcomes(chunk: _Chunk, recorded: _Recorded) -> list[Outcome]:
    outcomes = {
        line: recorded.refused.get(at, Outcome("accepted")) for at, line in enumerate(chunk.lines)
    }
    for line, reason, name, detail, _ in chunk.rejected:
        outcomes[line] = Outcome("rejected", reason, name, detail)
    return [outcomes[line] for line in sorted(outcomes)]


def _kept(refused: list[Refused], before: Counts) -> list[Refused]:
    """Those that the admin gets to see: the first 1,000 rejects and conflicts of a run."""
    conflicts = [each for each in refused if each.reason == "conflict"]
    rejects = [each for each in refused if each.reason != "conflict"]
    return (
        rejects[: max(0, KEPT_REJECTS - before.rejected)]
        + conflicts[: max(0, KEPT_REJECTS - before.conflicts)]
    )


def _account(
    run_id: int, state: str, before: Counts, added: Counts, refused: list[Refused]
) -> None:
    """Counters, and the refused rows for the admin, in the transaction of the rows.

    Ends with the tallies, in one order: their rows stay locked until the transaction ends.
    """
    IngestReject.objects.bulk_create(
        IngestReject(
            run_id=run_id,
            line=each.line,
            reason=each.reason,
            field=storable(each.field),
            detail=storable(each.detail),
            raw=storable(each.raw, KEPT_RAW),
        )
        for each in refused
    )
    # Absolute, as nobody else writes them; a run that was presumed dead is seen to live.
    IngestRun.objects.filter(pk=run_id).update(
        state=state,
        finished_at=None if state == IngestRun.State.RUNNING else Now(),
        **_columns(before + added),
    )
    by_outcome = {
        "accepted": added.accepted,
        "conflict": added.conflicts,
        "duplicate": added.duplicate,
        "rejected": added.rejected,
    }
    for outcome, rows in by_outcome.items():
        tally.add("ingest_rows_total", rows, outcome=outcome)


def _columns(counts: Counts) -> dict:
    """The counters as columns of IngestRun, which skips no row."""
    named = vars(counts) | {"reasons": dict(counts.reasons.most_common())}
    del named["skipped"]
    return named


def _copy_line(row: Row, escaped: Mapping[str, str]) -> str:
    """One row in COPY's text format, in the order of `fill_stage` after the position."""
    name, slug, code, seller, price, currency, moment, available, preorder, tags, url, text = row
    amount = "\\N" if price is None else str(price)
    return (
        f"{moment}\t{escaped[seller]}\t{escaped[code]}\t{slug}\t{escaped[name]}\t"
        f"{amount}\t{currency}\t{available}\t{preorder}\t"
        f"{_array(tags) if tags else '{}'}\t{url and escaped[url]}\t{text and escaped[text]}"
    )


def _array(tags: tuple[str, ...]) -> str:
    return '{"' + '","'.join(tags) + '"}'  # slugs: nothing in them needs escaping


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("\t", "\\t")
    return text.replace("\n", "\\n").replace("\r", "\\r")
