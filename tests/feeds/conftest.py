"""People of feeds, and a process in which nobody has read."""

from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def _no_visits() -> None:
    """Nobody has been seen to read."""
    from feeds import timeline

    timeline._visited.clear()


@pytest.fixture
def profile(db) -> Callable:
    """`profile("ann")` is a person with a profile."""
    from tests.feeds.people import profile

    return profile
