"""Posts and people as a viewer sees them: plain data for the API and the admin."""

from collections.abc import Sequence
from typing import Any

import orjson
from django.db import connection

from config import prepared
from config.sqlfiles import queries
from counters import declared

NOBODY = 0  # the viewer without an account


def posts(ids: Sequence[int], viewer_id: int) -> list[dict[str, Any]]:
    """These posts in this order, with exact counts; what is gone is left out. One query.

    Whether the viewer may see them was looked at before.
    """
    if not ids:
        return []
    rows = prepared.fetch(
        queries("feeds")["shown_posts"],
        {
            "ids": prepared.array(ids),
            "me": viewer_id,
            "likes": declared.get("posts.likes_count").key,
            "comments": declared.get("posts.comments_count").key,
            "shares": declared.get("posts.shares_count").key,
            "views": declared.get("posts.views_count").key,
        },
    )
    return [_post(row) for row in rows]


def person(person_id: int, viewer_id: int) -> dict[str, Any] | None:
    """Somebody as the viewer sees them; None where there is nobody, or they are blocked by them."""
    with connection.cursor() as cursor:
        cursor.execute(
            queries("feeds")["shown_person"],
            {
                "person": person_id,
                "me": viewer_id,
                "followers": declared.get("profiles.followers_count").key,
                "following": declared.get("profiles.following_count").key,
                "posts": declared.get("profiles.posts_count").key,
            },
        )
        names = [column.name for column in cursor.description]
        row = cursor.fetchone()
    if row is None:
        return None
    found = dict(zip(names, row, strict=True))
    found["id"] = found.pop("user_id")
    return None if found.pop("blocks_you") else found


def _post(row: tuple) -> dict[str, Any]:
    (
        post_id, kind, text, media, visibility, created_at, edited_at, author_id, handle, name,
        likes, comments, shares, views, liked, shared,
    ) = row  # fmt: skip
    return {
        "id": post_id,
        "kind": kind,
        "author": {"id": author_id, "handle": handle, "display_name": name},
        "text": text,
        "media": orjson.loads(media) if isinstance(media, str) else media,
        "visibility": visibility,
        "created_at": created_at,
        "edited_at": edited_at,
        "likes_count": likes,
        "comments_count": comments,
        "shares_count": shares,
        "views_count": views,
        "liked": liked,
        "shared": shared,
    }
