"""Imports of files of rows (`config.files`): chunk by chunk, each in one transaction, counted.

A domain brings its chunk and how it is written; what an import reports is the same for all.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from django.db import IntegrityError, OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected, SerializationFailure

from config.files import Rejection, Source, SourceError

T = TypeVar("T")
C = TypeVar("C", bound="Chunk")

ATTEMPTS = 5


@dataclass(frozen=True)
class Counts:
    """Rows by outcome: `rows_read` is the sum of the others. `skipped`: not what was asked for."""

    rows_read: int = 0
    accepted: int = 0
    duplicate: int = 0
    conflicts: int = 0
    rejected: int = 0
    skipped: int = 0
    reasons: Counter = field(default_factory=Counter)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(value + getattr(other, name) for name, value in vars(self).items()))


@dataclass(frozen=True)
class Report:
    """What an import did. After a dry run `counts.accepted` are the valid rows. `rejects_path` is
    "" where nothing was refused."""

    source: str
    counts: Counts
    seconds: float
    rejects_path: str

    @property
    def rows_per_second(self) -> float:
        return self.counts.rows_read / self.seconds if self.seconds else 0.0


# Called with the bytes read, the bytes in all or None, and what was counted so far.
Progress = Callable[[int, int | None, Counts], None]


class Chunk(Protocol):
    """Checked rows that are written together. `position`: bytes of the source read by then."""

    position: int

    def add(self, line: int, raw: str, checked: Any) -> None: ...

    @property
    def full(self) -> bool: ...


def chunks(source: Source, check: Callable[[Sequence], Any], new: Callable[[], C]) -> Iterator[C]:
    """The rows of a source in chunks, each `check`ed unless it could not be read already.

    What was read before the source broke off comes before the SourceError.
    """
    chunk, is_empty, broken = new(), True, None
    try:
        for block in source.blocks():
            for line, raw, values in block:
                chunk.add(line, raw, values if isinstance(values, Rejection) else check(values))
                is_empty = False
                if chunk.full:
                    chunk.position = source.position
                    yield chunk
                    chunk, is_empty = new(), True
    except SourceError as error:
        broken = error
    if not is_empty:
        chunk.position = source.position
        yield chunk
    if broken:
        raise broken


def transact(
    record: Callable[[], T],
    *,
    before: Callable[[], None] = lambda: None,
    passes: Callable[[BaseException | None], bool] = lambda error: False,
) -> T:
    """`record()` in a transaction of its own; again after a lost deadlock, and where it `passes`.

    `before` is called in front of each attempt, outside the transaction. In a transaction of the
    caller's there is one attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        before()
        try:
            with transaction.atomic():
                return record()
        except (OperationalError, IntegrityError) as error:
            cause = error.__cause__
            again = isinstance(cause, DeadlockDetected | SerializationFailure) or passes(cause)
            if not again or attempt == ATTEMPTS or connection.in_atomic_block:
                raise
            time.sleep(random.uniform(0.05, 0.2) * attempt)  # noqa: S311 -- jitter
    raise AssertionError("unreachable")
