"""Search over posts, behind an interface: a large installation puts another engine there.

FEEDS_SEARCH_BACKEND names a class with the methods of `Backend`. What a backend returns is only
candidates: whether the viewer may see them is looked at in PostgreSQL, now.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Protocol

import numpy as np
from django.conf import settings
from django.db import connection, transaction
from django.utils.module_loading import import_string

from config import leases, prepared, readmodels
from config.sqlfiles import queries

LEASE = "reindex posts"
CANDIDATES = 200  # of each route
MATCHES_LOOKED_AT = 2_000  # of those that have the words, before they are ranked


@dataclass(frozen=True)
class Document:
    """A post as it is indexed. `is_gone`: it must not be found any more."""

    post_id: int
    version: int
    is_gone: bool
    author_id: int = 0
    author_handle: str = ""
    author_name: str = ""
    kind: str = ""
    text: str = ""
    likes_count: int = 0
    comments_count: int = 0
    shares_count: int = 0
    created_at: datetime | None = None
    vector: np.ndarray | None = None


@dataclass(frozen=True)
class Hit:
    """A post that was found, and why it stands where it does."""

    post_id: int
    score: float
    words: float
    similarity: float
    meaning: float


class Backend(Protocol):
    """What an index must do. All of it may be repeated without harm."""

    def apply(self, documents: Sequence[Document]) -> int:
        """Store those that are newer than what is there, by version; returns how many were."""

    def search(
        self,
        *,
        text: str,
        vector: np.ndarray | None,
        kind: str | None,
        author_id: int | None,
        limit: int,
    ) -> list[Hit]:
        """The best hits, best first."""

    def rebuild(
        self, documents: Iterable[Sequence[Document]], progress: Callable[[int], None]
    ) -> int:
        """Build the index anew from `documents` beside the one that serves, and swap them.

        What `apply` is given meanwhile reaches both. Returns how many documents it holds.
        """

    def tidy(self) -> None:
        """Remove what a rebuild that was killed has left."""

    def size(self) -> int:
        """How many bytes the index takes."""


@cache
def backend() -> Backend:
    """The backend of the setting."""
    return import_string(settings.FEEDS_SEARCH_BACKEND)()


class PostgresBackend:
    """The index in PostgreSQL: full text, trigrams and vectors over `post_documents`.

    A hit is ranked by relevance × freshness × engagement. Relevance is a weighted sum of the rank
    of its words, of how much of it is spelt like the query, and of the cosine of its meaning;
    freshness falls from 1.5 to 1 (a half of the rest a week), engagement rises by a tenth with each
    doubling of likes, comments and shares.
    """

    def apply(self, documents: Sequence[Document]) -> int:
        """See Backend. The caller's transaction holds the events that are applied."""
        written = _write("post_documents", documents, replace=True)
        if _is_rebuilding():
            _write("post_documents_next", documents, replace=True)
        return written

    def search(
        self,
        *,
        text: str,
        vector: np.ndarray | None,
        kind: str | None,
        author_id: int | None,
        limit: int,
    ) -> list[Hit]:
        """See Backend."""
        rows = prepared.fetch(
            queries("feeds")["search_posts"],
            {
                "text": text,
                "vector": None if vector is None else _text(vector),
                "kind": kind,
                "author": author_id,
                "candidates": CANDIDATES,
                "looked_at": MATCHES_LOOKED_AT,
                "limit": limit,
            },
        )
        return [Hit(*row) for row in rows]

    def rebuild(
        self, documents: Iterable[Sequence[Document]], progress: Callable[[int], None]
    ) -> int:
        """See Backend. Killed half way, the next one begins anew. Raises `readmodels.Busy`."""
        owner = leases.new_owner()
        if not leases.take(LEASE, owner):
            raise readmodels.Busy("another reindex is at work; try again when it is done")
        try:
            return self._rebuild(documents, progress, owner)
        finally:
            leases.release(LEASE, owner)

    def tidy(self) -> None:
        """Drop what a killed rebuild has left: every change would be written to it as well."""
        owner = leases.new_owner()
        if _is_rebuilding() and leases.take(LEASE, owner):
            with connection.cursor() as cursor:
                cursor.execute("DROP TABLE IF EXISTS post_documents_next")
            leases.release(LEASE, owner)

    def _rebuild(self, documents, progress, owner: str) -> int:
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS post_documents_next")
            cursor.execute("CREATE TABLE post_documents_next (LIKE post_documents INCLUDING ALL)")
        total = 0
        for part in documents:
            with transaction.atomic(durable=True):
                _hold(owner)
                # What events have brought meanwhile is newer.
                total += _write("post_documents_next", part, replace=False)
            progress(total)
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            _hold(owner)
            # Nobody applies events while the tables change their names.
            cursor.execute(
                "LOCK TABLE post_documents, post_documents_next IN ACCESS EXCLUSIVE MODE"
            )
            cursor.execute("ALTER TABLE post_documents RENAME TO post_documents_old")
            cursor.execute("ALTER TABLE post_documents_next RENAME TO post_documents")
            cursor.execute("DROP TABLE post_documents_old")
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE post_documents")
        return total

    def size(self) -> int:
        """See Backend."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_total_relation_size('post_documents')")
            return cursor.fetchone()[0]


def _hold(owner: str) -> None:
    """Keep the lease, in the transaction that writes under it. Raises `readmodels.Busy`."""
    if not leases.extend(LEASE, owner):
        raise readmodels.Busy("the reindex has lost its lease: somebody else has begun another")


def _is_rebuilding() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('post_documents_next') IS NOT NULL")
        return cursor.fetchone()[0]


def _write(table: str, documents: Sequence[Document], *, replace: bool) -> int:
    if not documents:
        return 0
    name = "write_documents" if replace else "add_documents"
    statement = queries("feeds")[name].replace("post_documents", table)
    rows = sorted(documents, key=lambda one: one.post_id)
    with connection.cursor() as cursor:
        cursor.execute(
            statement,
            {
                "ids": [one.post_id for one in rows],
                "versions": [one.version for one in rows],
                "gone": [one.is_gone for one in rows],
                "authors": [one.author_id for one in rows],
                "handles": [one.author_handle for one in rows],
                "names": [one.author_name for one in rows],
                "kinds": [one.kind for one in rows],
                "texts": [one.text for one in rows],
                "likes": [one.likes_count for one in rows],
                "comments": [one.comments_count for one in rows],
                "shares": [one.shares_count for one in rows],
                "times": [one.created_at for one in rows],
                "vectors": [None if one.vector is None else _text(one.vector) for one in rows],
            },
        )
        return cursor.rowcount


def _text(vector: np.ndarray) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(f"{value:.5g}" for value in vector) + "]"
