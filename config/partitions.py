"""Range partitions by month or day: made ahead, dropped whole.

A domain declares its partitioned tables in `<app>/partitions.py` with `register`. Creation ahead
(`ensure_ahead`) and dropping (`drop_expired`, called by `config.retention`) are separate, so that
a failing drop never stops creation. There is never a DEFAULT partition: it would block
DETACH … CONCURRENTLY.

A partition is made beside its table and attached, and detached CONCURRENTLY before it is dropped:
neither blocks reads or writes of the other partitions.

With ARCHIVE_URL set, a partition of a table that declares `archive` is dropped only after
`config.archived` has found exactly its rows in the archive; else it is attached again.
"""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from django.utils.module_loading import autodiscover_modules
from psycopg import sql

from config import archived
from config.archived import NotArchived
from config.sqlfiles import Statements, queries

_sql = Statements("config")

logger = logging.getLogger("spyglass.partitions")


class UnknownTable(KeyError):
    """No such partitioned table is declared."""


@dataclass(frozen=True)
class PartitionedTable:
    """A table partitioned by range on one timestamptz column, in UTC months or days.

    `ahead`: how many periods after the current one must exist. `keep`: returns how many whole
    periods before the current one are kept, or 0 for all. `before_drop(cursor, name)` runs in the
    transaction that drops the detached table `name`: what depended on its rows is settled there.
    `after_restore(cursor, name)` is the same for a partition that came back from the archive.
    `leave_out(cursor, name)` deletes, before that is attached, the rows that the table cannot hold
    any more, and returns how many; the archive goes on holding them.
    `archive`: whether its partitions go to the archive, where there is one, before they go.
    """

    name: str
    column: str
    unit: str = "month"  # or "day"
    ahead: int = 3
    keep: Callable[[], int] = lambda: 0
    before_drop: Callable[[object, str], None] | None = None
    after_restore: Callable[[object, str], None] | None = None
    leave_out: Callable[[object, str], int] | None = None
    archive: bool = False


@dataclass(frozen=True)
class Partition:
    """One partition: `start` inclusive, `end` exclusive, both UTC dates."""

    name: str
    start: date
    end: date


_tables: dict[str, PartitionedTable] = {}
_SUFFIX = re.compile(r"_y(\d{4})m(\d{2})(?:d(\d{2}))?$")


def register(table: PartitionedTable) -> PartitionedTable:
    """Declare a partitioned table. Called at import of an app's `partitions.py`."""
    _tables[table.name] = table
    return table


def all() -> dict[str, PartitionedTable]:
    """Every declared table by name."""
    autodiscover_modules("partitions")
    return dict(sorted(_tables.items()))


def get(name: str) -> PartitionedTable:
    """The declaration of `name`; raises UnknownTable."""
    try:
        return all()[name]
    except KeyError:
        raise UnknownTable(f"no partitioned table {name!r}; known: {', '.join(all())}") from None


def ensure(table: str, start: date | datetime, end: date | datetime) -> list[str]:
    """Make the partitions that hold `start` to `end`, both inclusive. Returns the names made.

    Call it before the transaction that inserts: the new partition is committed at once. Costs
    one look-up where they exist. Finishes a drop that died half way where it is in the way.
    """
    declared = get(table)
    wanted = {p.name: p for p in _covering(declared, _utc_date(start), _utc_date(end))}
    missing = _missing(declared, list(wanted))
    if missing:
        drop_leftovers(table)
    return [name for name in missing if _create(declared, wanted[name])]


def ensure_ahead(table: str | None = None) -> list[str]:
    """Make the current period's partition and the declared number after it, for every table."""
    made = []
    today = timezone.now().date()
    for declared in all().values():
        if table in (None, declared.name):
            last = today
            for _ in range(declared.ahead):
                last = _period(declared, last).end
            made += ensure(declared.name, today, last)
    return made


def existing(table: str) -> list[Partition]:
    """The attached partitions of `table`, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["existing_partitions"], {"table": table})
        names = [name for (name,) in cursor.fetchall()]
    found = [parse(get(table), name) for name in names]
    return [part for part in found if part]


def estranged(table: str) -> list[tuple[str, str, str]]:
    """Partitions that belong to another role than `table`: (name, its owner, the table's owner).

    The table's owner, unless a superuser, can neither migrate nor back up a table with one.
    """
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["estranged_partitions"], {"table": table})
        return cursor.fetchall()


def missing_ahead(table: str) -> int:
    """How many of the declared periods from now on have no partition yet."""
    declared = get(table)
    today = timezone.now().date()
    have = {part.name for part in existing(table)}
    part, missing = _period(declared, today), 0
    for _ in range(declared.ahead + 1):
        missing += part.name not in have
        part = _period(declared, part.end)
    return missing


def expired(table: str) -> list[Partition]:
    """The attached partitions that retention no longer keeps, oldest first.

    None that was restored from the archive and is to stay a while.
    """
    declared = get(table)
    keep = declared.keep()
    if not keep:
        return []
    first = _period(declared, timezone.now().date()).start
    for _ in range(keep):
        first = _period(declared, first - timedelta(days=1)).start
    found = [part for part in existing(table) if part.end <= first]
    held = archived.held(table) if found else {}
    return [part for part in found if part.name not in held]


def drop(table: str, part: Partition) -> None:
    """Detach `part` without blocking, settle what depended on it, and drop it.

    Killed between the two steps, the detached table is found and dropped by `drop_leftovers`.
    Must run outside a transaction. Raises NotArchived, with the partition attached as it was,
    where it must be in the archive first and is not, or not as it is now.
    """
    declared = get(table)
    archived.require_recorded(declared, part.name)
    _detach(declared, part.name, "CONCURRENTLY")
    try:
        _drop_detached(declared, part.name)
    except NotArchived:
        _attach_again(declared, part.name)
        raise


def drop_leftovers(table: str) -> list[str]:
    """Finish drops that died half way. Returns the names dropped.

    What must be in the archive and is not is attached again, and so is due again.
    """
    declared = get(table)
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["half_detached_partitions"], {"table": table})
        for (name,) in cursor.fetchall():
            _detach(declared, name, "FINALIZE")
    return [name for name in _detached(declared) if _drop_or_attach(declared, name)]


def _missing(declared: PartitionedTable, names: list[str]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            queries("config")["missing_partitions"], {"table": declared.name, "names": names}
        )
        return [name for (name,) in cursor.fetchall()]


def _detached(declared: PartitionedTable) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["detached_partitions"], {"table": declared.name})
        return [name for (name,) in cursor.fetchall() if _SUFFIX.search(name)]


def _detach(declared: PartitionedTable, name: str, how: str) -> None:
    """`how`: CONCURRENTLY, or FINALIZE for what that left behind. Two at once are no error."""
    statement = sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(
        sql.Identifier(declared.name), sql.Identifier(name), sql.SQL(how)
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except DatabaseError:
        with connection.cursor() as cursor:
            cursor.execute(queries("config")["half_detached_partitions"], {"table": declared.name})
            halves = [half for (half,) in cursor.fetchall()]
        if name in halves or not _missing(declared, [name]):
            raise


def _drop_or_attach(declared: PartitionedTable, name: str) -> bool:
    """Whether it was dropped by this call."""
    try:
        return _drop_detached(declared, name)
    except NotArchived as reason:
        logger.warning("%s; it is attached again", reason)
        _attach_again(declared, name)
        return False


def _attach_again(declared: PartitionedTable, name: str) -> None:
    """Put a detached table back; nothing where somebody else did, or dropped it."""
    with transaction.atomic(), connection.cursor() as cursor:
        lock(cursor, declared)
        if name in _detached(declared):
            attach(cursor, declared, parse(declared, name))


def _drop_detached(declared: PartitionedTable, name: str) -> bool:
    """Settle and drop a detached table; False where somebody else has."""
    with transaction.atomic(), connection.cursor() as cursor:
        lock(cursor, declared)
        if name not in _detached(declared):
            return False
        archived.require_verified(cursor, declared, name)
        if declared.before_drop:
            declared.before_drop(cursor, name)
        cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    return True


def _create(declared: PartitionedTable, part: Partition) -> bool:
    """Make and attach one partition; False where it stands already."""
    with transaction.atomic(), connection.cursor() as cursor:
        lock(cursor, declared)
        if not _missing(declared, [part.name]):
            return False
        create_table(cursor, declared, part)
        attach(cursor, declared, part)
    return True


def create_table(cursor, declared: PartitionedTable, part: Partition) -> None:
    """Make the table of a partition beside the others. Under `lock`.

    It belongs to whom the parent belongs to, where the role at work may become that one: else the
    owner, unless a superuser, could neither alter the parent any more nor back the partition up.
    """
    cursor.execute(
        sql.SQL(
            "CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)"
        ).format(sql.Identifier(part.name), sql.Identifier(declared.name))
    )
    cursor.execute(
        "SELECT rolname FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner"
        " WHERE pg_class.oid = %s::regclass AND rolname <> current_user"
        " AND pg_has_role(relowner, 'SET')",
        [declared.name],
    )
    for (owner,) in cursor.fetchall():
        cursor.execute(
            sql.SQL("ALTER TABLE {} OWNER TO {}").format(
                sql.Identifier(part.name), sql.Identifier(owner)
            )
        )


def attach(cursor, declared: PartitionedTable, part: Partition) -> None:
    """Make the table `part.name` a partition. Under `lock`."""
    cursor.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(declared.name),
            sql.Identifier(part.name),
            sql.Literal(f"{part.start} 00:00+00"),
            sql.Literal(f"{part.end} 00:00+00"),
        )
    )


def lock(cursor, declared: PartitionedTable) -> None:
    """One at a time makes or drops this table's partitions, to the end of the transaction."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [declared.name])


def _covering(declared: PartitionedTable, start: date, end: date) -> Iterator[Partition]:
    part = _period(declared, start)
    while part.start <= end:
        yield part
        part = _period(declared, part.end)


def _period(declared: PartitionedTable, day: date) -> Partition:
    if declared.unit == "day":
        return Partition(
            f"{declared.name}_y{day:%Y}m{day:%m}d{day:%d}", day, day + timedelta(days=1)
        )
    start = day.replace(day=1)
    end = (start + timedelta(days=32)).replace(day=1)
    return Partition(f"{declared.name}_y{day:%Y}m{day:%m}", start, end)


def parse(declared: PartitionedTable, name: str) -> Partition | None:
    """The partition that a name says; None where it says none."""
    match = _SUFFIX.search(name)
    if not match:
        return None
    year, month, day = match.groups()
    return _period(declared, date(int(year), int(month), int(day or 1)))


def _utc_date(moment: date | datetime) -> date:
    return moment.astimezone(UTC).date() if isinstance(moment, datetime) else moment


def estimated_rows(table: str) -> int:
    """How many rows PostgreSQL thinks a table (partitions included) or view has."""
    return _sql.value("estimated_rows", table=table)
