"""Outages for the tests of the web platform."""

from collections.abc import Iterator

import pytest
from django.db import connections


@pytest.fixture
def unreachable_database(transactional_db) -> Iterator[None]:
    """Connections of this thread go to a socket folder where nobody listens."""
    connection = connections["default"]
    connection.close()
    host, port = connection.settings_dict["HOST"], connection.settings_dict["PORT"]
    connection.settings_dict.update(HOST="/nonexistent", PORT="1")
    yield
    connection.close()
    connection.settings_dict.update(HOST=host, PORT=port)
