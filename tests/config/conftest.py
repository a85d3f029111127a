"""Outages and archives for the tests of the web platform."""

import uuid
from collections.abc import Iterator

import pytest
from django.db import connections

from config import stores


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


@pytest.fixture
def folder(settings, tmp_path):
    """An archive in a directory."""
    settings.ARCHIVE_URL = str(tmp_path)
    return tmp_path


@pytest.fixture
def bucket(settings, monkeypatch):
    """An archive behind the S3 API of a server on loopback."""
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a-secret-for-tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings.ARCHIVE_S3_ENDPOINT = f"http://{host}:{port}"
    name = f"archive-{uuid.uuid4().hex}"  # the servers of one process share what they hold
    settings.ARCHIVE_URL = f"s3://{name}/old"
    stores.get()._fs.mkdir(name)
    yield server
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def store(request):
    """Each kind of archive in turn."""
    request.getfixturevalue(request.param)
    return stores.get()
