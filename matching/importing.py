"""Items out of files: checked line by line, written by COPY in chunks, found at once.

A row's identity is its `external_id`, or where the file has none, a hash of what it says: the
same file again, also after a kill, adds what is missing and nothing twice. What stands already is
compared: the same is a duplicate, anything else a conflict, and the first stays.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from hashlib import blake2b
from itertools import chain
from typing import Any

import orjson
import psycopg
from django.db import IntegrityError, connection, transaction

from config import files
from config.files import (
    FieldMap,
    Layout,
    Refused,
    Rejection,
    RejectsFile,
    Source,
    SourceError,
    ahead,
    default_rejects_path,
)
from config.importing import Counts, Progress, Report, chunks, transact
from config.sqlfiles import queries
from config.text import storable
from matching import features
from matching.fields import InvalidItem, clean
from matching.models import AuditLog
from matching.text import terms

FIELDS = (
    "kind",
    "title",
    "description",
    "category",
    "country",
    "city",
    "latitude",
    "longitude",
    "happened_on",
    "external_id",
    "attributes",
)
ALIASES = {"name": "title", "lat": "latitude", "lon": "longitude", "lng": "longitude"}
ATTRIBUTE = "attributes."  # --map attributes.colour=column
JOIN = "+"  # --map title=breed+colour

REASONS = files.REASONS | {
    "conflict": "an item of the same external_id stands that says something else",
    "invalid": "a field cannot be stored; see its name and the detail",
    "repeated": "another row of the file has the same external_id",
}

CHUNK_ROWS = 2_500  # a transaction: what a kill costs at most, and how long its locks are held
CHUNK_CHARACTERS = 4_000_000
SOURCE_LENGTH = 300
_RAW = 10_000
_COLUMNS = (
    "kind", "category", "title", "description", "attributes", "country", "city", "latitude",
    "longitude", "happened_on", "external_id", "terms", "features",
)  # fmt: skip
_EXTERNAL_ID = _COLUMNS.index("external_id")


class Mapped:
    """Where the fields of an item come from in a file.

    `pairs`: `field=column`, `field=:constant`, `title=breed+colour` (columns joined by spaces) or
    `attributes.NAME=column`. `kind`: of every item, "" where a column says it. `where`:
    `column=value` pairs that a row must have to be taken. `prefix` stands before every
    external_id, so that two sources that both count from 1 are kept apart. Raises SourceError.
    """

    def __init__(
        self,
        pairs: Iterable[str] = (),
        *,
        kind: str = "",
        where: Iterable[str] = (),
        prefix: str = "",
    ):
        self._prefix = prefix
        expanded = [f"kind=:{kind}"] if kind else []
        self._joined: dict[str, list[str]] = {}
        self._attributes: dict[str, str] = {}
        for pair in pairs:
            expanded += self._expanded(pair)
        self._where = [self._condition(number, one) for number, one in enumerate(where)]
        expanded += [f"{name}={column}" for name, column, _ in self._where]
        joined = chain.from_iterable(self._joined.values())
        extra = [*self._attributes, *joined, *(name for name, _, _ in self._where)]
        self.layout = Layout((*FIELDS, *extra), ("kind", "title"), ALIASES)
        self.field_map: FieldMap = files.parse_map(expanded, self.layout.fields)

    def values(self, row: Sequence[Any]) -> dict[str, Any] | None:
        """What a row says of an item, for `matching.fields.clean`; None where it is not wanted."""
        named = dict(zip(self.layout.fields, row, strict=True))
        if any(str(named[name] or "").strip() != value for name, _, value in self._where):
            return None
        given = {name: named[name] for name in FIELDS if named[name] not in ("", None)}
        for name, parts in self._joined.items():
            found = [
                str(named[part]).strip() for part in (name, *parts) if named[part] not in ("", None)
            ]
            given[name] = " ".join(filter(None, found))
        attributes = _attributes(given.get("attributes"))
        if isinstance(attributes, dict):
            attributes |= {
                key: named[name]
                for name, key in self._attributes.items()
                if named[name] not in ("", None)
            }
        if attributes:
            given["attributes"] = attributes
        for name, read in _READERS.items():
            if isinstance(given.get(name), str):
                given[name] = read(given[name])
        if "external_id" in given:  # a number, in JSON
            given["external_id"] = f"{self._prefix}{given['external_id']}"
        return given

    def _expanded(self, pair: str) -> list[str]:
        name, _, source = pair.partition("=")
        if name.startswith(ATTRIBUTE) and len(name) > len(ATTRIBUTE):
            self._attributes[name] = name.removeprefix(ATTRIBUTE)
            return [pair]
        first, *others = source.split(JOIN) if not source.startswith(":") else [source]
        if not others or name not in ("title", "description"):
            return [pair]
        self._joined[name] = [f"{name}{JOIN}{number}" for number in range(1, len(others) + 1)]
        parts = zip(self._joined[name], others, strict=True)
        return [f"{name}={first}", *(f"{part}={column}" for part, column in parts)]

    def _condition(self, number: int, text: str) -> tuple[str, str, str]:
        column, equals, value = text.partition("=")
        if not equals or not column:
            raise SourceError(f"--where {text}: write column=value")
        return f"where.{number}", column, value


def import_file(
    *,
    path: str,
    owner_id: int,
    mapped: Mapped,
    file_format: str = "",
    rejects_path: str = "",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Import one file (`-`: standard input) for an owner, in constant memory.

    Killed anywhere, it has committed whole chunks with their audit rows; importing the file again
    adds the rest. No match jobs are submitted: what is imported is found by those who look.
    `rejects_path`: a CSV file, made where a row is refused (default: `<name>.rejects.csv` here).
    `progress` is called after each chunk. Raises SourceError where the file cannot be opened
    (nothing was written) or breaks off (the rows before that are in), RejectsError where the
    rejects file stops taking rows (the same).
    """
    started = time.monotonic()
    with Source(path, mapped.layout, file_format=file_format, field_map=mapped.field_map) as source:
        rejects = RejectsFile(rejects_path or default_rejects_path(path), path)
        counts = Counts()
        with rejects, ahead(chunks(source, mapped.values, _Chunk)) as checked:
            for chunk in checked:
                outcomes = [] if dry_run else _commit(chunk, owner_id, source.name)
                counts += chunk.counts(outcomes)
                rejects.write(chunk.refused(outcomes))
                if progress:
                    progress(chunk.position, source.size, counts)
    return Report(source.name, counts, time.monotonic() - started, rejects.path)


class _Chunk:
    """Rows as they will be stored, with their lines, and the rejected ones. Bounded in memory."""

    def __init__(self):
        self.rows: dict[str, tuple] = {}  # by external_id
        self.lines: dict[str, tuple[int, str]] = {}
        self.rejected: list[Refused] = []
        self.duplicates = self.skipped = self.position = 0
        self._characters = 0

    def add(self, line: int, raw: str, given: Mapping[str, Any] | Rejection | None) -> None:
        self._characters += len(raw)
        if given is None:
            self.skipped += 1
            return
        row = given if isinstance(given, Rejection) else _row(given)
        if not isinstance(row, Rejection):
            key = row[_EXTERNAL_ID]
            standing = self.rows.setdefault(key, row)
            if standing is row:
                self.lines[key] = line, raw[:_RAW]
                return
            if standing == row:
                self.duplicates += 1
                return
            row = Rejection("repeated", "external_id", f"as in line {self.lines[key][0]:,}")
        self.rejected.append(Refused(line, *row, raw[:_RAW]))

    @property
    def full(self) -> bool:
        rows = len(self.rows) + len(self.rejected) + self.duplicates + self.skipped
        return rows >= CHUNK_ROWS or self._characters >= CHUNK_CHARACTERS

    def counts(self, standing: list[tuple[str, bool]]) -> Counts:
        """`standing`: (external_id, whether it says the same) of the rows that did not go in."""
        same = sum(is_same for _, is_same in standing)
        return Counts(
            rows_read=len(self.rows) + len(self.rejected) + self.duplicates + self.skipped,
            accepted=len(self.rows) - len(standing),
            duplicate=self.duplicates + same,
            conflicts=len(standing) - same,
            rejected=len(self.rejected),
            skipped=self.skipped,
            reasons=Counter(f"{one.reason} {one.field}".strip() for one in self.rejected),
        )

    def refused(self, standing: list[tuple[str, bool]]) -> list[Refused]:
        """The rejected and conflicting lines, in the order of the file."""
        conflicts = [
            Refused(self.lines[key][0], "conflict", "external_id", key, self.lines[key][1])
            for key, is_same in standing
            if not is_same
        ]
        return sorted(self.rejected + conflicts, key=lambda refused: refused.line)


def _row(given: Mapping[str, Any]) -> tuple | Rejection:
    """The columns of an item, or why it cannot be one."""
    try:
        item = clean(given)
    except InvalidItem as error:
        name, reason = next(iter(error.errors.items()))
        return Rejection("invalid", name, reason)
    attributes = item.get("attributes", {})
    title, description = item["title"], item.get("description", "")
    return (
        item["kind"],
        item.get("category", ""),
        title,
        description,
        orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode(),
        item.get("country", ""),
        item.get("city", ""),
        item.get("latitude"),
        item.get("longitude"),
        item.get("happened_on"),
        item.get("external_id") or _digest(item),
        terms(title, description),
        orjson.dumps(features.normalise(attributes)).decode(),
    )


def _digest(item: Mapping[str, Any]) -> str:
    """The identity of an item that has none: of what it says."""
    text = orjson.dumps(item, option=orjson.OPT_SORT_KEYS | orjson.OPT_NAIVE_UTC, default=str)
    return f"blake2b:{blake2b(text, digest_size=16).hexdigest()}"


def _commit(chunk: _Chunk, owner_id: int, source: str) -> list[tuple[str, bool]]:
    """One chunk in one transaction; (external_id, whether it says the same) of rows that stand."""
    return transact(lambda: _record(chunk, owner_id, source))


def _record(chunk: _Chunk, owner_id: int, source: str) -> list[tuple[str, bool]]:
    if not chunk.rows:
        return []
    rows = sorted(chunk.rows.values(), key=lambda row: row[_EXTERNAL_ID])
    standing = [] if _record_straight(rows, owner_id) else _record_stage(rows, owner_id)
    if len(standing) < len(rows):
        AuditLog.objects.create(
            actor_id=owner_id,
            action="import",
            entity="user",
            entity_id=owner_id,
            detail={"source": storable(source, SOURCE_LENGTH), "items": len(rows) - len(standing)},
        )
    return standing


def _record_straight(rows: Sequence[tuple], owner_id: int) -> bool:
    """Put in rows of which none stands yet; False, and nothing done, where one does.

    COPY writes a quarter faster than INSERT … ON CONFLICT, but ends at the first row that stands.
    """
    try:
        with transaction.atomic():
            _copy("import_straight", ((owner_id, *row) for row in rows))
    except IntegrityError as error:
        if isinstance(error.__cause__, psycopg.errors.UniqueViolation):
            return False
        raise
    return True


def _record_stage(rows: Sequence[tuple], owner_id: int) -> list[tuple[str, bool]]:
    """Put in the rows that are new; (external_id, whether it says the same) of the others."""
    statements = queries("matching")
    with connection.cursor() as cursor:
        cursor.execute(statements["create_import_stage"])
        cursor.execute(statements["empty_import_stage"])
        _copy("fill_import_stage", rows)
        cursor.execute(statements["import_stage"], {"owner": owner_id})
        added = {key for (key,) in cursor.fetchall()}
        left = [row[_EXTERNAL_ID] for row in rows if row[_EXTERNAL_ID] not in added]
        if not left:
            return []
        cursor.execute(
            statements["compare_import_stage"], {"owner": owner_id, "external_ids": left}
        )
        return cursor.fetchall()


def _copy(name: str, rows: Iterable[tuple]) -> None:
    with (
        connection.cursor() as cursor,
        connection.wrap_database_errors,  # Django does so for statements, not for a COPY
        cursor.copy(queries("matching")[name]) as copy,
    ):
        for row in rows:
            copy.write_row(row)


def _attributes(value: Any) -> Any:
    """An object, also where it comes as JSON in a column; anything else for `clean` to refuse."""
    if isinstance(value, str):
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(value)
    return {} if value is None else value


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _day(text: str) -> Any:
    """The day of an ISO date or time; the text itself for `clean` to refuse."""
    with contextlib.suppress(ValueError):
        return date.fromisoformat(text.strip()[:10])
    return text


_READERS: dict[str, Callable[[str], Any]] = {
    "kind": lambda text: text.strip().lower(),
    "latitude": _number,
    "longitude": _number,
    "happened_on": _day,
}
