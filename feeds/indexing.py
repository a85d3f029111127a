"""The search index follows the posts: what happened to them is claimed, read anew, and written.

An event only says which post to look at. A batch is claimed, the posts are read as they are now,
and the index is written, in one transaction: killed anywhere, the events wait as before. The
version of what is written is the id of the newest event behind it, so that a slower worker never
wins.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

from django.db import connection, transaction

from config import tally
from config.embeddings import EmbedderError, embedder
from config.sqlfiles import queries
from config.tally import Count
from feeds.search import Document, backend

logger = logging.getLogger("spyglass.feeds")

EVENTS_AT_ONCE = 500
REBUILT_AT_ONCE = 1_000
LOOKED_AT = 100_000
INDEX = "post_documents"


def index_next(events: int = EVENTS_AT_ONCE) -> int:
    """Bring what happened first into the index; returns how many events that were."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(queries("feeds")["claim_post_events"], {"limit": events})
        claimed = cursor.fetchall()
        if not claimed:
            return 0
        authors = [author for _, author, _ in claimed if author is not None]
        if authors:
            cursor.execute(queries("feeds")["events_of_authors"], {"authors": authors})
        versions: dict[int, int] = {}
        for event, _, post in claimed:
            if post is not None:
                versions[post] = max(event, versions.get(post, 0))
        written = backend().apply(documents(versions))
        cursor.execute("SELECT config_raise_generation(%s)", [INDEX])
        tally.add_all(
            Count("post_index_total", {"outcome": outcome}, count)
            for outcome, count in (("written", written), ("older", len(versions) - written))
        )
    return len(claimed)


def documents(versions: dict[int, int]) -> list[Document]:
    """These posts as they are now, each in its version; those that nobody may find are gone."""
    if not versions:
        return []
    with connection.cursor() as cursor:
        cursor.execute(queries("feeds")["posts_to_index"], {"ids": list(versions)})
        found = {row[0]: row for row in cursor.fetchall()}
    vectors = _vectors([row[5] for row in found.values()])
    shown = {
        post_id: Document(
            post_id,
            versions[post_id],
            False,
            *row[1:],
            vector=vectors[place] if vectors is not None else None,
        )
        for place, (post_id, row) in enumerate(found.items())
    }
    return [
        shown.get(post_id) or Document(post_id, version, is_gone=True)
        for post_id, version in versions.items()
    ]


def reindex(progress: Callable[[int], None] = lambda count: None) -> int:
    """Build the index anew beside the one that serves, and swap them; how many posts it holds."""
    return backend().rebuild(_all_documents(), progress)


def lag() -> tuple[int, float]:
    """(events that wait, up to LOOKED_AT; seconds since the oldest of them happened)."""
    with connection.cursor() as cursor:
        cursor.execute(queries("feeds")["index_backlog"], {"most": LOOKED_AT})
        count, seconds = cursor.fetchone()
    return count, max(0.0, seconds)


def _all_documents() -> Iterator[Sequence[Document]]:
    after = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                queries("feeds")["next_posts"], {"after": after, "limit": REBUILT_AT_ONCE}
            )
            ids = [post_id for (post_id,) in cursor.fetchall()]
        if not ids:
            return
        after = ids[-1]
        # Version 0: whatever an event brings meanwhile is newer.
        yield [one for one in documents(dict.fromkeys(ids, 0)) if not one.is_gone]


def _vectors(texts: list[str]):
    """A vector each; None where there is no embedder: the words are indexed all the same."""
    try:
        vectors = embedder().embed(texts)
    except EmbedderError as error:
        logger.info("posts are indexed without their meaning: %s", error)
        return None
    return [vector if vector.any() else None for vector in vectors]
