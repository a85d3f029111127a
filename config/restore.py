"""Restoring a backup: into a new database beside the one in use, which it then replaces.

1. every file is read and compared with the manifest;
2. a database `<name>_restoring` is made and filled by pg_restore; every table must have the rows
   that the manifest says;
3. what belongs to the time of the backup is ended there: leases, running jobs; generations of read
   models are raised above all that any cache has seen;
4. in one transaction both databases are renamed. The old one stays as `<name>_before_<time>`.

Killed before the end of step 4, the database in use is what it was; the next run begins anew.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from django.db import connection, connections
from django.db.migrations.loader import MigrationLoader
from psycopg import sql

from config import backup, caching, pgtools, valkey
from config.backup import Backup, Manifest, Progress
from config.sqlfiles import queries

_LOCALES = {"b": "builtin", "c": "libc", "i": "icu"}
_LOCK = "spyglass restore"
NAME_BYTES = 63  # NAMEDATALEN - 1
LEAVING_SECONDS = 2  # a session that has ended, ours too, is listed a little longer


class RestoreError(Exception):
    """A backup was not restored; the database in use is what it was."""


@dataclass(frozen=True)
class Restored:
    """What a restore did. `kept`: the name that the old database has now; `left_out`: rights and
    settings of sessions that were not given; `behind`: migrations that the backup lacks."""

    rows: int
    kept: str
    left_out: list[str]
    behind: int


def check(found: Backup, progress: Progress) -> None:
    """Whether a backup is whole, and of no newer version than this one. Touches no database.

    Raises BackupError, RestoreError.
    """
    _check_migrations(found.manifest)
    backup.verify(found, progress)


def run(found: Backup, *, jobs: int, force: bool, discard: bool, progress: Progress) -> Restored:
    """Put a backup in the place of the database of DATABASE_URL.

    `force`: although that holds tables; it stays beside under another name unless `discard`. Its
    sessions are ended. Raises BackupError, RestoreError, ToolError, psycopg.Error.
    """
    pgtools.require_no_pooler("a restore")
    if valkey.attempt(lambda: valkey.client().ping(), None) is None:
        raise RestoreError("Valkey does not answer: start it first, because what it holds of the "
                           "old data must go, too")  # fmt: skip
    _check_migrations(found.manifest)
    connections.close_all()
    name = pgtools.parameters()["dbname"]
    with _maintenance() as server:
        _check_server(server, found.manifest)
        present = _is_present(server, name)
        if present and not force:
            _check_unused(server, name)
        backup.verify(found, progress)
        new = _beside(name, "_restoring")
        _create(server, new, found.manifest)
        try:
            left_out = _fill(server, new, found, jobs, progress)
            _settle(new, found.manifest)
            kept = _beside(name, f"_before_{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
            _swap(server, name if present else "", new, name, kept)
        except BaseException:
            _drop(server, new)
            raise
        if present and (discard or not _tables(kept)):
            _drop(server, kept)
            present = False
    _forget_caches()
    return Restored(
        rows=found.manifest.total_rows,
        kept=kept if present else "",
        left_out=left_out,
        behind=len(_missing(found.manifest)),
    )


def _beside(name: str, suffix: str) -> str:
    """A database's name with a suffix, as long as PostgreSQL takes names."""
    room = NAME_BYTES - len(suffix)  # suffixes are ASCII
    return name.encode()[:room].decode(errors="ignore") + suffix


@contextmanager
def _maintenance() -> Iterator[psycopg.Connection]:
    """A session of another database, as it takes to make and rename ours; one restore at a time."""
    for last, database in ((False, "postgres"), (True, "template1")):
        try:
            server = pgtools.connect(database)
        except psycopg.OperationalError:
            if last:
                raise
            continue
        break
    with server:
        [alone] = server.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [_LOCK]).fetchone()
        if not alone:
            raise RestoreError("another restore is at work on this server")
        yield server


def _check_server(server: psycopg.Connection, manifest: Manifest) -> None:
    here, there = server.info.server_version // 10_000, manifest.server_version // 10_000
    if here < there:
        raise RestoreError(f"the backup is of PostgreSQL {there}, this server is {here}: it takes "
                           "backups of its own version and older ones")  # fmt: skip
    if pgtools.check_version("pg_restore", here) < manifest.tool_version:
        raise RestoreError(f"the backup was written by pg_dump {manifest.tool_version}: set "
                           "POSTGRES_BIN to the folder of a pg_restore as new")  # fmt: skip
    [may] = server.execute(
        "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    if not may:
        raise RestoreError("a restore makes a database: ALTER ROLE … CREATEDB for "
                           f"{server.info.user}, or run it as another user")  # fmt: skip


def _check_migrations(manifest: Manifest) -> None:
    """Refuse what only newer code can read."""
    known = MigrationLoader(None).disk_migrations
    apps = {app for app, _ in known}
    unknown = [
        f"{app} {name}" for app, name in manifest.migrations if app in apps and (app, name) not in
        known
    ]  # fmt: skip
    if unknown:
        raise RestoreError(
            f"the backup is of a newer version ({manifest.version}): this one does not know "
            f"{', '.join(unknown[:5])}. Restore it with the version that made it, or a newer one"
        )


def _missing(manifest: Manifest) -> list[tuple[str, str]]:
    applied = {(app, name) for app, name in manifest.migrations}
    return [key for key in MigrationLoader(None).disk_migrations if key not in applied]


def _is_present(server: psycopg.Connection, name: str) -> bool:
    return (
        server.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is not None
    )


def _tables(database: str) -> int:
    with pgtools.connect(database) as target:
        return len(target.execute(queries("config")["backup_tables"]).fetchall())


def _check_unused(server: psycopg.Connection, name: str) -> None:
    if tables := _tables(name):
        raise RestoreError(f"the database {name} holds {tables} tables: --force puts the backup in "
                           "its place, and keeps it under another name")  # fmt: skip
    deadline = time.monotonic() + LEAVING_SECONDS
    while (sessions := _sessions(server, name)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if sessions:
        raise RestoreError(f"{sessions} sessions use the database {name}: stop what they belong to,"
                           " or say --force")  # fmt: skip


def _sessions(server: psycopg.Connection, name: str) -> int:
    return server.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = %s AND backend_type = 'client backend'",
        [name],
    ).fetchone()[0]


def _create(server: psycopg.Connection, name: str, manifest: Manifest) -> None:
    """An empty database with the encoding and the collation of the backup's."""
    _drop(server, name)
    made = manifest.database
    provider = _LOCALES[made["provider"]]
    statement = sql.SQL(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
        " LOCALE_PROVIDER {}"
    ).format(
        sql.Identifier(name), *(sql.Literal(made[one]) for one in ("encoding", "collate", "ctype")),
        sql.Identifier(provider),
    )  # fmt: skip
    if made["locale"]:
        statement += sql.SQL(" {} {}").format(
            sql.SQL(f"{provider.upper()}_LOCALE"), sql.Literal(made["locale"])
        )
    try:
        server.execute(statement)
    except psycopg.Error as error:
        raise RestoreError(f"a database like the backup's cannot be made: {error}") from error


def _fill(
    server: psycopg.Connection, name: str, found: Backup, jobs: int, progress: Progress
) -> list[str]:
    """Load everything and compare the rows; returns what was left out."""
    here = {role for (role,) in server.execute("SELECT rolname FROM pg_roles").fetchall()}
    absent = [role for role in found.manifest.roles if role not in here]
    left_out = [f"all rights: there is no role {', '.join(absent)}"] if absent else []
    source = str(found.folder / backup.DATABASE)
    listed = pgtools.output("pg_restore", ["--list", source]).splitlines()
    total = sum(1 for line in listed if line and not line.startswith(";"))
    loaded = 0

    def heard(line: str) -> None:
        nonlocal loaded
        if ": creating " in line or ": processing data " in line:
            loaded += 1
            progress("restoring", min(loaded, total), total)

    progress("restoring", 0, total)
    pgtools.run(
        "pg_restore",
        [
            "--format=directory", f"--jobs={jobs}", "--exit-on-error", "--no-owner",
            "--no-comments",
            *(["--no-privileges"] if absent else []), "--verbose", f"--dbname={name}", source,
        ],
        database=name, heard=heard,
    )  # fmt: skip
    progress("restoring", total, total)
    with pgtools.connect(name) as target:
        differing = [
            f"{table}: {here:,} of {there:,} rows"
            for table, here, there in _differences(backup.row_counts(target, progress),
                                                   found.manifest.rows)
        ]  # fmt: skip
        if differing:
            raise RestoreError("\n".join(["not all came back:", *differing]))
        progress("analyzing", 0, 1)
        target.execute("ANALYZE")
        progress("analyzing", 1, 1)
        left_out += _set_for_sessions(target, found.manifest, here)
    return left_out


def _differences(here: dict[str, int], there: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    for table in sorted(here.keys() | there.keys()):
        counts = here.get(table, 0), there.get(table, 0)
        if counts[0] != counts[1]:
            yield table, *counts


def _set_for_sessions(target: psycopg.Connection, manifest: Manifest, roles: set[str]) -> list[str]:
    """What the backup's database set for its sessions; returns what this user may not set."""
    refused = []
    database = sql.Identifier(target.info.dbname)
    for role, setting in manifest.settings:
        if role and role not in roles:
            continue
        name, _, value = setting.partition("=")
        whom = sql.SQL("DATABASE {}").format(database)
        if role:
            whom = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)
        try:
            # By way of this session: the catalogue writes lists otherwise than SET reads them.
            target.execute("SELECT set_config(%s, %s, false)", [name, value])
            target.execute(
                sql.SQL("ALTER {} SET {} FROM CURRENT").format(whom, sql.Identifier(name))
            )
        except psycopg.errors.InsufficientPrivilege:
            refused.append(f"{role or 'the database'}: {setting}")
    return refused


def _settle(name: str, manifest: Manifest) -> None:
    """End what was at work in the moment of the backup, and outdate what any cache holds.

    A generation is a number that only grows. After a restore it would grow again over numbers
    that caches and ETags know with other data: so it goes on from the milliseconds since 1970,
    which no counting reaches.
    """
    with pgtools.connect(name, autocommit=False) as target:
        target.execute("DELETE FROM config_lease")
        target.execute(
            "UPDATE config_jobrun SET state = 'succeeded', finished_at = %s"
            " WHERE state = 'running' AND job = 'backup'",
            [manifest.made_at],
        )
        target.execute(
            "UPDATE config_jobrun SET state = 'abandoned', finished_at = %s,"
            " error = 'It ran when the backup was made that this database was restored from.'"
            " WHERE state = 'running'",
            [manifest.made_at],
        )
        target.execute(
            "UPDATE config_readmodelstate SET generation = greatest(generation + 1, %s)",
            [time.time_ns() // 1_000_000],
        )
        target.commit()


def _swap(server: psycopg.Connection, old: str, new: str, name: str, kept: str) -> None:
    """Rename both in one transaction, while the sessions of the old one are ended."""
    done = threading.Event()
    ender = threading.Thread(
        target=_end_sessions, args=(server.info.dbname, [old, new], done), daemon=True
    )
    ender.start()
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    try:
        with server.transaction():
            if old:
                server.execute(rename.format(sql.Identifier(old), sql.Identifier(kept)))
            server.execute(rename.format(sql.Identifier(new), sql.Identifier(name)))
    finally:
        done.set()
        ender.join()


def _end_sessions(where: str, databases: list[str], done: threading.Event) -> None:
    """Until `done`. A rename keeps new sessions out while it waits for the last to end."""
    with pgtools.connect(where) as server:
        while not done.is_set():
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY (%s)",
                [databases],
            )
            done.wait(0.1)


def _drop(server: psycopg.Connection, name: str) -> None:
    server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _forget_caches() -> None:
    """Remove what Valkey holds of the old data; streams are no cache, their events count still."""
    client = valkey.client()
    pattern = valkey.prefixed("*")
    for kind in ("string", "hash", "set", "zset", "list"):
        for key in client.scan_iter(match=pattern, count=1_000, _type=kind):
            client.delete(key)
    caching.forget()
    connection.close()
