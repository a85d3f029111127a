"""Graphs of follows, and what people did to each other, from files.

Edges go in part by part, each in one transaction, by the names that the file has for people; a file
that comes again, or an import that was killed, adds only what is missing.
"""

import csv
import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.db import connection, transaction

from config.sqlfiles import Statements, queries
from feeds.actions import HANDLE

_sql = Statements("feeds")

ROWS_AT_ONCE = 20_000
ERRORS_SHOWN = 20
KINDS = ("answer", "comment_on_answer", "comment_on_question")


class Refused(Exception):
    """A file that cannot be imported at all."""


@dataclass
class Report:
    """What an import did. `rejected` counts lines; `errors` says why, up to ERRORS_SHOWN."""

    read: int = 0
    people: int = 0
    added: int = 0
    rejected: int = 0
    errors: list[str] = field(default_factory=list)


def import_follows(
    path: Path,
    *,
    prefix: str,
    columns: tuple[str, str],
    mutual: bool,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Make people follow each other, one line an edge. Raises Refused, OSError.

    `mutual`: an edge goes both ways. `prefix`: what user names begin with here.
    """
    report = Report()
    for lines in _parts(path, columns):
        edges = []
        for number, (one, other) in lines:
            report.read += 1
            if _reject(report, number, prefix, one, other):
                continue
            edges.append((one, other))
            if mutual:
                edges.append((other, one))
        with transaction.atomic(durable=True):
            ids = _people(prefix, {name for edge in edges for name in edge}, report)
            edges = [edge for edge in edges if _known(report, ids, edge)]
            pairs = sorted({(ids[one], ids[other]) for one, other in edges})
            if pairs:
                followers, followees = map(list, zip(*pairs, strict=True))
                report.added += _sql.count(
                    "import_follows", followers=followers, followees=followees
                )
        progress(report)
    return report


def import_interactions(
    path: Path,
    *,
    prefix: str,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Likes and comments, dated, on a post of whom they were meant for. Raises Refused, OSError.

    Columns: unix_ts, kind, actor, target. A comment (comment_on_answer, comment_on_question) is one
    here, an answer is a like. As the file names no posts, everybody who was acted upon gets one a
    month. What people did to themselves is left out.
    """
    report = Report()
    for lines in _parts(path, ("unix_ts", "kind", "actor", "target")):
        rows = []
        for number, (seconds, kind, actor, target) in lines:
            report.read += 1
            try:
                at = datetime.fromtimestamp(int(seconds), UTC)
                if not 1970 <= at.year <= 2200:
                    raise ValueError(seconds)
            except (ValueError, OverflowError, OSError):
                _error(report, number, f"unix_ts: {seconds[:40]!r} is no time")
                continue
            if kind not in KINDS:
                _error(report, number, f"kind: {kind[:40]!r} is none of {', '.join(KINDS)}")
            elif not _reject(report, number, prefix, actor, target):
                rows.append((at, kind != "answer", actor, target))
        with transaction.atomic(durable=True):
            ids = _people(prefix, {name for row in rows for name in row[2:]}, report)
            rows = [row for row in rows if _known(report, ids, row[2:])]
            posts = _monthly_posts(
                {(ids[target], at.strftime("%Y-%m")) for at, _, _, target in rows}
            )
            comments, likes = {}, {}
            for at, is_comment, actor, target in rows:
                post = posts[ids[target], at.strftime("%Y-%m")]
                chosen = comments if is_comment else likes
                chosen.setdefault((post, ids[actor]) + ((at,) if is_comment else ()), at)
            likes = dict(sorted(likes.items()))  # foreign keys lock posts in the order of the rows
            comments = dict(sorted(comments.items()))
            report.added += _sql.count(
                "import_likes",
                posts=[post for post, _ in likes],
                users=[user for _, user in likes],
                times=list(likes.values()),
            )
            report.added += _sql.count(
                "import_comments",
                posts=[post for post, _, _ in comments],
                users=[user for _, user, _ in comments],
                times=list(comments.values()),
            )
        progress(report)
    return report


def _monthly_posts(wanted: set[tuple[int, str]]) -> dict[tuple[int, str], int]:
    if not wanted:
        return {}
    authors, months = map(list, zip(*sorted(wanted), strict=True))
    with connection.cursor() as cursor:
        cursor.execute(
            queries("feeds")["monthly_posts"],
            {"authors": authors, "months": [f"{month}-01" for month in months]},
        )
        return {(author, month): post for author, month, post in cursor.fetchall()}


def _people(prefix: str, names: set[str], report: Report) -> dict[str, int]:
    """User ids by the names of the file; who is missing is made, without a password."""
    if not names:
        return {}
    ordered = sorted(names)
    with connection.cursor() as cursor:
        cursor.execute(
            queries("feeds")["import_people"],
            {
                "names": [f"{prefix}{name}" for name in ordered],
                "handles": [f"{prefix}{name}".lower() for name in ordered],
                "password": f"{UNUSABLE_PASSWORD_PREFIX}imported",
            },
        )
        report.people += cursor.fetchone()[0]
        cursor.execute(
            queries("feeds")["people_by_name"], {"names": [f"{prefix}{name}" for name in ordered]}
        )
        return {name.removeprefix(prefix): user for name, user in cursor.fetchall()}


def _parts(path: Path, columns: Sequence[str]) -> Iterator[Iterator[tuple[int, tuple[str, ...]]]]:
    """The named columns of a CSV file (also gzip), ROWS_AT_ONCE lines at a time, numbered."""
    with _opened(path) as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            there = ", ".join(reader.fieldnames or ()) or "none"
            raise Refused(f"{path.name} has no column {', '.join(missing)}; it has: {there}")
        rows = (
            (reader.line_num, tuple((row.get(name) or "").strip() for name in columns))
            for row in reader
        )
        try:
            while part := list(islice(rows, ROWS_AT_ONCE)):
                yield iter(part)
        except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
            raise Refused(f"{path.name}, near line {reader.line_num}: {error}") from error


def _opened(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _reject(report: Report, number: int, prefix: str, one: str, other: str) -> bool:
    """Whether a line cannot be used, which the report says then; oneself is only left out."""
    for name in (one, other):
        if not name or not HANDLE.match(f"{prefix}{name}".lower()):
            _error(report, number, f"{name[:40]!r} cannot be anybody's name")
            return True
    return one == other


def _known(report: Report, ids: dict[str, int], names: Sequence[str]) -> bool:
    """Whether all of these are people by now: a handle may be somebody else's."""
    missing = [name for name in names if name not in ids]
    if missing:
        report.rejected += 1
        if len(report.errors) < ERRORS_SHOWN:
            report.errors.append(f"{missing[0]!r}: that handle is somebody else's")
    return not missing


def _error(report: Report, number: int, text: str) -> None:
    report.rejected += 1
    if len(report.errors) < ERRORS_SHOWN:
        report.errors.append(f"line {number}: {text}")
