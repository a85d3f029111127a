"""Examples for the OpenAPI document."""

NEW_ITEM = {
    "kind": "lost",
    "title": "Black iPhone 12 with a red case",
    "description": "Left on bus 9 near Commercial Drive. The screen has a crack.",
    "category": "phones",
    "attributes": {"colour": "black", "brand": "Apple"},
    "country": "CA",
    "city": "Vancouver",
    "latitude": 49.2626,
    "longitude": -123.0695,
    "happened_on": "2025-11-13",
}
_PLACED = {
    "id": 4711,
    "kind": "lost",
    "status": "open",
    "category": "phones",
    "title": NEW_ITEM["title"],
    "description": NEW_ITEM["description"],
    "attributes": NEW_ITEM["attributes"],
    "country": "CA",
    "city": "Vancouver",
}
OWN_ITEM = _PLACED | {
    "latitude": 49.2626,
    "longitude": -123.0695,
    "geohash": "c2b2przx2",
    "happened_on": "2025-11-13",
    "created_at": "2025-11-14T06:00:00Z",
    "updated_at": "2025-11-14T06:00:00Z",
    "expires_at": None,
}
_TASK = "0199c8a4-3f0e-7d52-9d3e-6f1f0a6b4c11"
WRITTEN_ITEM = OWN_ITEM | {"match_task": _TASK}
OWN_ITEM_PAGE = {"next_cursor": None, "results": [OWN_ITEM]}
ITEM_CHANGES = {"title": NEW_ITEM["title"], "status": "open"}
_FOUND = _PLACED | {
    "id": 4811,
    "kind": "found",
    "title": "iPhone in a red cover",
    "description": "Found under a seat.",
    "attributes": {"colour": "black"},
    "cell": "c2b2pr",
    "happened_on": "2025-11-14",
    "created_at": "2025-11-14T08:30:00Z",
}
_COMPONENTS = [
    {"name": "words", "raw": 0.61, "weight": 0.34, "contribution": 0.2074},
    {"name": "meaning", "raw": 0.83, "weight": 0.26, "contribution": 0.2158},
    {"name": "distance", "raw": 0.97, "weight": 0.25, "contribution": 0.2425},
    {"name": "date", "raw": 0.9, "weight": 0.15, "contribution": 0.135},
]
MATCH = {
    "id": 902,
    "pair": "lost_found",
    "state": "suggested",
    "score": 0.8007,
    "components": _COMPONENTS,
    "degraded": "",
    "confirmed_at": "2025-11-14T09:00:00Z",
    "other_confirmed_at": None,
    "found_at": "2025-11-14T08:30:01Z",
    "scored_at": "2025-11-14T08:30:01Z",
    "item": _FOUND,
}
DISMISSED_MATCH = MATCH | {"state": "dismissed", "confirmed_at": None}
MATCH_PAGE = {"next_cursor": None, "results": [MATCH]}
JOB = {
    "task_id": _TASK,
    "state": "queued",
    "progress": "",
    "ahead": 3,
    "attempts": 0,
    "item": 4711,
    "submitted_at": "2025-11-14T08:30:00Z",
    "started_at": None,
    "finished_at": None,
    "expires_at": None,
}
JOB_RESULT = JOB | {
    "state": "done",
    "ahead": None,
    "attempts": 1,
    "started_at": "2025-11-14T08:30:00.050Z",
    "finished_at": "2025-11-14T08:30:00.190Z",
    "expires_at": "2025-11-15T08:30:00.190Z",
    "degraded": "",
    "error": "",
    "routes": {"words": 84, "titles": 12, "category": 31, "place": 60, "vectors_graph": 60},
    "results": [{"match": 902, "score": 0.8007, "components": _COMPONENTS, "item": _FOUND}],
}
SEARCH_PAGE = {
    "next_cursor": None,
    "degraded": "",
    "results": [{"score": 0.8007, "components": _COMPONENTS, "item": _FOUND}],
}
RECENT = {"results": [_FOUND]}
BADGES = {
    "open_items": 3,
    "matches_to_review": 5,
    "matches_awaiting_me": 1,
    "matches_confirmed": 0,
    "unread_notifications": 1,
}
NOTIFICATION_PAGE = {
    "next_cursor": None,
    "results": [
        {
            "id": 17,
            "subject": "confirmed_by_other",
            "created_at": "2025-11-14T09:00:00Z",
            "read_at": None,
            "item": {"id": 4711, "title": NEW_ITEM["title"]},
            "other": {"id": 4811, "title": "iPhone in a red cover"},
        }
    ],
}
