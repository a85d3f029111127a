"""Examples for the OpenAPI document."""

_OFFER = {"price": "1.19", "seller": "kritikos", "prior_low": "1.49", "discount": "20.13"}
_CARD = {
    "slug": "coca-cola-330ml",
    "name": "Coca-Cola 330ml",
    "hero_image_url": "https://img.example/coca-cola.jpg",
    "category_tags": ["drinks"],
    "sellers": 3,
    "currency": "EUR",
    "price": "1.19",
    "prior_low": "1.49",
    "discount": "20.13",
    "offers": {"EUR": _OFFER},
    "is_available": True,
    "is_preorder": False,
    "updated_at": "2025-11-14T06:00:00Z",
}
CARD_PAGE = {
    "total": 1,
    "total_estimate": 1,
    "page": 1,
    "page_size": 50,
    "next": None,
    "previous": None,
    "next_cursor": None,
    "results": [_CARD],
}
PRODUCT = {
    "slug": "coca-cola-330ml",
    "name": "Coca-Cola 330ml",
    "hero_image_url": "https://img.example/coca-cola.jpg",
    "description": "",
    "category_tags": ["drinks"],
    "sellers": 1,
    "offers": {"EUR": _OFFER},
    "is_available": True,
    "is_preorder": False,
    "first_seen": "2025-10-01T06:00:00Z",
    "updated_at": "2025-11-14T06:00:00Z",
    "renamed_to": None,
    "resolution": "day",
    "series": [
        {
            "seller": "kritikos",
            "currency": "EUR",
            "name": "Coca-Cola 330ml",
            "product_code": "5449000000996",
            "is_available": True,
            "is_preorder": False,
            "price": "1.19",
            "price_at": "2025-11-14T06:00:00Z",
            "price_since": "2025-11-12T06:00:00Z",
            "previous_price": "1.49",
            "prior_low": "1.49",
            "discount": "20.13",
            "lowest": "1.19",
            "highest": "1.49",
            "first_seen": "2025-10-01T06:00:00Z",
            "last_seen": "2025-11-14T06:00:00Z",
            "observations": 45,
            "outliers": [],
            "points": [
                {
                    "at": "2025-11-14",
                    "first": "1.19",
                    "last": "1.19",
                    "low": "1.19",
                    "high": "1.19",
                }
            ],
            "truncated": False,
        }
    ],
}
SUGGESTIONS = {
    "results": [
        {
            "slug": "coca-cola-330ml",
            "name": "Coca-Cola 330ml",
            "hero_image_url": "https://img.example/coca-cola.jpg",
            "offers": {"EUR": _OFFER},
            "is_available": True,
            "is_preorder": False,
            "match": "similar",
        }
    ]
}
CATEGORIES = {"results": [{"tag": "drinks", "products": 812, "available": 640}]}
RECENT = {
    "results": [
        {
            "scraped_at": "2025-11-14T06:00:00Z",
            "slug": "coca-cola-330ml",
            "name": "Coca-Cola 330ml",
            "seller": "kritikos",
            "product_code": "5449000000996",
            "price": "1.19",
            "currency": "EUR",
            "is_available": True,
            "is_preorder": False,
        }
    ]
}
SNAPSHOTS = [
    {
        "product_name": "Coca-Cola 330ml",
        "product_code": "5449000000996",
        "seller": "kritikos",
        "price": "1.19",
        "currency": "EUR",
        "scraped_at": "2025-11-14T06:00:00Z",
    },
    {
        "product_name": "Milk 1lt",
        "seller": "kritikos",
        "price": "-1",
        "currency": "EUR",
        "scraped_at": "2025-11-14T06:00:00Z",
    },
]
REPORT = {
    "accepted": 1,
    "duplicate": 0,
    "conflict": 0,
    "rejected": 1,
    "rows": [
        {"row": 1, "outcome": "accepted"},
        {"row": 2, "outcome": "rejected", "reason": "price_not_positive", "field": "price"},
    ],
}
