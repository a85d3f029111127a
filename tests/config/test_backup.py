"""Backups of a real server: whole or not there; restored into others, and compared."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from django.core.management import CommandError, call_command
from redis import Redis

from config import backup
from config.servers import PostgresServer, ValkeyServer
from tests.conftest import PROJECT
from tests.processes import LITTLE_DEMO, killing, until

# What says when something ran, and so is another after a restore.
OF_THE_MOMENT = {
    "public.config_heartbeat",
    "public.config_jobrun",
    "public.config_lease",
    "public.config_readmodelstate",
    "public.config_tally",
}


class Place:
    """A PostgreSQL and a Valkey of a test's own, and who runs commands there."""

    def __init__(self, folder: Path, valkey: ValkeyServer):
        self.postgres = PostgresServer(folder / "server", fast=True)
        self.postgres.start()
        self.environment = os.environ | {
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": valkey.url,
            "SPYGLASS_VAR": str(folder),
            "CACHE_PREFIX": folder.name,
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=PROJECT,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def manage(self, *arguments: object, code: int = 0, **environment: str) -> str:
        """What a command prints, both streams."""
        process = self.start("manage.py", *map(str, arguments), **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, out + err
        return out + err

    def run(self, code: str, status: int = 0) -> None:
        """Run code in a process of the project."""
        process = self.start("-c", f"import django\ndjango.setup()\n{code}")
        _, err = process.communicate(timeout=120)
        assert process.returncode == status, err

    def killed(self, step: str, when: str, statement: str) -> None:
        """Run `statement` in a process that kills itself before or after `step`."""
        names = "from pathlib import Path\nfrom config import backup, pgtools, restore"
        self.run(f"{names}\n{killing(when, step)}\n{statement}", -signal.SIGKILL)

    def connect(self, database: str = "") -> psycopg.Connection:
        path = f"/{database}?" if database else "/spyglass?"
        return psycopg.connect(self.postgres.url.replace("/spyglass?", path), autocommit=True)

    def databases(self) -> list[str]:
        with self.connect("postgres") as server:
            found = server.execute(
                "SELECT datname FROM pg_database WHERE datname ~ 'spyglass' ORDER BY 1"
            )
            return [name for (name,) in found.fetchall()]

    def empty(self) -> None:
        """As if nothing had been there."""
        with self.connect("postgres") as server:
            for name in self.databases():
                server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            server.execute("CREATE DATABASE spyglass")

    def fill(self) -> None:
        """Something that must not be lost."""
        with self.connect() as session:
            session.execute("CREATE TABLE precious AS SELECT 'kept' AS name")

    def contents(self) -> dict[str, tuple[int, str]]:
        """(rows, a sum over them) of every table, except what says when something ran."""
        with self.connect() as session:
            return {
                name: session.execute(
                    "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text"
                    f" FROM {name} AS t"
                ).fetchone()
                for name in backup.row_counts(session)
                if name not in OF_THE_MOMENT
            }


@pytest.fixture(scope="module")
def valkey(tmp_path_factory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey") / "server")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def source(tmp_path_factory, valkey) -> Iterator[Place]:
    """All five domains, with the data of the demo."""
    place = Place(tmp_path_factory.mktemp("source"), valkey)
    place.manage("migrate", "-v0")
    load = "from django.core.management import call_command; call_command('demo', verbosity=0)"
    place.run(f"{LITTLE_DEMO}\n{load}")
    yield place
    place.postgres.stop()


@pytest.fixture(scope="module")
def made(source, tmp_path_factory) -> Path:
    """A backup of it."""
    root = tmp_path_factory.mktemp("made")
    source.manage("backup", root)
    [folder] = root.iterdir()
    return folder


@pytest.fixture(scope="module")
def _other(tmp_path_factory, valkey) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("other"), valkey)
    yield place
    place.postgres.stop()


@pytest.fixture
def other(_other) -> Place:
    """Another server, with an empty database."""
    _other.empty()
    return _other


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy of the backup, which a test may damage."""
    return Path(shutil.copytree(made, tmp_path / made.name))


def test_an_empty_server_takes_it_and_every_read_model_agrees(source, made, other):
    before = source.contents()
    assert len(before) > 100
    said = other.manage("restore", made, "--jobs", "3")
    assert "next: manage.py reconcile" in said
    assert other.databases() == ["spyglass"]
    after = other.contents()
    for table, rows in before.items():
        if table != "public.django_migrations" and not table.startswith("public.staff_actions"):
            assert after[table] == rows, table
    said = other.manage("reconcile")
    assert said.count("equal") == len(said.splitlines()) >= 10
    other.manage("migrate", "--check")
    assert "all applied" in other.manage("doctor", code=1)


def test_what_writers_do_meanwhile_is_of_one_moment(source, other, tmp_path):
    stop = threading.Event()

    def write() -> None:
        with source.connect() as session:
            while not stop.is_set():
                with session.transaction():  # both or none
                    for key in ("a", "b"):
                        session.execute(
                            "INSERT INTO vital_samples (key, at, value)"
                            " VALUES (%s, clock_timestamp(), 1)",
                            [f"writer {key}"],
                        )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        source.manage("backup", tmp_path, "--jobs", "4")
    finally:
        stop.set()
        writer.join()
    [folder] = tmp_path.iterdir()
    other.manage("restore", folder)
    with other.connect() as session:
        counts = session.execute(
            "SELECT count(*) FILTER (WHERE key = 'writer a'),"
            " count(*) FILTER (WHERE key = 'writer b') FROM vital_samples"
        ).fetchone()
    assert counts[0] == counts[1] > 0


def test_what_holds_tables_is_replaced_by_force_alone_and_kept(made, other):
    other.fill()
    said = other.manage("restore", made, code=1)
    assert "the database spyglass holds 1 tables: --force" in said
    with other.connect() as used:
        said = other.manage("restore", made, "--force")
        with pytest.raises(psycopg.OperationalError):
            used.execute("SELECT 1")
    kept, now = sorted(other.databases(), key=len, reverse=True)
    assert now == "spyglass"
    assert f'DROP DATABASE "{kept}"' in said
    with other.connect() as session:
        assert session.execute("SELECT to_regclass('precious')").fetchone() == (None,)
        actor = session.execute(
            "SELECT actor, entity_id FROM staff_actions WHERE action = 'restore'"
        ).fetchone()
        assert actor[1] == made.name
    with other.connect(kept) as session:
        assert session.execute("SELECT name FROM precious").fetchone() == ("kept",)


def test_sessions_of_an_empty_database_are_not_ended_unasked(made, other):
    with other.connect() as used:
        assert "1 sessions use the database" in other.manage("restore", made, code=1)
        assert used.execute("SELECT 1").fetchone() == (1,)


def test_caches_are_emptied_and_outdated_but_events_stay(source, made, other, valkey):
    client = Redis.from_url(valkey.url)
    prefix = other.environment["CACHE_PREFIX"]
    for name in (f"{prefix}:1:answer", "of-others:1:answer"):
        client.set(name, "old")
    client.hset(f"{prefix}:1:items:public", "1", "old")
    client.xadd(f"{prefix}:1:counters:events", {"events": "[]"})
    with other.connect("postgres") as server:  # where there is no database, one is made
        server.execute("DROP DATABASE spyglass")
    other.manage("restore", made)
    assert other.databases() == ["spyglass"]
    assert client.keys(f"{prefix}:*") == [f"{prefix}:1:counters:events".encode()]
    assert client.get("of-others:1:answer") == b"old"
    query = "SELECT name, generation FROM config_readmodelstate ORDER BY name"
    with source.connect() as before, other.connect() as after:
        old = dict(before.execute(query).fetchall())
        new = dict(after.execute(query).fetchall())
        [running] = after.execute(
            "SELECT count(*) FROM config_jobrun WHERE state = 'running'"
        ).fetchone()
    assert old.keys() == new.keys()
    assert all(new[name] > max(old[name], 1_700_000_000_000) for name in old)
    assert running == 0


def test_without_valkey_nothing_is_touched(made, other):
    said = other.manage("restore", made, code=1, REDIS_URL="redis://127.0.0.1:1/0")
    assert "Valkey does not answer" in said
    assert other.databases() == ["spyglass"]


def _flip(folder: Path) -> str:
    path = max((folder / "database").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return f"{path.name}: "


def _remove(folder: Path) -> str:
    next((folder / "database").glob("*.dat.gz")).unlink()
    return "No such file"


def _truncate(folder: Path) -> str:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])
    return "manifest.json is damaged"


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tamper(folder: Path) -> str:
    _edit(folder, rows={})
    return "the checksum differs"


def _newer_format(folder: Path) -> str:
    _edit(folder, format=2)
    return "has format 2"


@pytest.mark.parametrize("damage", [_flip, _remove, _truncate, _tamper, _newer_format])
def test_a_damaged_backup_is_known(copy, damage):
    reason = damage(copy)
    with pytest.raises(backup.BackupError) as caught:
        backup.verify(backup.load(copy))
    assert reason in str(caught.value)


def test_a_damaged_backup_is_refused_before_anything_happens(copy, other):
    reason = _flip(copy)
    assert reason in other.manage("restore", copy, "--check", code=1)
    assert reason in other.manage("restore", copy, code=1)
    assert other.databases() == ["spyglass"]
    assert other.contents() == {}


def _resealed(folder: Path, **changes: object) -> None:
    """A manifest that says something else and is whole."""
    manifest = backup.load(folder).manifest
    values = {name: getattr(manifest, name) for name in manifest.__dataclass_fields__} | changes
    sealed = backup.Manifest(**values | {"checksum": ""})
    sealed = backup.Manifest(**values | {"checksum": backup._checksum(sealed)})
    (folder / "manifest.json").write_text(backup._text(sealed))


def test_a_backup_of_newer_code_or_a_newer_server_is_refused(copy, other):
    _resealed(copy, migrations=[["matching", "0999_future"]])
    assert "does not know matching 0999_future" in other.manage("restore", copy, code=1)
    _resealed(copy, migrations=[], server_version=990_001)
    assert "of PostgreSQL 99" in other.manage("restore", copy, code=1)
    assert other.databases() == ["spyglass"]


def test_rows_that_do_not_come_back_are_noticed(copy, other):
    rows = backup.load(copy).manifest.rows
    _resealed(copy, rows=rows | {"public.items": rows["public.items"] + 1})
    said = other.manage("restore", copy, code=1)
    assert f"public.items: {rows['public.items']:,} of {rows['public.items'] + 1:,} rows" in said
    assert other.databases() == ["spyglass"]
    assert other.contents() == {}


def test_rights_of_a_role_that_is_not_here_are_left_out_and_said(source, other, tmp_path):
    with source.connect() as session:
        session.execute("CREATE ROLE reader; GRANT SELECT ON items TO reader")
        session.execute("ALTER ROLE reader IN DATABASE spyglass SET search_path = '$user', public")
    source.manage("backup", tmp_path)
    [folder] = tmp_path.iterdir()
    assert "there is no role reader" in other.manage("restore", folder)
    other.empty()
    with other.connect() as session:
        session.execute("CREATE ROLE reader")
    assert "left out" not in other.manage("restore", folder)
    with other.connect() as session:
        assert session.execute(
            "SELECT has_table_privilege('reader', 'items', 'SELECT')"
        ).fetchone()[0]
        [kept] = session.execute(
            "SELECT setconfig FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole"
            " WHERE rolname = 'reader'"
        ).fetchone()
        assert kept == ['search_path="$user", public']
    other.empty()
    with other.connect() as session:
        session.execute("DROP ROLE reader")


def test_a_backup_killed_at_any_step_is_not_there(source, tmp_path):
    for when, step in [
        ("before", "pgtools.run"),
        ("after", "pgtools.run"),
        ("after", "backup.row_counts"),
        ("after", "backup._seal"),
        ("after", "backup._write_through"),
    ]:
        source.killed(step, when, f"backup.make(Path({str(tmp_path)!r}), jobs=2)")
        assert [path.name[:8] for path in tmp_path.iterdir()] == [".making-"], step
        assert backup.found(tmp_path) == []
    source.manage("backup", tmp_path)
    [folder] = tmp_path.iterdir()
    source.manage("restore", folder, "--check")


def test_pg_dump_ends_with_a_killed_backup(source, tmp_path):
    with source.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        process = source.start("manage.py", "backup", str(tmp_path))
        until(lambda: _sessions(source, "pg_dump"), "pg_dump")
        process.kill()
        process.communicate()
    until(lambda: not _sessions(source, "pg_dump"), "the end of pg_dump")
    source.manage("backup", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def _sessions(place: Place, application: str) -> int:
    with place.connect("postgres") as server:
        return server.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [application]
        ).fetchone()[0]


def test_two_at_once_are_one(source, tmp_path):
    with source.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        first = source.start("manage.py", "backup", str(tmp_path))
        until(lambda: _sessions(source, "pg_dump"), "pg_dump")
        assert "backup skipped: process" in source.manage("backup", tmp_path, code=1)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err


def test_a_restore_killed_before_the_swap_leaves_what_was_there(source, made, other):
    other.fill()
    before = other.contents()
    statement = (
        f"restore.run(backup.load(Path({str(made)!r})), jobs=2, force=True, discard=True,"
        " progress=lambda *a: None)"
    )
    for when, step in [
        ("after", "restore._create"),
        ("after", "pgtools.run"),
        ("after", "restore._settle"),
        ("before", "restore._swap"),
    ]:
        other.killed(step, when, statement)
        assert other.contents() == before, step
    other.killed("restore._swap", "after", statement)
    assert other.contents()["public.items"] == source.contents()["public.items"]
    assert len(other.databases()) == 2
    kept = set(other.databases()) - {"spyglass"}
    other.manage("restore", made, "--force", "--discard")
    assert set(other.databases()) == {"spyglass", *kept}
    assert other.contents()["public.items"] == source.contents()["public.items"]


def test_two_installations_in_one_directory_leave_each_other_alone(source, other, tmp_path):
    """The names of databases tell whose a backup is; a lock of the directory, who is at work."""
    other.manage("migrate", "-v", "0")
    with other.connect("postgres") as server:
        server.execute("CREATE DATABASE spyglass_two TEMPLATE spyglass")
    url = other.postgres.url.replace("/spyglass?", "/spyglass_two?")
    with source.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        first = source.start("manage.py", "backup", str(tmp_path))
        until(lambda: _sessions(source, "pg_dump"))
        said = other.manage("backup", tmp_path, code=1, DATABASE_URL=url)
        assert f"another backup is at work below {tmp_path}" in said
    assert first.wait(60) == 0
    _next_second()
    assert "removed" not in other.manage("backup", tmp_path, "--keep", 1, DATABASE_URL=url)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_long_name_of_a_database_has_room_for_what_is_put_beside(source, other, tmp_path):
    name = "spyglass_" + "ä" * 27  # 63 bytes
    with other.connect("postgres") as server:
        server.execute(f'CREATE DATABASE "{name}"')
    with other.connect(name) as session:
        session.execute("CREATE TABLE precious AS SELECT 'kept' AS name")
    url = other.postgres.url.replace("/spyglass?", f"/{quote(name)}?")
    source.manage("backup", tmp_path)
    [folder] = tmp_path.iterdir()
    said = other.manage("restore", folder, "--force", DATABASE_URL=url)
    [kept] = [one for one in other.databases() if "_before_" in one]
    assert f'DROP DATABASE "{kept}"' in said
    assert len(kept.encode()) <= 63
    with other.connect(kept) as session:
        assert session.execute("SELECT name FROM precious").fetchone() == ("kept",)
    with other.connect(name) as session:
        assert session.execute("SELECT count(*) FROM django_migrations").fetchone()[0] > 50


def test_a_full_disk_leaves_nothing_behind(source, tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "sys.argv = ['manage.py', 'backup', sys.argv[1]]; import manage; manage.main()"
    )
    process = source.start("-c", code, str(tmp_path))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "pg_dump failed" in err
    assert list(tmp_path.iterdir()) == []


def _next_second() -> None:
    """When the next backup has another name."""
    time.sleep(1 - time.time() % 1)


def test_only_the_newest_are_kept_and_nothing_else_is_touched(source, tmp_path):
    (tmp_path / "spyglass-notes").mkdir()
    names = []
    for _ in range(3):
        said = source.manage("backup", tmp_path, "--keep", "2")
        names.append(Path(said.partition(":")[0]).name)
        _next_second()
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names[1:], "spyglass-notes"]
    assert f"removed {names[0]}" in said
    assert oct((tmp_path / names[1]).stat().st_mode)[-3:] == "700"
    assert {oct(path.stat().st_mode)[-3:] for path in (tmp_path / names[1]).rglob("*.gz")} == {
        "600"
    }


def test_the_job_backs_up_where_it_may(source, tmp_path):
    assert "BACKUP_DIR is not set" in source.manage("run_job", "backup", code=1)
    source.manage("run_job", "backup", BACKUP_DIR=str(tmp_path), BACKUP_KEEP="1")
    _next_second()
    source.manage("run_job", "backup", BACKUP_DIR=str(tmp_path), BACKUP_KEEP="1")
    [folder] = tmp_path.iterdir()
    source.manage("restore", folder, "--check")
    source.manage("sync_schedules")
    with source.connect() as session:
        query = "SELECT count(*) FROM django_q_schedule WHERE name = 'job:backup'"
        assert session.execute(query).fetchone() == (0,)
        source.manage("sync_schedules", BACKUP_DIR=str(tmp_path))
        assert session.execute(query).fetchone() == (1,)
        session.execute("DELETE FROM django_q_schedule")


def _refusal(*arguments: object) -> str:
    with pytest.raises(CommandError) as caught:
        call_command(*map(str, arguments))
    return str(caught.value)


def test_what_cannot_be_is_said(source, made, tmp_path):
    assert "say where to" in _refusal("backup")
    assert "does not exist" in _refusal("backup", tmp_path / "no")
    assert "'0' is not a number from 1 to 64" in _refusal("backup", tmp_path, "--jobs", 0)
    assert "is no backup" in _refusal("restore", tmp_path)
    assert f"it holds {made.name}" in _refusal("restore", made.parent)
    assert "goes with --force" in _refusal("restore", made, "--discard")
    assert "PgBouncer" in source.manage("backup", tmp_path, code=1, PGBOUNCER="on")
    assert "PgBouncer" in source.manage("restore", made, "--force", code=1, PGBOUNCER="on")
    assert "there is no" in source.manage("backup", tmp_path, code=1, POSTGRES_BIN="/nowhere")
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_knows_how_old_the_newest_is(source, tmp_path):
    source.manage("backup", tmp_path)
    assert "ok    backup" in source.manage("doctor", code=1)
    with source.connect() as session:
        session.execute(
            "UPDATE config_jobrun SET started_at = started_at - interval '2 days',"
            " finished_at = finished_at - interval '2 days' WHERE job = 'backup'"
        )
        assert "FAIL  backup" in source.manage("doctor", code=1)
        session.execute("DELETE FROM config_jobrun WHERE job = 'backup'")
    assert "warn  backup" in source.manage("doctor", code=1)
