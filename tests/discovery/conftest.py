"""Callers of discovery."""

import pytest


@pytest.fixture
def feeder(db):
    """Somebody who may push polls: see `tests.people.Person`."""
    from tests.people import Person

    return Person("feeder", ["ingest"])
