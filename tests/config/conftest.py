"""Outages for the tests of the web platform."""

from collections.abc import Iterator

import pytest
from django.db import connections

from config import caching
from config.embedded import ValkeyServer


@pytest.fixture
def own_valkey(valkey: ValkeyServer, settings) -> Iterator[ValkeyServer]:
    """The cache runs on a Valkey that the test may stop."""
    settings.REDIS_URL = valkey.url
    default = settings.CACHES["default"]
    options = {**default["OPTIONS"], "SOCKET_TIMEOUT": 0.25}  # the default of production
    settings.CACHES = {"default": {**default, "LOCATION": valkey.url, "OPTIONS": options}}
    caching.forget()
    yield valkey
    caching.forget()


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
