"""Examples for the OpenAPI document."""

AUTHOR = {"id": 17, "handle": "anna", "display_name": "Anna Weiss"}
NEW_POST = {
    "text": "First light over the harbour.",
    "media": ["https://example.org/media/harbour.jpg"],
    "visibility": "public",
}
POST = {
    "id": 4711,
    "kind": "post",
    "author": AUTHOR,
    "text": NEW_POST["text"],
    "media": NEW_POST["media"],
    "visibility": "public",
    "created_at": "2025-11-14T06:00:00Z",
    "edited_at": None,
    "likes_count": 12,
    "comments_count": 3,
    "shares_count": 1,
    "views_count": 480,
    "liked": False,
    "shared": False,
}
PAGE = {"next_cursor": None, "results": [POST]}
FOUND = {
    "results": [POST | {"score": 1.21, "why": {"words": 0.06, "spelling": 1.0, "meaning": 0.71}}]
}
COMMENT = {
    "id": 90,
    "author": AUTHOR,
    "text": "Where is that?",
    "created_at": "2025-11-14T06:05:00Z",
    "edited_at": None,
}
COMMENT_PAGE = {"next_cursor": None, "results": [COMMENT]}
PERSON = AUTHOR | {
    "bio": "Harbours and mornings.",
    "is_private": False,
    "created_at": "2025-10-01T09:00:00Z",
    "followers_count": 310,
    "following_count": 42,
    "posts_count": 87,
    "followed": True,
    "follows_you": False,
    "muted": False,
    "blocked": False,
}
PEOPLE_PAGE = {"next_cursor": None, "results": [AUTHOR]}
