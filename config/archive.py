"""The archive: partitions past retention become Parquet files, and are dropped only then.

The steps for one partition, each of which may be the last before a kill; the next run completes:

1. its rows are written under a temporary key, out of one snapshot of the database;
2. the file gets its final key, which names the fingerprint of its rows;
3. the file is read back from the store: size, SHA-256, and every row, loaded by PostgreSQL into a
   temporary table in small batches, must give the fingerprint again;
4. its manifest is written, and a row in `archived_partitions`;
5. the partition is detached; under a lock its fingerprint is taken again, and it is dropped only
   where the archive holds that one. Late rows change it: then it is attached again, and
   archived anew by the same run. What the new file holds, the older one is removed for.
"""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from django.db import Error, connection, transaction
from django.utils import timezone
from psycopg import sql

from config import archived, parquet, partitions, tally
from config.archived import Manifest, NotArchived
from config.logs import first_line
from config.models import ArchivedPartition
from config.parquet import Column
from config.partitions import Partition, PartitionedTable
from config.sqlfiles import queries
from config.stores import Store, StoreError, get

logger = logging.getLogger("spyglass.archive")

ATTEMPTS = 2  # the second for a partition that got rows while it was archived
HOLD_DAYS = 30
_STAGING = "_archive_rows"


class ArchiveError(Exception):
    """A step failed; nothing was dropped. The message says which partition and why."""


class Result(NamedTuple):
    """What a run did: partitions and rows archived and dropped, and why others were not."""

    partitions: int
    rows: int
    failures: list[str]
    complete: bool


def run(
    *,
    budget: timedelta | None = None,
    progress: Callable[[int, int, str], None] = lambda done, due, name: None,
) -> Result:
    """Archive and drop what is due. One at a time: call it under the lease of the job `archive`.

    After `budget` no partition is begun. One that fails does not stop the others. Raises
    StoreError where the archive is not there at all.
    """
    store = get()
    store.check()
    store.sweep()
    deadline = time.monotonic() + budget.total_seconds() if budget else None
    done, rows, failures = 0, 0, []
    for table in archivable():
        partitions.drop_leftovers(table)
    due = [(table, part) for table in archivable() for part in partitions.expired(table)]
    for position, (table, part) in enumerate(due):
        if deadline and time.monotonic() > deadline:
            return Result(done, rows, failures, complete=False)
        progress(position, len(due), part.name)
        try:
            manifest = archive_and_drop(store, partitions.get(table), part)
        except (StoreError, ArchiveError, NotArchived, Error, *parquet.faults()) as error:
            reason = f"{part.name}: {first_line(error)}"
            logger.warning("Not archived: %s", reason)
            tally.add("archive_failures_total", table=table)
            failures.append(reason)
            continue
        done, rows = done + 1, rows + manifest.rows
    progress(len(due), len(due), "")
    return Result(done, rows, failures, complete=True)


def archivable() -> list[str]:
    """The tables whose partitions must be archived before they go."""
    return [name for name, table in partitions.all().items() if archived.is_archivable(table)]


def archive_and_drop(store: Store, declared: PartitionedTable, part: Partition) -> Manifest:
    """Bring one partition into the archive, verify that, and drop it. Must run outside a
    transaction."""
    for attempt in range(1, ATTEMPTS + 1):
        manifest = write(store, declared, part)
        try:
            partitions.drop(declared.name, part)
        except NotArchived:
            if attempt == ATTEMPTS:
                raise
            continue
        break
    tally.add("archive_partitions_total", table=declared.name)
    tally.add("archive_rows_total", manifest.rows, table=declared.name)
    return manifest


def write(store: Store, declared: PartitionedTable, part: Partition) -> Manifest:
    """Bring the rows of a partition into the archive and verify them; drops nothing.

    A file that holds just these rows already is verified anew and serves.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        archived.settle_session(cursor)
        columns = archived.columns_of(cursor, part.name)
        columns = archived.with_specials(cursor, part.name, columns)
        rows, total = archived.fingerprint(cursor, part.name, columns)
        keys = archived.keys_of(declared.name, part.name, rows, total)
        manifest = archived.first(store, keys)
        key = manifest.key if manifest else keys[0]
        temporary = None
        if manifest is None or store.size(key) != manifest.bytes:
            key = keys[0]
            temporary, size, sha256 = store.write(lambda file: _export(file, part.name, columns))
            manifest = Manifest(
                declared.name, part.name, declared.column, str(part.start), str(part.end),
                rows, archived.checksum(total), size, sha256,
                timezone.now().isoformat(), columns,
            )  # fmt: skip
    if temporary:
        store.publish(temporary, key)
    try:
        verify(store, manifest)
    except ArchiveError:
        # The next run must not find it and take it for good.
        archived.forget(store, key)
        raise
    _record(store, manifest)
    return manifest


def _export(file, table: str, columns: list[Column]) -> None:
    """Write a table's rows through a server-side cursor, in the caller's transaction."""
    query = sql.SQL("SELECT {} FROM {}").format(parquet.selected(columns), sql.Identifier(table))
    with connection.connection.cursor(name="archive_export") as cursor:
        cursor.execute(query)
        parquet.write(file, columns, cursor)


def _record(store: Store, manifest: Manifest) -> None:
    """Make the file count, and remove those whose rows it holds as well: what this database wrote
    of the same partition and has not let go of since. One that holds rows which a restore left out
    stays."""
    manifest.save(store)
    known = ArchivedPartition.objects.filter(table=manifest.table, partition=manifest.partition)
    with transaction.atomic():
        known.update_or_create(
            key=manifest.key,
            defaults={
                "table": manifest.table,
                "partition": manifest.partition,
                "rows": manifest.rows,
                "bytes": manifest.bytes,
                "verified_at": timezone.now(),
                "dropped_at": None,
                "held_until": None,
            },
        )
    others = known.filter(dropped_at=None).exclude(key=manifest.key)
    others.filter(left_out__gt=0).update(dropped_at=timezone.now(), held_until=None)
    for older in others.filter(left_out=0):
        archived.forget(store, older.key)
        older.delete()


def verify(store: Store, manifest: Manifest) -> None:
    """Read a file back: size, SHA-256, and its rows by way of PostgreSQL.

    Raises ArchiveError where it is not what the manifest says.
    """
    size, sha256 = store.digest(manifest.key)
    if (size, sha256) != (manifest.bytes, manifest.sha256):
        raise ArchiveError(
            f"{manifest.key} is damaged: {size:,} bytes of {manifest.bytes:,}, "
            f"SHA-256 {sha256[:12]}… instead of {manifest.sha256[:12]}…"
        )
    with transaction.atomic(), connection.cursor() as cursor:
        _read_back(cursor, store, manifest)


def _read_back(cursor, store: Store, manifest: Manifest, into: str = "") -> int:
    """Load a file batch by batch, and have its fingerprint; also insert it `into` a table.

    Returns the rows inserted: rows whose key is there already are left out.
    """
    archived.settle_session(cursor)
    present = {column.name for column in archived.columns_of(cursor, manifest.table)}
    if missing := [one.name for one in manifest.columns if one.name not in present]:
        raise ArchiveError(f"{manifest.key}: {manifest.table} has no column {missing[0]} any more")
    staging, loaded = sql.Identifier(_STAGING), [c for c in manifest.columns if not c.generated]
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in loaded)
    cursor.execute(
        sql.SQL(
            "CREATE TEMP TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING GENERATED) ON COMMIT DROP"
        ).format(staging, sql.Identifier(manifest.table))
    )
    copy = sql.SQL("COPY {} ({}) FROM STDIN").format(staging, names)
    move = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT DO NOTHING").format(
        sql.Identifier(into), names, names, staging
    )
    rows, total, inserted = 0, 0, 0
    with store.open(manifest.key) as file:
        for batch in parquet.batches(file, [column.name for column in loaded]):
            with cursor.copy(copy) as out:
                for row in parquet.rows(batch):
                    out.write_row(row)
            found, part = archived.fingerprint(cursor, _STAGING, manifest.columns)
            rows, total = rows + found, total + part
            if into:
                cursor.execute(move)
                inserted += cursor.rowcount
            cursor.execute(sql.SQL("TRUNCATE {}").format(staging))
    cursor.execute(sql.SQL("DROP TABLE {}").format(staging))
    if (rows, archived.checksum(total)) != (manifest.rows, manifest.checksum):
        raise ArchiveError(
            f"{manifest.key} does not give back its rows: {rows:,} of {manifest.rows:,}, "
            f"checksum {archived.checksum(total)} instead of {manifest.checksum}"
        )
    return inserted


class Restored(NamedTuple):
    """A partition that came back, its rows, and until when it stays. `left_out`: rows that do not
    fit any more, and that the archive alone holds."""

    name: str
    rows: int
    held_until: datetime
    left_out: int


def restore(table: str, name: str, *, days: int = HOLD_DAYS) -> Restored:
    """Bring a partition back, attached, for `days`; the archive keeps its file.

    All in one transaction. Raises ArchiveError where it is attached, unknown or does not fit,
    UnknownTable, StoreError.
    """
    declared, store = partitions.get(table), get()
    part = partitions.parse(declared, name)
    # The oldest first: of rows with the same key that one counts, as it did when they came.
    found = sorted(archived.manifests(store, table, name), key=lambda one: one.verified_at)
    if part is None or part.name != name or not found:
        raise ArchiveError(f"the archive has no partition {name} of {table}: see archive list")
    partitions.drop_leftovers(table)
    until = timezone.now() + timedelta(days=days)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            rows, left_out, without = _bring_back(cursor, store, declared, part, found)
            for manifest in found:
                ArchivedPartition.objects.update_or_create(
                    key=manifest.key,
                    defaults={
                        "table": table, "partition": name, "rows": manifest.rows,
                        "bytes": manifest.bytes, "verified_at": timezone.now(),
                        "dropped_at": None, "held_until": until,
                        "left_out": left_out, "left_out_checksum": archived.checksum(without),
                    },
                )  # fmt: skip
    except Error as error:
        raise ArchiveError(f"{name} does not fit {table} any more: {error}") from error
    return Restored(name, rows, until, left_out)


def _bring_back(
    cursor, store, declared, part: Partition, found: list[Manifest]
) -> tuple[int, int, int]:
    """(rows that are back, rows left out, the sum of their hashes)."""
    partitions.lock(cursor, declared)
    if part.name in {one.name for one in partitions.existing(declared.name)}:
        raise ArchiveError(
            f"{part.name} is attached already: archive it first, or wait until it is"
        )
    partitions.create_table(cursor, declared, part)
    _add_keys(cursor, declared.name, part.name)
    for manifest in found:
        _read_back(cursor, store, manifest, into=part.name)
    columns = found[0].columns
    came = rows, total = archived.fingerprint(cursor, part.name, columns)
    if len(found) == 1 and (rows, archived.checksum(total)) != (found[0].rows, found[0].checksum):
        raise ArchiveError(f"{part.name} came back with other rows than were archived")
    if _leave_out(cursor, declared, part.name):
        rows, total = archived.fingerprint(cursor, part.name, columns)
    partitions.attach(cursor, declared, part)
    if declared.after_restore:
        declared.after_restore(cursor, part.name)
    return rows, came[0] - rows, came[1] - total


def _leave_out(cursor, declared: PartitionedTable, name: str) -> int:
    """Remove from a table that is to be a partition what does not fit its parent any more: what
    would have gone with a row it refers to, had it been there, and what the domain says.

    Returns the rows removed. What they refer to cannot go before the transaction ends.
    """
    cursor.execute(queries("config")["cascading_keys"], {"table": declared.name})
    keys = cursor.fetchall()
    for referenced, _, _ in keys:
        lock = sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE")  # as attaching does
        cursor.execute(lock.format(sql.Identifier(referenced)))
    removed = 0
    for referenced, columns, targets in keys:
        statement = "DELETE FROM {name} AS t WHERE num_nulls({mine}) = 0 AND NOT EXISTS"
        statement += " (SELECT FROM {referenced} AS r WHERE ({mine}) = ({theirs}))"
        cursor.execute(
            sql.SQL(statement).format(
                name=sql.Identifier(name),
                referenced=sql.Identifier(referenced),
                mine=sql.SQL(", ").join(sql.Identifier("t", column) for column in columns),
                theirs=sql.SQL(", ").join(sql.Identifier("r", column) for column in targets),
            )
        )
        removed += cursor.rowcount
    return removed + (declared.leave_out(cursor, name) if declared.leave_out else 0)


def _add_keys(cursor, table: str, name: str) -> None:
    """Give a table that is to be a partition the unique indexes of its parent, so that what comes
    twice is left out as it comes; attaching takes them over."""
    cursor.execute(queries("config")["unique_keys"], {"table": table})
    for is_primary, names in cursor.fetchall():
        statement = "ALTER TABLE {} ADD PRIMARY KEY ({})" if is_primary else (
            "CREATE UNIQUE INDEX ON {} ({})"
        )  # fmt: skip
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        cursor.execute(sql.SQL(statement).format(sql.Identifier(name), columns))


def query(
    table: str,
    *,
    since: datetime,
    until: datetime,
    columns: list[str] | None = None,
    where: list[tuple[str, str, str]] = (),
) -> tuple[list[Column], Iterator[list[tuple]]]:
    """(columns, batches of rows) of what the archive holds from `since` to before `until`.

    `where`: (column, operator, value) that must all hold; the operators are those of _COMPARE.
    Reads a row group at a time, in no order across batches. Raises ArchiveError, StoreError.
    """
    partitions.get(table)
    store = get()
    found = [
        one
        for one in archived.manifests(store, table)
        if date.fromisoformat(one.start) <= until.date()
        and date.fromisoformat(one.end) >= since.date()
    ]
    if not found:
        return [], iter(())
    known = {column.name: column for column in found[-1].columns}
    for name in [*(columns or []), *(condition[0] for condition in where)]:
        if name not in known:
            raise ArchiveError(f"{table} has no column {name!r}; known: {', '.join(known)}")
    chosen = [known[name] for name in columns or known]
    span = [
        (found[0].column, ">=", since.isoformat()),
        (found[0].column, "<", until.isoformat()),
    ]
    return chosen, _scan(store, found, [one.name for one in chosen], [*span, *where])


def _scan(store, found: list[Manifest], chosen: list[str], conditions) -> Iterator[list[tuple]]:
    import pyarrow as pa

    needed = list(dict.fromkeys([*chosen, *(name for name, _, _ in conditions)]))
    for manifest in found:
        have = [column.name for column in manifest.columns]
        with store.open(manifest.key) as file:
            for batch in parquet.batches(file, [name for name in needed if name in have]):
                for name in needed:
                    if name not in have:  # added to the table after this file was written
                        batch = batch.append_column(name, pa.nulls(len(batch)))  # noqa: PLW2901 - grows
                for name, operator, value in conditions:
                    batch = batch.filter(_matches(batch[name], name, operator, value))  # noqa: PLW2901 - shrinks
                if len(batch):
                    yield list(parquet.rows(batch.select(chosen)))


_COMPARE = {
    "=": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal",
    ">": "greater", ">=": "greater_equal",
}  # fmt: skip


def _matches(values, name: str, operator: str, text: str):
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    try:
        if pa.types.is_timestamp(kind):
            moment = datetime.fromisoformat(text)
            wanted = pa.scalar(moment if moment.tzinfo else moment.replace(tzinfo=UTC),
                               type=kind)  # fmt: skip
        elif pa.types.is_null(kind):
            wanted = pa.scalar(None, type=kind)
        else:
            wanted = pa.scalar(text).cast(kind)
    except (ValueError, pa.ArrowException) as error:
        raise ArchiveError(f"{name}: {text!r} is no {kind}") from error
    return pc.call_function(_COMPARE[operator], [values, wanted])
