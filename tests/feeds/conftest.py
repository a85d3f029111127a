"""People of feeds, and a process that remembers nothing between tests."""

from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def _fresh(fresh_process: None) -> None:
    """Each test starts as a process that has seen nothing, and as callers without a limit."""
    from feeds import timeline

    timeline._visited.clear()


@pytest.fixture
def profile(db) -> Callable:
    """`profile("ann")` is a person with a profile."""
    from tests.feeds.people import profile

    return profile
