"""What the archive holds, and the proof that is asked for before a partition is dropped.

Two records, each of what it alone can know. The *manifest*, JSON beside the Parquet file, says
what the archive holds; it is written last, so that a file with a manifest was read back and found
equal. The row in `archived_partitions` says what this database has let go of; it changes in the
transaction that drops. So each stays true when the other is restored from an older backup.

The fingerprint of rows is their number and a sum over their hashes, whatever their order,
computed by PostgreSQL from the values themselves; also for what is read back from the store.
"""

from dataclasses import asdict, dataclass, field
from datetime import datetime

from django.conf import settings
from django.utils import timezone
from psycopg import sql

from config.models import ArchivedPartition
from config.parquet import Column, is_native, special
from config.sqlfiles import queries
from config.stores import Store, StoreError, get

SCHEMA_VERSION = 1


class NotArchived(Exception):
    """The partition is not verified in the archive as it is now, and so stays."""


@dataclass(frozen=True)
class Manifest:
    """One archived file. `start` and `end`: the bounds of the partition, ISO dates in UTC."""

    table: str
    partition: str
    column: str
    start: str
    end: str
    rows: int
    checksum: str
    bytes: int
    sha256: str
    verified_at: str
    columns: list[Column] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def key(self) -> str:
        """Of the Parquet file."""
        return file_key(self.table, self.partition, self.rows, self.checksum)

    def save(self, store: Store) -> None:
        """Write it beside its file: from now on the file counts."""
        store.put_json(_manifest_key(self.key), asdict(self))


def file_key(table: str, partition: str, rows: int, checksum: str) -> str:
    """Where rows of this fingerprint lie: the same rows always at the same key."""
    return f"{table}/{partition}-{rows}-{checksum}.parquet"


def keys_of(table: str, partition: str, rows: int, total: int) -> list[str]:
    """Where a partition of this fingerprint may lie: by itself, or, where it was restored but for
    some rows, in the file that holds those as well."""
    parts = ArchivedPartition.objects.filter(
        table=table, partition=partition, dropped_at=None, left_out__gt=0
    )
    return [
        file_key(table, partition, rows, checksum(total)),
        *(
            file_key(table, partition, rows + one.left_out,
                     checksum(total + int(one.left_out_checksum, 16)))
            for one in parts
        ),
    ]  # fmt: skip


def load(store: Store, key: str) -> Manifest | None:
    """The manifest of a Parquet file, or of its own key; None where there is none.

    Raises StoreError for one that this version cannot read.
    """
    found = store.get_json(_manifest_key(key))
    if found is None:
        return None
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(f"{key}: a manifest of another version")
    try:
        columns = [Column(**column) for column in found.pop("columns")]
        return Manifest(**found, columns=columns)
    except (TypeError, KeyError) as error:
        raise StoreError(f"{key}: not a manifest: {error}") from error


def first(store: Store, keys: list[str]) -> Manifest | None:
    """The first manifest that there is of these files."""
    return next(filter(None, (load(store, key) for key in keys)), None)


def manifests(store: Store, table: str = "", partition: str = "") -> list[Manifest]:
    """Every manifest, or those of a table or partition, by key."""
    found = [load(store, key) for key in store.manifests(table)]
    return [one for one in found if one and partition in ("", one.partition)]


def forget(store: Store, key: str) -> None:
    """Remove a file whose rows another one holds; the manifest first."""
    store.remove(_manifest_key(key))
    store.remove(key)


def columns_of(cursor, table: str) -> list[Column]:
    """The columns of a table in its order, none stored as text that need not be."""
    cursor.execute(queries("config")["table_columns"], {"table": table})
    return [
        Column(name, kind, generated, text=not is_native(kind))
        for name, kind, generated in cursor.fetchall()
    ]


def settle_session(cursor) -> None:
    """Have values written the same way in every session, and no time limit, to the end of the
    transaction."""
    for name, value in {
        "timezone": "UTC",
        "datestyle": "ISO, YMD",
        "intervalstyle": "postgres",
        "extra_float_digits": 1,
        "bytea_output": "hex",
        "statement_timeout": 0,
        "idle_in_transaction_session_timeout": 0,
    }.items():
        cursor.execute(
            sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value))
        )


def fingerprint(cursor, table: str, columns: list[Column]) -> tuple[int, int]:
    """(rows, sum of row hashes) of a table. After `settle_session`."""
    cursor.execute(
        sql.SQL(queries("config")["fingerprint"]).format(
            columns=sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
            table=sql.Identifier(table),
        )
    )
    rows, total = cursor.fetchone()
    return rows, int(total)


def checksum(total: int) -> str:
    """A sum of row hashes as 16 hex digits, modulo 2^64."""
    return f"{total % 2**64:016x}"


def with_specials(cursor, table: str, columns: list[Column]) -> list[Column]:
    """The columns, as text where this table holds values that Parquet cannot say."""
    conditions = {
        one.name: special(one) for one in columns if not one.text and special(one) is not None
    }
    if not conditions:
        return columns
    cursor.execute(
        sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(sql.SQL("bool_or({})").format(one) for one in conditions.values()),
            sql.Identifier(table),
        )
    )
    odd = dict(zip(conditions, cursor.fetchone(), strict=True))
    return [
        Column(one.name, one.kind, one.generated, text=True) if odd.get(one.name) else one
        for one in columns
    ]


def held(table: str) -> dict[str, datetime]:
    """The restored partitions of a table that stay, and until when."""
    return dict(
        ArchivedPartition.objects.filter(
            table=table, held_until__gt=timezone.now(), dropped_at=None
        ).values_list("partition", "held_until")
    )


def is_archivable(declared) -> bool:
    """Whether partitions of this table must be in the archive before they go."""
    return bool(settings.ARCHIVE_URL) and declared.archive


def require_recorded(declared, name: str) -> None:
    """Raise NotArchived unless `name` was archived. Cheap: what it is now is asked at the drop."""
    if (
        is_archivable(declared)
        and not ArchivedPartition.objects.filter(
            table=declared.name, partition=name, dropped_at=None
        ).exists()
    ):
        raise NotArchived(f"{name} is not in the archive yet: run manage.py archive")


def require_verified(cursor, declared, name: str) -> None:
    """Raise NotArchived unless the archive holds exactly the rows of the detached table `name`.

    In the transaction that drops it: locks it, so that nothing is written after it was counted,
    and notes that this database has let go of it.
    """
    if not is_archivable(declared):
        return
    cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(name)))
    settle_session(cursor)
    rows, total = fingerprint(cursor, name, columns_of(cursor, name))
    keys = keys_of(declared.name, name, rows, total)
    try:
        store = get()
        manifest = first(store, keys)
        size = store.size(manifest.key) if manifest else None
    except StoreError as error:
        raise NotArchived(f"{name}: the archive cannot be asked: {error}") from error
    if manifest is None:
        raise NotArchived(f"{name} has changed since it was archived: run manage.py archive")
    key = manifest.key
    if size != manifest.bytes:
        raise NotArchived(f"{name}: {key} has {size} bytes, not {manifest.bytes}: run "
                          "manage.py archive")  # fmt: skip
    known = ArchivedPartition.objects.filter(table=declared.name, partition=name, key=key)
    if not known.update(dropped_at=timezone.now(), held_until=None):
        raise NotArchived(f"{name} is not noted as archived: run manage.py archive")


def _manifest_key(key: str) -> str:
    return key.removesuffix(".json").removesuffix(".parquet") + ".json"
