"""How many SQL statements each read costs: a baseline that may shrink, not grow.

`tests/query_counts.json` holds it: statements of an uncached answer, apart from the read models'
generations, which a process asks for every two seconds whatever the load.
"""

import json
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

BASELINE = Path(__file__).with_name("query_counts.json")
BUDGETS = json.loads(BASELINE.read_text())


@pytest.fixture
def filled(db, settings):
    from catalog.actions import record_snapshots
    from config import caching, readmodels

    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_THROTTLE_RATES": {"address": "off", "token": "off"},
    }
    record_snapshots(
        rows=[
            {"product_name": f"Tea {number}", "seller": seller, "price": "1", "currency": "EUR"}
            | {"scraped_at": "2025-11-10T06:00:00Z", "category_tags": [f"drinks-{number}"]}
            for number in range(30)
            for seller in "ab"
        ],
        source="test",
    )
    for model in readmodels.select():
        readmodels.refresh(model)
    caching.forget()
    caching.generation(())


@pytest.mark.parametrize("address", BUDGETS)
def test_query_count(filled, address):
    with CaptureQueriesContext(
        connection,
    ) as captured:
        response = Client().get(address)
    assert response.status_code == 200, response.content
    statements = [query["sql"] for query in captured if "config_readmodelstate" not in query["sql"]]
    listing = "\n\n".join(statements)
    assert len(statements) <= BUDGETS[address], (
        f"{address} costs {len(statements)} statements, {BUDGETS[address]} are in"
        f" {BASELINE.name}:\n\n{listing}"
    )
    assert len(statements) == BUDGETS[address], f"fewer than {BASELINE.name} says: lower it"


def test_every_read_has_a_baseline():
    from config.urls import domain_patterns

    known = {address.partition("?")[0] for address in BUDGETS}
    for pattern in domain_patterns():
        reads = hasattr(getattr(pattern.callback, "cls", None), "get")
        route = f"/api/v1/{pattern.pattern}".partition("<")[0]
        assert not reads or any(address.startswith(route) for address in known), (
            f"add {route} to {BASELINE.name}"
        )
