"""A process that remembers nothing between tests."""

import pytest


@pytest.fixture(autouse=True)
def _fresh(fresh_process: None) -> None:
    """Each test starts as a process that has seen nothing, and as callers without a limit."""
