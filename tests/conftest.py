"""Every run has a PostgreSQL and a Valkey of its own, so that runs never meet.

With DATABASE_URL or REDIS_URL in the environment those are used instead. pytest-django makes and
drops the test database on them.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from config.embedded import PostgresServer, ValkeyServer
from tests.processes import kill, kill_marked

if TYPE_CHECKING:
    from tests.people import Person

pytest_plugins = ["tests.browser"]

PROJECT = Path(__file__).resolve().parent.parent
PREFIX = "spyglass-tests-"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the servers before Django reads its settings, and stop them at the end."""
    if config.option.help:
        return
    # Run in the background or by nohup, these are ignored, and every child would inherit that.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    _remove_dead_runs()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o711)  # as root the servers run as another user, who must get through
    alive = os.open(folder / "alive.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(alive, fcntl.LOCK_EX)
    config.add_cleanup(lambda: _remove_run(folder))
    for variable, server in _servers(folder).items():
        if variable not in os.environ:
            server.start()
            os.environ[variable] = server.url
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # xdist's processes share these servers, and set up the rest each for itself
    os.environ["SPYGLASS_VAR"] = str(folder / "var")
    os.environ["CACHE_PREFIX"] = f"tests-{uuid.uuid4().hex}"
    os.environ["CACHE_TIMEOUT"] = "10"  # a busy machine must not look like an outage
    os.environ.setdefault("SECRET_KEY", "a-key-for-tests-only")
    os.environ["SPYGLASS_EMBEDDED"] = "1"
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    from django.conf import settings

    assert settings.DATABASES  # reads the settings: pytest-django sets Django up only after that


# The longest, the longest of all at the head: several processes must begin with them, so that none
# is left alone with one of them at the end.
_FIRST = (
    "test_upgrade.py",
    "test_backup.py",
    "test_archive_domains.py",
    "test_scripts.py",
    "test_chaos.py",
    "test_schema.py",
    "test_poller.py",
    "test_queue_faults.py",
    "test_fold.py",
    "test_admin_browser.py",
    "test_query_counts.py",
    "test_recordings.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `--no-loadscope-reorder` keeps that order."""
    place = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(_FIRST)))


def _servers(folder: Path) -> dict[str, PostgresServer | ValkeyServer]:
    return {
        "DATABASE_URL": PostgresServer(folder / "pg", fast=True),
        "REDIS_URL": ValkeyServer(folder / "valkey"),
    }


def _remove_run(folder: Path) -> None:
    for server in _servers(folder).values():
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _remove_dead_runs() -> None:
    """Stop and delete what a killed run left: its lock is free."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another run removes it too, or it is another user's
            lock = os.open(folder / "alive.lock", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_run(folder)
            finally:
                os.close(lock)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker) -> Iterator[None]:
    """pytest-django's, and at the end nobody may hold the test database open."""
    yield
    from django.db import connection

    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    """No test sees what another one cached."""
    from django.core.cache import cache

    from config import caching

    cache.delete_pattern("*")
    caching.forget()


@pytest.fixture
def fresh_process(settings) -> Iterator[None]:
    """A process that has seen nothing, without a limit of requests and without TLS."""
    from config import caching

    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_THROTTLE_RATES": {"address": "off", "token": "off"},
    }
    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    caching.forget()
    yield
    caching.forget()


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    """So begins each test of a domain. Those of the platform say what they need."""
    if request.path.parent.name not in ("tests", "config"):
        request.getfixturevalue("fresh_process")


@pytest.fixture
def only_new_partitions(django_db_setup, django_db_blocker) -> None:
    """No partition past retention is there, whatever other tests of this process have left.

    Over a connection of its own: it may be asked for inside of a test's transaction.
    """
    import psycopg
    from django.db import connection

    from config import partitions

    with django_db_blocker.unblock():
        found = [
            (table, part.name) for table in partitions.all() for part in partitions.expired(table)
        ]
        parameters = connection.get_connection_params()
    where = {name: parameters[name] for name in ("dbname", "user", "host") if name in parameters}
    with psycopg.connect(**where, autocommit=True) as other:
        for table, name in found:
            other.execute(f"ALTER TABLE {table} DETACH PARTITION {name}")
            other.execute(f"DROP TABLE {name}")


@pytest.fixture
def person(db: None) -> "Callable[..., Person]":
    """`person("ann")` is a caller with a token for `items`, or for the scopes that are named."""
    from tests.people import Person

    return lambda name, *scopes: Person(name, list(scopes) or ["items"])


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A running PostgreSQL that the test may stop or kill."""
    server = PostgresServer(_server_folder(tmp_path_factory, "pg"), fast=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A running Valkey that the test may stop or kill."""
    server = ValkeyServer(_server_folder(tmp_path_factory, "valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey(valkey: ValkeyServer, settings) -> Iterator[ValkeyServer]:
    """The cache runs on a Valkey that the test may stop."""
    from config import caching

    settings.REDIS_URL = valkey.url
    default = settings.CACHES["default"]
    options = {**default["OPTIONS"], "SOCKET_TIMEOUT": 0.25}  # the default of production
    settings.CACHES = {"default": {**default, "LOCATION": valkey.url, "OPTIONS": options}}
    caching.forget()
    yield valkey
    caching.forget()


def _server_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    return factory.mktemp(name, numbered=True) / "server"


@pytest.fixture
def database_url(transactional_db: None) -> str:
    """The URL of the test database, for other processes; the test's data is committed."""
    from django.db import connection

    name = connection.settings_dict["NAME"]
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}"))


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], object]], int]]:
    """`fork(work)` is the id of a process that does `work()`: forked from this one, so that it is
    there at once, and has what this one has imported and set. Killed after the test.
    """
    from django.db import connections

    pids = []

    def start(work: Callable[[], object]) -> int:
        connections.close_all()
        pid = os.fork()
        if pid:
            pids.append(pid)
            return pid
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)

    yield start
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            kill(pid)


Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn(database_url: str) -> Iterator[Spawn]:
    """`spawn(["worker", …], NAME=value, …)` runs manage.py on the test database.

    Standard output and error are text pipes; `stdin`, `stdout` and `stderr` go to Popen, other
    keywords into the environment. Whatever it started is killed after the test, grandchildren in
    sessions of their own included.
    """
    mark = uuid.uuid4().hex
    started = []

    def start(
        args: list[str],
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
        **environment: str,
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), *map(str, args)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            cwd=PROJECT,
            env=os.environ | {"DATABASE_URL": database_url, "SPYGLASS_SPAWN": mark} | environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    kill_marked(mark)
    for process in started:
        process.communicate()
