"""Examples for the OpenAPI document."""

POLL = {
    "source": "city-tables",
    "polled_at": "2026-02-18T17:03:00Z",
    "slots": [
        {
            "venue": "trattoria-alba",
            "slot_id": "alba-1930-2",
            "starts_at": "2026-02-20T19:30:00+01:00",
            "party_min": 2,
            "party_max": 4,
            "payload": {"area": "terrace"},
        }
    ],
    "venues": [
        {
            "key": "trattoria-alba",
            "name": "Trattoria Alba",
            "city": "Bonn",
            "latitude": 50.7374,
            "longitude": 7.0982,
        }
    ],
}
FAILED_POLL = {
    "source": "city-tables",
    "polled_at": "2026-02-18T17:04:00Z",
    "error": "HTTP 502 from the booking system",
}
POLL_REPORT = {
    "source": "city-tables",
    "polled_at": "2026-02-18T17:03:00Z",
    "outcome": "recorded",
    "buckets": 28,
    "slots": 1,
    "opened": ["alba-1930-2"],
    "closed": [],
    "outside": 0,
    "baseline": 0,
    "unchanged": 0,
    "missing": 0,
    "quarantined": 0,
    "spared": 0,
    "left_out": 0,
}
_VENUE = {"id": 12, "key": "trattoria-alba", "name": "Trattoria Alba", "city": "Bonn"}
_DROP = {
    "id": 90211,
    "event_type": "opened",
    "source": "city-tables",
    "slot_id": "alba-1930-2",
    "starts_at": "2026-02-20T18:30:00Z",
    "local_time": "19:30",
    "party_min": 2,
    "party_max": 4,
    "opened_at": "2026-02-18T17:03:00Z",
    "closed_at": None,
    "venue": _VENUE,
    "payload": {"area": "terrace"},
}
_SOURCES = [
    {
        "source": "city-tables",
        "last_success_at": "2026-02-18T17:03:00Z",
        "consecutive_failures": 0,
        "state": "fresh",
    }
]
FEED = {
    "as_of": "2026-02-18T17:03:01.204117Z",
    "sources": _SOURCES,
    "results": [_DROP | {"state": "open"}],
}
BOARD = {
    "as_of": "2026-02-18T17:03:01.204117Z",
    "sources": _SOURCES,
    "results": [
        {
            "venue": _VENUE,
            "score": 0.9128,
            "source": "city-tables",
            "slots": 1,
            "newest": "2026-02-18T17:03:00Z",
            "drops_ever": 7,
            "state": "open",
        }
    ],
}
NEW_DROPS = {
    "at": "2026-02-18T17:03:01.187204Z",
    "as_of": "2026-02-18T17:03:02.000311Z",
    "sources": _SOURCES,
    "more": False,
    "results": [_DROP | {"published_at": "2026-02-18T17:03:01.187204Z"}],
}
BUCKETS = {
    "as_of": "2026-02-18T17:03:02.000311Z",
    "results": [
        {
            "bucket_id": 41,
            "source": "city-tables",
            "day": "2026-02-20",
            "time_slot": "15:00",
            "open_slots": 1,
            "checked_at": "2026-02-18T17:03:00Z",
            "changed_at": "2026-02-18T17:03:00Z",
            "last_success_at": "2026-02-18T17:03:00Z",
            "consecutive_failures": 0,
            "state": "fresh",
        }
    ],
}
SOURCES = {
    "as_of": "2026-02-18T17:03:02.000311Z",
    "results": [
        {
            "source": "city-tables",
            "provider": "push",
            "is_paused": False,
            "consecutive_failures": 0,
            "last_success_at": "2026-02-18T17:03:00Z",
            "polled_at": "2026-02-18T17:03:00Z",
            "recorded_at": "2026-02-18T17:03:01.187204Z",
            "outcome": "recorded",
            "slots": 1,
            "opened": 1,
            "closed": 0,
            "open_slots": 1,
            "buckets": 28,
        }
    ],
}
PRUNED = {"results": [{"name": "drop_events", "rows": 1, "complete": True, "partitions": True}]}
