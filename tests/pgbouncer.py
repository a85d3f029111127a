"""A real PgBouncer in transaction mode (Debian's package), in front of a PostgreSQL of ours."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.processes import until

BINARY = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin")
ADMIN = "spyglass"
PORT = 6432  # names its socket; it listens on no network


@dataclass(frozen=True)
class PgBouncer:
    """A running one, for one database."""

    folder: Path
    database: str

    def url(self, role: str) -> str:
        """The URL of the database through it."""
        return f"postgresql://{role}@/{self.database}?host={self.folder}&port={PORT}"

    def console(self, command: str) -> list[dict]:
        """What its console answers to `SHOW SERVERS`, `RECONNECT` …"""
        where = f"postgresql://{ADMIN}@/pgbouncer?host={self.folder}&port={PORT}"
        with psycopg.connect(
            where, autocommit=True, cursor_factory=psycopg.ClientCursor, row_factory=dict_row
        ) as admin:
            cursor = admin.execute(command)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running(database_url: str, roles: Iterable[str], *, pool_size: int = 5) -> Iterator[PgBouncer]:
    """A PgBouncer before the database of a URL (a socket folder as host), for these roles.

    `pool_size`: sessions on the server for each role. Skips the test where it is not installed.
    """
    if BINARY is None:
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    folder = Path(tempfile.mkdtemp(prefix="spyglass-pgbouncer-"))
    folder.chmod(0o711)  # as root it runs as another user, who must get through
    parts = urlsplit(database_url)
    server, name = parse_qs(parts.query)["host"][0], parts.path[1:]
    (folder / "users").write_text("".join(f'"{role}" ""\n' for role in {*roles, ADMIN}))
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host={server} dbname={name}\n"
        f"[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = {PORT}\n"
        f"auth_type = trust\nauth_file = {folder}/users\nadmin_users = {ADMIN}\n"
        f"pool_mode = transaction\ndefault_pool_size = {pool_size}\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    command = [BINARY, str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:
        nobody = Path(server).stat()  # whom PostgreSQL runs as: its socket is closed to others
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.st_uid, nobody.st_gid)
        drop = [f"--reuid={nobody.st_uid}", f"--regid={nobody.st_gid}", "--clear-groups"]
        command = ["setpriv", *drop, *command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        said = (folder / "log").read_text
        until((folder / f".s.PGSQL.{PORT}").exists, said, seconds=10, process=process)
        yield PgBouncer(folder, name)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
