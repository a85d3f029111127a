"""Files of rows → raw values, line by line, in constant memory; and the rows that were refused.

CSV (comma, semicolon or tab, from the header) and NDJSON; UTF-8, plain or gzip, told by content.
A line that cannot be read becomes a Rejection and the next line goes on: an unclosed quote never
swallows what follows, a wrong byte costs its own line. What makes a whole file useless (a missing
column, another encoding, a damaged archive) raises SourceError. Which fields a row has is the
domain's: see `Layout`.
"""

import contextlib
import csv
import gc
import gzip
import io
import os
import queue
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, TypeVar

import orjson

T = TypeVar("T")

BLOCK_BYTES = 256 * 1024
LINE_BYTES = 1024 * 1024  # a longer line is rejected, so that no line fills the memory
# Rows of text shrink to a tenth or a thirtieth; a file that was made to fill the disk, to a
# thousandth. Small ones may do as they like.
GZIP_RATIO = 200
GZIP_FREE_BYTES = 64 * 1024 * 1024
RECORD_LINES = 100  # a quoted CSV field may break over this many lines

_FORMATS = {".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_FOREIGN = {
    b"\xff\xfe": "UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: pipe it through `zstdcat`",
    b"BZh": "compressed by bzip2: pipe it through `bzcat`",
    b"\xfd7zXZ": "compressed by xz: pipe it through `xzcat`",
}


# Why a line cannot be read, for people. A domain adds the reasons of its own checks.
REASONS = {
    "columns_wrong": "the line has another number of columns than the header",
    "csv_malformed": "text stands after a closing quote, or the line breaks inside",
    "csv_unclosed_quote": "a quote is opened and not closed",
    "encoding": "the text is not valid UTF-8",
    "json_invalid": "the line is not valid JSON",
    "json_not_object": "the JSON value is not an object",
    "line_too_long": "the line has more than 1 MiB",
}


class SourceError(Exception):
    """A file cannot be read as a whole; the text says why and what to do."""


class RejectsError(Exception):
    """The refused rows of a file cannot be written down; the text says where and why."""


class Rejection(NamedTuple):
    """Why a row does not go in: a key of the domain's reasons, the field, what was wrong."""

    reason: str
    field: str = ""
    detail: str = ""


class Refused(NamedTuple):
    """A line that did not go in, for the rejects file."""

    line: int
    reason: str
    field: str
    detail: str
    raw: str


# The number of its first line from 1, its text, and its raw values in the order of the layout's
# fields or why there are none. A plain tuple: there are millions of them.
Record = tuple[int, str, Sequence | Rejection]


@dataclass(frozen=True)
class Layout:
    """The fields of a row: their names in order, those it must have, and aliases {other: name}.

    A field's own name wins where both stand.
    """

    fields: tuple[str, ...]
    required: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def names_of(self, name: str) -> tuple[str, ...]:
        """Under which names a field is recognised."""
        return name, *(alias for alias, meant in self.aliases.items() if meant == name)


@dataclass(frozen=True)
class FieldMap:
    """Where fields come from when a file names them otherwise: columns and constants by field."""

    columns: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)


def parse_map(pairs: Iterable[str], fields: Sequence[str]) -> FieldMap:
    """A FieldMap out of `field=column` and `field=:constant`. Raises SourceError."""
    columns, constants = {}, {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not equals or not source or source == ":":
            raise SourceError(f"--map {pair}: write field=column, or field=:constant")
        if name not in fields:
            raise SourceError(f"--map {pair}: no field {name!r}; fields: {', '.join(fields)}")
        if name in columns or name in constants:
            raise SourceError(f"--map {pair}: {name} is mapped twice")
        if source.startswith(":"):
            constants[name] = source[1:]
        else:
            columns[name] = source
    return FieldMap(columns, constants)


class Source:
    """One open file of rows; a context manager.

    `size`: bytes on disk, None for a pipe. `position`: bytes read so far, of the same kind.
    `columns`: the header of a CSV file.
    """

    def __init__(
        self,
        path: str,
        layout: Layout,
        *,
        file_format: str = "",
        field_map: FieldMap | None = None,
    ):
        """`path`: a file, or `-` for standard input, which needs `file_format` csv or ndjson."""
        self._layout = layout
        self.name = "standard input" if path == "-" else path
        self.format = file_format or _format_of(path)
        self._map = field_map or FieldMap()
        self.columns: tuple[str, ...] = ()
        self._raw = _Counted(_open(path))
        self.size = self._raw.size
        self._file = self._decompressed()
        self._lines = _line_blocks(self._file)
        try:
            self._records = self._csv_records() if self.format == "csv" else self._json_records()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._raw.release()

    @property
    def position(self) -> int:
        return self._raw.position

    @property
    def digest(self) -> str:
        """SHA-256 of what was read of the file, as it lies on disk."""
        return self._raw.hash.hexdigest()

    def blocks(self) -> Iterator[list[Record]]:
        """The records in order, some thousands at a time. Raises SourceError where it breaks."""
        line = 0
        try:
            for block in self._records:
                if block:
                    line = block[-1][0]
                    yield block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(
                f"{self.name}: damaged gzip after line {line:,} ({error});"
                " the lines before it were read"
            ) from error
        except OSError as error:
            raise SourceError(
                f"{self.name}: cannot be read after line {line:,}: {error}"
            ) from error

    def _decompressed(self) -> BinaryIO:
        buffered = io.BufferedReader(self._raw, BLOCK_BYTES)
        start = buffered.peek(6)
        for magic, what in _FOREIGN.items():
            if start.startswith(magic):
                self.close()
                raise SourceError(f"{self.name} is {what}")
        return _Gunzipped(buffered, self._raw) if start.startswith(b"\x1f\x8b") else buffered

    def _csv_records(self) -> Iterator[list[Record]]:
        try:
            head = next((block for block in self._lines if any(map(str.strip, block.lines))), None)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(f"{self.name}: damaged gzip ({error})") from error
        if head is None:
            raise SourceError(f"{self.name} is empty: a CSV file starts with a header")
        at = next(i for i, text in enumerate(head.lines) if text.strip())
        header, delimiter = _parse_header(head.lines[at])
        self.columns = tuple(header)
        pick, constants = self._columns(header)
        parser = _CsvParser(len(header), delimiter, pick, constants)
        return parser.records(head.after(at + 1), self._lines)

    def _columns(self, header: list[str]):
        """How to pick the fields out of a row: `pick(row + constants)`. Raises SourceError."""
        sources = {name: (alias,) for name, alias in self._map.columns.items()}
        positions, extra, missing = [], [], []
        for name in self._layout.fields:
            if name in self._map.constants:
                positions.append(len(header) + len(extra))
                extra.append(self._map.constants[name])
                continue
            candidates = sources.get(name) or self._layout.names_of(name)
            found = next((c for c in candidates if c in header), None)
            if found is None:
                if name in self._layout.required or name in sources:
                    missing.append(name if name not in sources else f"{name} (as {candidates[0]})")
                positions.append(len(header) + len(extra))
                extra.append("")
                continue
            if header.count(found) > 1:
                raise SourceError(f"{self.name}: the header names {found} twice")
            positions.append(header.index(found))
        if missing:
            raise SourceError(
                f"{self.name}: no column for {', '.join(missing)}; it has {_shown(header)}."
                " Name them with --map field=column, or give a constant with --map field=:value"
            )
        return itemgetter(*positions), extra

    def _json_records(self) -> Iterator[list[Record]]:
        fields, columns = self._layout.fields, self._map.columns
        keys = [
            (columns[name],) if name in columns else self._layout.names_of(name) for name in fields
        ]
        constants = {fields.index(name): value for name, value in self._map.constants.items()}
        for block in self._lines:
            if block.first == 1 and block.lines[0].lstrip().startswith("["):
                raise SourceError(
                    f"{self.name} is a JSON array: write one object a line (`jq -c '.[]'`)"
                )
            yield [
                (line, text, block.bad.get(line) or _json_values(text, keys, constants))
                for line, text in enumerate(block.lines, block.first)
                if text and not text.isspace()
            ]


def default_rejects_path(path: str) -> str:
    """Where the refused rows of `path` go: beside the working directory's other files."""
    name = "stdin" if path == "-" else Path(path).name.removesuffix(".gz")
    return f"{Path(name).stem if Path(name).suffix else name}.rejects.csv"


def default_rejects_paths(paths: list[str]) -> list[str]:
    """One rejects file for each path, also where two files share a name."""
    taken = []
    for path in paths:
        wanted = name = default_rejects_path(path)
        number = 1
        while name in taken:
            number += 1
            name = wanted.replace(".rejects.csv", f"-{number}.rejects.csv")
        taken.append(name)
    return taken


class RejectsFile:
    """The CSV file of refused rows; made by the first of them."""

    def __init__(self, path: str, source: str):
        self._wanted = Path(path)
        self._file = None
        self.path = ""
        folder = self._wanted.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise SourceError(f"no rejects file can be written in {folder}: say --rejects PATH")
        if self._wanted.is_dir():
            raise SourceError(f"{path} is a folder: say --rejects PATH with the name of a file")
        if self._wanted.exists() and source != "-" and self._wanted.samefile(source):
            raise SourceError(f"{path} is the file to read: say --rejects PATH for another one")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc) -> None:
        if self._file:
            with self._failing():
                self._file.close()

    def write(self, refused: list[Refused]) -> None:
        if not refused:
            return
        with self._failing():
            if self._file is None:
                self._file = self._wanted.open(
                    "w", encoding="utf-8", errors="backslashreplace", newline=""
                )
                self.path = str(self._wanted)
                csv.writer(self._file).writerow(Refused._fields)
            csv.writer(self._file).writerows(refused)
            self._file.flush()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RejectsError(
                f"{self._wanted}: the refused rows cannot be written ({error.strerror}); the rows"
                " before are in. Make room, or say --rejects PATH, and go through the file again"
            ) from error


@contextlib.contextmanager
def ahead(chunks: Iterator[T]) -> Iterator[Iterator[T]]:
    """Make chunks in a thread, one ahead of the database; the thread never touches it."""
    ready: queue.Queue = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(item) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return

    def work() -> None:
        try:
            while (chunk := _uncollected(chunks)) is not None:
                put(chunk)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that reads
            put(error)

    def read() -> Iterator[T]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=work, name="file-reader", daemon=True)
    thread.start()
    try:
        yield read()
    finally:
        stopped.set()
        thread.join()


def _uncollected(chunks: Iterator[T]) -> T | None:
    """The next chunk, made without garbage collection; None at the end.

    A chunk is thousands of small lists without cycles. Python would look for some at each 700 of
    them, in the end among all objects of the process: that took as long as the reading.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return next(chunks, None)
    finally:
        if was_enabled:
            gc.enable()


class _Lines(NamedTuple):
    """Whole lines without their ends, the number of the first, and which are unreadable."""

    first: int
    lines: list[str]
    bad: dict[int, Rejection]

    def after(self, index: int) -> "_Lines":
        return _Lines(self.first + index, self.lines[index:], self.bad)


class _CsvParser:
    """Lines of a CSV file → Records.

    Block by block through the csv module; a block in which a record is not exactly one line goes
    line by line, and may carry the beginning of a record over into the next block.
    """

    def __init__(self, width: int, delimiter: str, pick, constants: list[str]):
        self._width = width
        self._delimiter = delimiter
        self._pick = pick
        self._constants = constants

    def records(self, head: _Lines, blocks: Iterator[_Lines]) -> Iterator[list[Record]]:
        pending: list[tuple[int, str, Rejection | None]] = []
        block: _Lines | None = head
        while block is not None:
            following = next(blocks, None)
            rows = None if pending or block.bad else self._one_row_a_line(block.lines)
            if rows is not None:
                values = map(self._values, rows)
                yield [
                    record
                    for record in zip(count(block.first), block.lines, values, strict=False)
                    if record[2] is not None
                ]
            else:
                pending += [
                    (n, t, block.bad.get(n)) for n, t in enumerate(block.lines, block.first)
                ]
                done, pending = self._line_by_line(pending, last=following is None)
                yield done
            block = following

    def _one_row_a_line(self, lines: list[str]) -> list[list[str]] | None:
        try:
            rows = list(csv.reader(lines, strict=True, delimiter=self._delimiter))
        except csv.Error:
            return None
        # Each row takes a line or more: as many rows as lines means that each took one.
        return rows if len(rows) == len(lines) else None

    def _values(self, row: list[str]) -> Sequence | Rejection | None:
        """The fields of a row; None for a blank line."""
        if len(row) == self._width:
            return self._pick(row + self._constants)
        if not row:
            return None
        return Rejection("columns_wrong", "", f"{len(row)} columns, the header has {self._width}")

    def _line_by_line(self, pending, *, last: bool):
        """(records, lines to carry over): the latter where the last record is still open."""
        done, at = [], 0
        while at < len(pending):
            line, text, bad = pending[at]
            taken, row = 1, bad or self._parse(text)
            if row is None:
                taken, row = self._broken_over_lines(pending, at, last=last)
                if taken is None:
                    return done, pending[at:]
                text = "\n".join(text for _, text, _ in pending[at : at + taken])
            if row:
                values = row if isinstance(row, Rejection) else self._values(row)
                done.append((line, text, values))
            at += taken
        return done, []

    def _parse(self, text: str) -> list[str] | Rejection | None:
        """The row in `text`; a Rejection; or None where a quote is still open at its end."""
        try:
            rows = list(
                csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=self._delimiter)
            )
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                return None
            return Rejection("csv_malformed", "", str(error))
        if len(rows) > 1:
            return Rejection("csv_malformed", "", "the line breaks inside, outside quotes")
        return rows[0] if rows else []

    def _broken_over_lines(self, pending, at: int, *, last: bool):
        """(lines taken, row) of the record that opens a quote on line `at` and leaves it open.

        (None, None) where the following lines must be seen first. Otherwise, if no whole record
        comes of it, line `at` alone is rejected and the next line starts afresh.
        """
        unclosed = 1, Rejection("csv_unclosed_quote")
        text = pending[at][1]
        for taken in range(2, RECORD_LINES + 1):
            if at + taken > len(pending):
                return unclosed if last else (None, None)
            _, following, bad = pending[at + taken - 1]
            text = f"{text}\n{following}"
            if bad or len(text) > LINE_BYTES:
                return unclosed
            row = self._parse(text)
            if row is not None:
                whole = not isinstance(row, Rejection) and len(row) == self._width
                return (taken, row) if whole else unclosed
            if self._width > 2 and self._is_record(following):
                return unclosed  # a quote left open would go on to swallow good lines
        return unclosed

    def _is_record(self, text: str) -> bool:
        row = self._parse(text)
        return isinstance(row, list) and len(row) == self._width


class _Counted(io.RawIOBase):
    """A binary file that counts and hashes what is read of it, up to its end."""

    def __init__(self, file: BinaryIO):
        super().__init__()
        self._file = file
        self.size = _size_of(file)
        self.position = 0
        self.hash = sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        size = self._file.readinto(buffer) or 0
        self.position += size
        self.hash.update(buffer[:size])
        return size

    def release(self) -> None:
        if self._file is not sys.stdin.buffer:
            self._file.close()


class _Gunzipped(gzip.GzipFile):
    """What a gzip file holds, unless that is out of all proportion to its size (a gzip bomb)."""

    def __init__(self, file: BinaryIO, raw: _Counted):
        super().__init__(fileobj=file)
        self._counted = raw
        self._given = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._given += len(data)
        if self._given > GZIP_FREE_BYTES and self._given > GZIP_RATIO * self._counted.position:
            raise SourceError(
                f"the gzip file holds more than {GZIP_RATIO} times its size: unpack it first"
            )
        return data


def _open(path: str) -> BinaryIO:
    if path == "-":
        return sys.stdin.buffer
    try:
        return Path(path).open("rb", buffering=0)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error


def _size_of(file: BinaryIO) -> int | None:
    """The bytes ahead in a regular file; None for a pipe or a terminal."""
    if not file.seekable():
        return None
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    return size


def _format_of(path: str) -> str:
    if path == "-":
        raise SourceError("standard input has no file name: say --format csv or --format ndjson")
    name = path.lower().removesuffix(".gz")
    for suffix, file_format in _FORMATS.items():
        if name.endswith(suffix):
            return file_format
    raise SourceError(f"{path}: unknown kind of file: say --format csv or --format ndjson")


def _shown(header: list[str]) -> str:
    names = ", ".join(header)
    return names if len(names) <= 1_000 else f"{names[:1_000]} … ({len(header):,} columns)"


def _parse_header(text: str) -> tuple[list[str], str]:
    """The column names and the delimiter: whichever of comma, semicolon and tab stands most."""
    delimiter = max(",;\t", key=text.count)
    try:
        header = next(csv.reader([text], strict=True, delimiter=delimiter))
    except csv.Error as error:
        raise SourceError(f"the header cannot be read as CSV: {error}") from error
    return [name.strip() for name in header], delimiter


def _json_values(text: str, keys, constants: dict[int, str]) -> Sequence | Rejection:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Rejection("json_invalid", "", str(error)[:200])
    if not isinstance(found, dict):
        return Rejection("json_not_object", "", type(found).__name__)
    values = [next((found[key] for key in names if key in found), None) for names in keys]
    for position, value in constants.items():
        values[position] = value
    return values


def _line_blocks(file: BinaryIO) -> Iterator[_Lines]:
    """Whole lines in blocks. A line over LINE_BYTES is skipped to its end and marked bad."""
    line, rest = 1, b""
    while data := file.read(BLOCK_BYTES):
        data = rest + data
        cut = data.rfind(b"\n") + 1
        if cut:
            rest = data[cut:]
            block = _decode(data[: cut - 1], line)
            line += len(block.lines)
            yield block
        elif len(data) > LINE_BYTES:
            rest = _skip_line(file)
            bad = {line: Rejection("line_too_long")}
            yield _Lines(line, [data[:1000].decode(errors="replace")], bad)
            line += 1
        else:
            rest = data
    if rest:
        yield _decode(rest, line)


def _skip_line(file: BinaryIO) -> bytes:
    """Read up to the next line end; what was read behind it."""
    while data := file.read(BLOCK_BYTES):
        _, end, rest = data.partition(b"\n")
        if end:
            return rest
    return b""


def _decode(data: bytes, first: int) -> _Lines:
    if first == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return _Lines(first, data.decode().split("\n"), {})
    except UnicodeDecodeError:
        lines, bad = [], {}
        for number, raw in enumerate(data.split(b"\n"), first):
            try:
                lines.append(raw.decode())
            except UnicodeDecodeError as error:
                lines.append(raw.decode(errors="backslashreplace"))
                bad[number] = Rejection("encoding", "", f"byte {error.start + 1} of the line")
        return _Lines(first, lines, bad)


csv.field_size_limit(LINE_BYTES)  # the csv module's own limit is the whole process's
