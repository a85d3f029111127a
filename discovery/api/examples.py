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
NEW_WATCH = {
    "name": "Dinner for two",
    "venues": [17],
    "date_from": "2026-02-18",
    "date_to": "2026-02-28",
    "weekdays": [5, 6],
    "time_from": "18:30",
    "time_to": "21:00",
    "party_size": 2,
    "channel": "webhook",
    "target": "https://example.org/hooks/openings",
    "timezone": "Europe/Berlin",
    "quiet_from": "23:00",
    "quiet_to": "07:00",
}
WATCH = (
    {"id": 4711, "is_active": True, "source": None}
    | NEW_WATCH
    | {
        "latitude": None,
        "longitude": None,
        "radius_m": None,
        "cooldown_seconds": 300,
        "max_per_hour": 12,
        "last_told_at": None,
        "created_at": "2026-02-17T09:30:00Z",
        "updated_at": "2026-02-17T09:30:00Z",
    }
)
WATCH_SECRET = {"secret": "5T0mJ8yL1a0Zk3v9cV7QmW2xR4nB6hD8fG1jK3lP5s0"}
WATCH_NOTIFICATION = {
    "id": 90210,
    "state": "sent",
    "created_at": "2026-02-17T10:00:01Z",
    "told_at": "2026-02-17T10:00:03Z",
    "attempts": 1,
    "error": "",
    "message_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "already_gone": False,
    "drop": {
        "id": 123456,
        "event_type": "opened",
        "source": "tables",
        "slot_id": "bistro-nord|2026-02-20T19:30:00",
        "starts_at": "2026-02-20T18:30:00Z",
        "local_time": "19:30",
        "party_min": 2,
        "party_max": 4,
        "opened_at": "2026-02-17T10:00:00Z",
        "closed_at": None,
        "venue": {"id": 17, "key": "bistro-nord", "name": "Bistro Nord", "city": "Berlin"},
    },
}
