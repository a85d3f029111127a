"""Callers of discovery, and a process that remembers nothing between tests."""

from collections.abc import Iterator

import pytest

from config import caching


@pytest.fixture(autouse=True)
def _fresh_process(settings) -> Iterator[None]:
    """Each test starts as a process that has seen nothing, and as callers without a limit."""
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_THROTTLE_RATES": {"address": "off", "token": "off"},
    }
    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    caching.forget()
    yield
    caching.forget()


@pytest.fixture
def feeder(db):
    """Somebody who may push polls: see `tests.matching.people.Person`."""
    from tests.matching.people import Person

    return Person("feeder", ["ingest"])


@pytest.fixture
def person(db):
    """`person("ann", "read")` is a caller with a token of that scope."""
    from tests.matching.people import Person

    return lambda name, *scopes: Person(name, list(scopes))
