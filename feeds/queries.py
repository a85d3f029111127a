"""Reads of posts and people beside timelines: plain data, bounded, no writes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connection

from config.embeddings import EmbedderError, embedder
from config.partitions import estimated_rows
from config.sqlfiles import Statements, queries
from feeds import shown
from feeds.search import backend
from feeds.timeline import NEWEST, Page, Position

_sql = Statements("feeds")

SPARE_HITS = 20  # beyond what is asked for: some may have gone since they were indexed


def visible(ids: Sequence[int], viewer_id: int) -> list[int]:
    """Those of these posts that the viewer may see, in their order."""
    with connection.cursor() as cursor:
        cursor.execute(queries("feeds")["may_see"], {"ids": list(ids), "me": viewer_id})
        allowed = {post_id for (post_id,) in cursor.fetchall()}
    return [post_id for post_id in ids if post_id in allowed]


def post(post_id: int, viewer_id: int) -> dict[str, Any] | None:
    """A post as the viewer sees it; None where there is none for them."""
    found = shown.posts(visible([post_id], viewer_id), viewer_id)
    return found[0] if found else None


def posts_of(
    *, person_id: int, viewer_id: int, limit: int, after: Position | None = None
) -> Page | None:
    """A page of somebody's posts; None where there is no such person for the viewer."""
    person = shown.person(person_id, viewer_id)
    if person is None:
        return None
    if person_id == viewer_id:
        sees = "all"
    elif person["blocked"] or (person["is_private"] and not person["followed"]):
        return Page([], None, "computed")
    elif person["followed"]:
        sees = "followed"
    else:
        sees = "public"
    at, last_id = after or NEWEST
    rows = _sql.rows("posts_of", author=person_id, at=at, id=last_id, sees=sees, limit=limit + 1)
    page = rows[:limit]
    posts = shown.posts([post_id for post_id, _ in page], viewer_id)
    return Page(posts, (page[-1][1], page[-1][0]) if len(rows) > limit else None, "computed")


def comments(
    *, post_id: int, viewer_id: int, limit: int, before: int | None = None
) -> tuple[list[dict[str, Any]], int | None] | None:
    """(a page of a post's comments, the id before which the next begins); None: no such post."""
    if not visible([post_id], viewer_id):
        return None
    rows = _sql.rows(
        "comments_of", post=post_id, me=viewer_id, before=before or 2**62, limit=limit + 1
    )
    page = [comment(*row) for row in rows[:limit]]
    return page, page[-1]["id"] if len(rows) > limit else None


def comment(
    comment_id: int,
    text: str,
    created_at: datetime,
    edited_at: datetime | None,
    author_id: int,
    handle: str,
    name: str,
) -> dict[str, Any]:
    """A comment as plain data."""
    return {
        "id": comment_id,
        "author": author(author_id, handle, name),
        "text": text,
        "created_at": created_at,
        "edited_at": edited_at,
    }


def author(author_id: int, handle: str, name: str) -> dict[str, Any]:
    """Somebody, shortly."""
    return {"id": author_id, "handle": handle, "display_name": name}


def people(
    *, which: str, person_id: int, viewer_id: int, limit: int, after: int = 0
) -> tuple[list[dict[str, Any]], int | None] | None:
    """(a page of followers_of or followed_by somebody, after whom the next begins).

    None where the viewer may not know: no such person, blocked, or private and not followed.
    """
    person = shown.person(person_id, viewer_id)
    if person is None or (
        person["is_private"] and person_id != viewer_id and not person["followed"]
    ):
        return None
    rows = _sql.rows(which, person=person_id, me=viewer_id, after=after, limit=limit + 1)
    page = [author(*row) for row in rows[:limit]]
    return page, page[-1]["id"] if len(rows) > limit else None


def search(
    *, text: str, viewer_id: int, kind: str | None, author_id: int | None, limit: int
) -> list[dict[str, Any]]:
    """The best posts that the viewer may see, each with its score and what makes it a hit."""
    hits = backend().search(
        text=text,
        vector=_vector(text),
        kind=kind,
        author_id=author_id,
        limit=limit + SPARE_HITS,
    )
    allowed = visible([hit.post_id for hit in hits], viewer_id)[:limit]
    posts = {one["id"]: one for one in shown.posts(allowed, viewer_id)}
    return [
        posts[hit.post_id]
        | {
            "score": round(hit.score, 4),
            "why": {
                "words": round(hit.words, 4),
                "spelling": round(hit.similarity, 4),
                "meaning": round(hit.meaning, 4),
            },
        }
        for hit in hits
        if hit.post_id in posts
    ]


def gauges() -> dict[str, float]:
    """What is under way to timelines, for staff."""
    [row] = _sql.rows("feed_gauges")
    names = ("waiting", "oldest_seconds", "failing", "unbuilt")
    return dict(zip(names, row, strict=True)) | {
        "kept": estimated_rows("feed_states"),
        "rows": estimated_rows("user_feeds"),
    }


def _vector(text: str):
    try:
        [vector] = embedder().embed([text])
    except EmbedderError:
        return None
    return vector if vector.any() else None
