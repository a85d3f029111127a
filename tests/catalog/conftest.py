"""A filled catalog."""

from collections.abc import Callable

import pytest

from config import caching


@pytest.fixture
def stock(db) -> Callable[..., None]:
    """`stock({"product_name": …, "price": …}, …)` records snapshots and refreshes."""
    from catalog.actions import record_snapshots
    from config import readmodels

    def fill(*rows: dict) -> None:
        defaults = {
            "seller": "kritikos",
            "currency": "EUR",
            "scraped_at": "2025-11-10T06:00:00Z",
            "price": "1",
        }
        outcomes = record_snapshots(rows=[defaults | row for row in rows], source="test")
        assert {outcome.outcome for outcome in outcomes} <= {"accepted"}, outcomes
        for model in readmodels.select(["catalog"]):
            readmodels.refresh(model)
        caching.forget()

    return fill


@pytest.fixture
def ingest_token(db) -> str:
    """The secret of a token that may ingest."""
    from tests.people import Person

    return Person("scraper", ["ingest"]).secret
