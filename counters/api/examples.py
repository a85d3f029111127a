"""Examples for the OpenAPI document."""

EVENTS = {
    "events": [
        {
            "id": "8f6f3f0e-6c1d-4d52-9d3e-6f1f0a6b4c11",
            "type": "post_view",
            "target": 4711,
            "at": "2025-11-14T06:00:00Z",
        },
        {
            "id": "0b8f2f3c-52cf-4d0c-8a33-0a6f5a0a1c55",
            "type": "post_impression",
            "target": 4712,
            "at": "2025-11-14T06:00:01Z",
        },
    ]
}
