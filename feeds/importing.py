"""Graphs of follows, and what people did to each other, from files.

Lines go in chunk by chunk, each in one transaction, by the names that the file has for people; a
file that comes again, or an import that was killed, adds only what is missing.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, Protocol

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX

from config import files, importing
from config.files import (
    FieldMap,
    Layout,
    Refused,
    Rejection,
    RejectsFile,
    Source,
    ahead,
    default_rejects_path,
)
from config.importing import Counts, Progress, chunks, transact
from config.sqlfiles import Statements
from feeds.actions import HANDLE

_sql = Statements("feeds")

EDGES = ("user_a", "user_b")
ACTS = ("unix_ts", "kind", "actor", "target")
KINDS = ("answer", "comment_on_answer", "comment_on_question")

REASONS = files.REASONS | {
    "handle_taken": "the handle that this name gives is somebody else's",
    "kind_unknown": f"none of {', '.join(KINDS)}",
    "name_invalid": "behind the prefix it makes no handle: 1 to 50 of a-z, 0-9, _ . and -",
    "time_future": "more than 24 hours ahead",
    "time_invalid": "no seconds since 1970",
}

AHEAD = timedelta(days=1)  # clocks differ
CHUNK_ROWS = 20_000
CHUNK_CHARACTERS = 8_000_000
NAMES_REMEMBERED = 100_000
_RAW = 10_000


@dataclass(frozen=True)
class Report(importing.Report):
    """What an import did. `accepted` lines are in, be it from before; `skipped` are those of
    somebody and themselves. `people` and `added` (follows; likes and comments) are new."""

    people: int
    added: int


class Lines(Protocol):
    """What the lines of a file say. `prefix`: what user names begin with here."""

    fields: tuple[str, ...]
    prefix: str

    def check(self, values: Sequence) -> tuple | Rejection | None:
        """A row that ends with the names of two people; None for somebody and themselves."""

    def write(self, rows: Sequence[tuple], ids: Mapping[str, int]) -> int:
        """Put in rows, user ids by name given; how many things are new. Needs a transaction."""


class Follows:
    """`user_a` follows `user_b`, and where it is `mutual` the other way too."""

    fields = EDGES

    def __init__(self, prefix: str, *, mutual: bool):
        self.prefix = prefix
        self._mutual = mutual
        self._names = _Names(prefix)

    def check(self, values: Sequence) -> tuple | Rejection | None:
        return self._names.two(EDGES, values)

    def write(self, rows: Sequence[tuple], ids: Mapping[str, int]) -> int:
        pairs = {(ids[one], ids[other]) for one, other in rows}
        if self._mutual:
            pairs |= {(other, one) for one, other in pairs}
        followers, followees = map(list, zip(*sorted(pairs), strict=True))
        return _sql.count("import_follows", followers=followers, followees=followees)


class Interactions:
    """Likes and comments, dated, on a post of whom they were meant for.

    A comment (comment_on_answer, comment_on_question) is one here, an answer is a like. As a file
    names no posts, everybody who was acted upon gets one a month.
    """

    fields = ACTS

    def __init__(self, prefix: str):
        self.prefix = prefix
        self._names = _Names(prefix)

    def check(self, values: Sequence) -> tuple | Rejection | None:
        seconds, kind = _text(values[0]).strip(), _text(values[1]).strip()
        try:
            at = datetime.fromtimestamp(int(seconds), UTC)
        except (ValueError, OverflowError, OSError):
            at = None
        if at is None or at.year < 1970:
            return Rejection("time_invalid", "unix_ts", seconds[:40])
        if at > datetime.now(UTC) + AHEAD:
            return Rejection("time_future", "unix_ts", at.isoformat())
        if kind not in KINDS:
            return Rejection("kind_unknown", "kind", kind[:40])
        names = self._names.two(ACTS[2:], values[2:])
        return (at, kind != "answer", *names) if type(names) is tuple else names

    def write(self, rows: Sequence[tuple], ids: Mapping[str, int]) -> int:
        months = {(ids[target], at.strftime("%Y-%m")) for at, _, _, target in rows}
        posts = _monthly_posts(months)
        comments, likes = {}, {}
        for at, is_comment, actor, target in rows:
            post = posts[ids[target], at.strftime("%Y-%m")]
            if is_comment:
                comments.setdefault((post, ids[actor], at), at)
            else:
                likes.setdefault((post, ids[actor]), at)
        return _put("import_likes", likes) + _put("import_comments", comments)


def import_file(
    *,
    path: str,
    lines: Lines,
    file_format: str = "",
    field_map: FieldMap | None = None,
    rejects_path: str = "",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Import one file (`-`: standard input), 20,000 lines a transaction, in constant memory.

    Who is missing is made, without a password. Killed anywhere, it has committed whole chunks;
    importing the file again adds the rest. `rejects_path`: a CSV file, made where a line is refused
    (default: `<name>.rejects.csv` here). `progress` is called after each chunk. Raises SourceError
    where the file cannot be opened (nothing was written) or breaks off (the lines before that are
    in), RejectsError where the rejects file stops taking lines (the same).
    """
    started = time.monotonic()
    layout = Layout(lines.fields, required=lines.fields)
    with Source(path, layout, file_format=file_format, field_map=field_map) as source:
        rejects = RejectsFile(rejects_path or default_rejects_path(path), path)
        counts, people, added = Counts(), 0, 0
        with rejects, ahead(chunks(source, lines.check, lambda: _Chunk(lines.fields))) as checked:
            for chunk in checked:
                if chunk.rows and not dry_run:
                    done = transact(lambda rows=chunk.rows: _record(rows, lines))
                    people, added = people + done.people, added + done.added
                    chunk.refuse(done.taken)
                counts += chunk.counts()
                rejects.write(sorted(chunk.rejected, key=lambda refused: refused.line))
                if progress:
                    progress(chunk.position, source.size, counts)
    seconds = time.monotonic() - started
    return Report(source.name, counts, seconds, rejects.path, people, added)


class _Names:
    """Who can be somebody here; the names of a graph come again and again."""

    def __init__(self, prefix: str):
        self._prefix = prefix
        self._name = lru_cache(NAMES_REMEMBERED)(self._name)

    def two(self, fields: Sequence[str], values: Sequence) -> tuple[str, str] | Rejection | None:
        """The names of two people; None where they are one."""
        one, other = self._name(_text(values[0])), self._name(_text(values[1]))
        if one and other:
            return (one, other) if one != other else None
        wrong = 1 if one else 0
        return Rejection("name_invalid", fields[wrong], _text(values[wrong])[:40])

    def _name(self, text: str) -> str:
        """`text` as a name, "" where with the prefix it makes no handle."""
        name = text.strip()
        return name if name and HANDLE.match(f"{self._prefix}{name}".lower()) else ""


class _Chunk:
    """Checked rows, which end with the names of two people, and the refused lines."""

    def __init__(self, fields: tuple[str, ...]):
        self.rows: list[tuple] = []
        self.rejected: list[Refused] = []
        self.position = self._skipped = self._characters = 0
        self._lines: list[int] = []
        self._raw: list[str] = []
        self._fields = fields[-2:]

    def add(self, line: int, raw: str, row: tuple | Rejection | None) -> None:
        self._characters += len(raw)
        if row is None:
            self._skipped += 1
        elif isinstance(row, Rejection):
            self.rejected.append(Refused(line, *row, raw[:_RAW]))
        else:
            self.rows.append(row)
            self._lines.append(line)
            self._raw.append(raw[:_RAW])

    @property
    def full(self) -> bool:
        rows = len(self.rows) + len(self.rejected) + self._skipped
        return rows >= CHUNK_ROWS or self._characters >= CHUNK_CHARACTERS

    def refuse(self, taken: set[str]) -> None:
        """Refuse the lines of names whose handles are somebody else's."""
        if not taken:
            return
        found, self.rows = zip(self._lines, self._raw, self.rows, strict=True), []
        for line, raw, row in found:
            for name, person in zip(self._fields, row[-2:], strict=True):
                if person in taken:
                    self.rejected.append(Refused(line, "handle_taken", name, person, raw))
                    break
            else:
                self.rows.append(row)

    def counts(self) -> Counts:
        return Counts(
            rows_read=len(self.rows) + len(self.rejected) + self._skipped,
            accepted=len(self.rows),
            rejected=len(self.rejected),
            skipped=self._skipped,
            reasons=Counter(f"{one.reason} {one.field}".strip() for one in self.rejected),
        )


class _Done(NamedTuple):
    """What became of a chunk; `taken` are the names whose handles are somebody else's."""

    people: int
    added: int
    taken: set[str]


def _record(rows: Sequence[tuple], lines: Lines) -> _Done:
    names = {name for row in rows for name in row[-2:]}
    people, ids = _people(lines.prefix, names)
    taken = names - ids.keys()
    if taken:
        rows = [row for row in rows if taken.isdisjoint(row[-2:])]
    return _Done(people, lines.write(rows, ids) if rows else 0, taken)


def _people(prefix: str, names: set[str]) -> tuple[int, dict[str, int]]:
    """(how many are new, user ids by the names of the file); a handle may be somebody else's."""
    usernames = [f"{prefix}{name}" for name in sorted(names)]
    made = _sql.value(
        "import_people",
        names=usernames,
        handles=[name.lower() for name in usernames],
        password=f"{UNUSABLE_PASSWORD_PREFIX}imported",
    )
    found = _sql.rows("people_by_name", names=usernames)
    return made, {name.removeprefix(prefix): user for name, user in found}


def _monthly_posts(wanted: set[tuple[int, str]]) -> dict[tuple[int, str], int]:
    authors, months = map(list, zip(*sorted(wanted), strict=True))
    found = _sql.rows("monthly_posts", authors=authors, months=[f"{month}-01" for month in months])
    return {(author, month): post for author, month, post in found}


def _put(name: str, times: Mapping[tuple, datetime]) -> int:
    """Likes or comments: when, by post and user first. How many are new."""
    keys = sorted(times)  # foreign keys lock posts in the order of the rows
    return _sql.count(
        name,
        posts=[key[0] for key in keys],
        users=[key[1] for key in keys],
        times=[times[key] for key in keys],
    )


def _text(value: object) -> str:
    """Text as a file has it, or a whole number of JSON; "" for anything else."""
    if type(value) is str:
        return value
    return str(value) if type(value) is int else ""
