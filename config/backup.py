"""Backups: a folder each, with all of one moment, that says itself whether it is whole.

    PATH/spyglass-20260131T011500Z/manifest.json    written last
    PATH/spyglass-20260131T011500Z/database/        pg_dump's directory format

`make` dumps under a temporary name out of one snapshot, counts the rows of every table in the same
snapshot, writes the manifest with the size and SHA-256 of each file, and renames. Killed at any
line it leaves a temporary folder, which the next run removes.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from django.conf import settings
from psycopg import sql

from config import pgtools
from config.models import JobRun
from config.sqlfiles import queries
from config.stores import sync

FORMAT = 1
OLD = timedelta(hours=26)  # a night's backup, and two hours
PREFIX = "spyglass-"
MANIFEST = "manifest.json"
DATABASE = "database"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
_MAKING, _REMOVING = ".making-", ".removing-"
# Half of what a dump takes at the default level of 6, for a tenth more bytes.
COMPRESSION = "gzip:1"
LOCK_WAIT_SECONDS = 60

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


def _quiet(step: str, done: int, due: int) -> None:
    """No progress."""


class BackupError(Exception):
    """A backup cannot be made or used. The message says which and why."""


@dataclass(frozen=True)
class Manifest:
    """What a backup holds. `rows` of each table, by its name with its schema; `files`: [bytes,
    SHA-256] by path below the folder; `roles`: who has rights in it; `settings`: [role or "",
    "name=value"] of the database."""

    format: int
    made_at: str
    version: str
    server_version: int
    tool_version: int
    database: dict
    settings: list
    roles: list[str]
    migrations: list
    rows: dict[str, int]
    files: dict[str, list]
    checksum: str = field(default="", compare=False)

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(size for size, _ in self.files.values())

    @property
    def total_rows(self) -> int:
        """The rows of all tables."""
        return sum(self.rows.values())


@dataclass(frozen=True)
class Backup:
    """A whole backup: its folder and what it says of itself."""

    folder: Path
    manifest: Manifest


def make(
    root: Path, *, jobs: int, keep: int = 0, progress: Progress = _quiet
) -> tuple[Backup, list[Path]]:
    """Back the database up into a new folder below `root`, by `jobs` processes.

    Then, with `keep`, all but the newest so many whole backups of this database are removed; what
    is no backup, or a damaged one, or of a database of another name, stays. Returns the backup and
    the folders that went. Call it under the lease of the job `backup`. Raises BackupError,
    ToolError, psycopg.Error.
    """
    pgtools.require_no_pooler("a backup")
    _check_root(root)
    with _alone(root):
        with _file_errors():
            _sweep(root)
        made = _make(root, jobs, progress)
        try:
            with _file_errors():
                return made, _prune(root, keep) if keep else []
        except BackupError as error:
            raise BackupError(f"{made.folder} is made, but older ones stay: {error}") from error


def _make(root: Path, jobs: int, progress: Progress) -> Backup:
    made_at = datetime.now(UTC).replace(microsecond=0)
    name = f"{PREFIX}{made_at:%Y%m%dT%H%M%SZ}"
    if (root / name).exists():
        raise BackupError(f"{root / name} is there already: wait a second")
    making = root / f"{_MAKING}{name}"
    try:
        with _file_errors():
            making.mkdir(mode=0o700)
        manifest = _dump(making, made_at, jobs, progress)
        with _file_errors():
            _write_through(making / MANIFEST, _text(manifest))
            sync(making)
            making.rename(root / name)
            sync(root)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return Backup(root / name, manifest)


def _prune(root: Path, keep: int) -> list[Path]:
    name = pgtools.parameters()["dbname"]
    mine = [one.folder for one in found(root) if one.manifest.database["name"] == name]
    surplus = mine[:-keep]
    for folder in surplus:
        going = folder.with_name(f"{_REMOVING}{folder.name}")
        folder.rename(going)  # at once: half of a backup must not look like one
        shutil.rmtree(going)
    return surplus


def _sweep(root: Path) -> None:
    """Remove what killed runs left."""
    for prefix in (_MAKING, _REMOVING):
        for folder in root.glob(f"{prefix}{PREFIX}*"):
            shutil.rmtree(folder)


def found(root: Path) -> list[Backup]:
    """The backups below `root` whose manifests can be read, oldest first."""
    backups = []
    for folder in sorted(root.glob(f"{PREFIX}*")):
        with suppress(BackupError):
            backups.append(load(folder))
    return backups


def load(folder: Path) -> Backup:
    """The backup in `folder`, its files not looked at. Raises BackupError."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        inside = [one.folder.name for one in found(folder)]
        hint = f"; it holds {', '.join(inside[-5:])}" if inside else ""
        raise BackupError(f"{folder} is no backup: it has no {MANIFEST}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BackupError(f"{folder}: its {MANIFEST} cannot be read: {error}") from error
    try:
        values = json.loads(text)
        version = values["format"]
        if version != FORMAT:
            raise BackupError(
                f"{folder} has format {version}, this version of Spyglass knows {FORMAT}"
            )
        known = {one.name for one in fields(Manifest)}
        manifest = Manifest(**{name: values[name] for name in known})
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{folder}: its {MANIFEST} is damaged: {error!r}") from error
    if _checksum(manifest) != manifest.checksum:
        raise BackupError(f"{folder}: its {MANIFEST} is damaged: the checksum differs")
    return Backup(folder, manifest)


def verify(backup: Backup, progress: Progress = _quiet) -> None:
    """Read every file and compare. Raises BackupError that names all that differ."""
    done, faults = 0, []
    for path, (size, sha256) in backup.manifest.files.items():
        progress("verifying", done, backup.manifest.bytes)
        try:
            is_size, is_sha256 = _digest(backup.folder / path)
        except OSError as error:
            faults.append(f"{path}: {error.strerror}")
            continue
        if (is_size, is_sha256) != (size, sha256):
            faults.append(f"{path}: {is_size:,} bytes of {size:,}, SHA-256 {is_sha256[:12]}… "
                          f"instead of {sha256[:12]}…")  # fmt: skip
        done += size
    progress("verifying", done, backup.manifest.bytes)
    if faults:
        raise BackupError("\n".join([f"{backup.folder} is damaged:", *faults]))


def last_made_at() -> datetime | None:
    """When this database was backed up last, by its run log, which ends with its retention."""
    done = JobRun.objects.filter(job="backup", state=JobRun.State.SUCCEEDED)
    return done.order_by("-started_at").values_list("finished_at", flat=True).first()


def row_counts(source: psycopg.Connection, progress: Progress = _quiet) -> dict[str, int]:
    """The rows of every table of the database, of `source`'s snapshot."""
    tables = source.execute(queries("config")["backup_tables"]).fetchall()
    counts = {}
    for position, (schema, name) in enumerate(tables):
        progress("counting", position, len(tables))
        [count] = source.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
        ).fetchone()
        counts[f"{schema}.{name}"] = count
    progress("counting", len(tables), len(tables))
    return counts


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One at a time below `root`, from whichever installation: to sweep would end another's.

    A file system without locks leaves it to the lease of the job, which holds for one database.
    """
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(handle)
            raise BackupError(f"another backup is at work below {root}") from error
    try:
        yield
    finally:
        os.close(handle)


def _check_root(root: Path) -> None:
    if not root.is_dir():
        raise BackupError(f"{root} does not exist: make the directory (is the disk mounted?)")
    if not os.access(root, os.W_OK | os.X_OK):
        raise BackupError(f"{root} is not writable for this user")


def _dump(folder: Path, made_at: datetime, jobs: int, progress: Progress) -> Manifest:
    with pgtools.connect(autocommit=False) as source:
        source.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        source.read_only = True
        server = source.info.server_version
        tool = pgtools.check_version("pg_dump", server // 10_000)
        statements = queries("config")
        [snapshot] = source.execute("SELECT pg_export_snapshot()").fetchone()
        tables = len(source.execute(statements["backup_tables"]).fetchall())
        dumped = 0

        def heard(line: str) -> None:
            nonlocal dumped
            if "dumping contents of table" in line:
                dumped += 1
                progress("dumping", dumped, tables)

        progress("dumping", 0, tables)
        pgtools.run(
            "pg_dump",
            [
                "--format=directory", f"--file={folder / DATABASE}", f"--jobs={jobs}",
                f"--snapshot={snapshot}", f"--compress={COMPRESSION}", "--verbose",
                f"--lock-wait-timeout={LOCK_WAIT_SECONDS}s",
            ],
            heard=heard,
        )  # fmt: skip
        database = source.execute(statements["backup_database"]).fetchone()
        kept = source.execute(statements["backup_settings"]).fetchall()
        roles = source.execute(statements["backup_roles"]).fetchall()
        migrations = source.execute(
            "SELECT app, name FROM django_migrations ORDER BY app, name"
        ).fetchall()
        rows = row_counts(source, progress)
        source.rollback()
    with _file_errors():
        files = _seal(folder, progress)
    manifest = Manifest(
        format=FORMAT,
        made_at=made_at.isoformat(),
        version=settings.VERSION,
        server_version=server,
        tool_version=tool,
        database=dict(
            zip(("name", "encoding", "provider", "collate", "ctype", "locale"), database,
                strict=True)
        ),
        settings=[list(one) for one in kept],
        roles=[role for (role,) in roles],
        migrations=[list(one) for one in migrations],
        rows=rows,
        files=files,
    )  # fmt: skip
    return Manifest(**asdict(manifest) | {"checksum": _checksum(manifest)})


def _seal(folder: Path, progress: Progress) -> dict[str, list]:
    """{path: [bytes, SHA-256]} of all files, which pg_dump has written through to the disk."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    total, done, files = sum(path.stat().st_size for path in paths), 0, {}
    for path in paths:
        progress("checksums", done, total)
        size, sha256 = _digest(path)
        files[str(path.relative_to(folder))] = [size, sha256]
        done += size
    progress("checksums", total, total)
    return files


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _checksum(manifest: Manifest) -> str:
    values = asdict(manifest) | {"checksum": ""}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _text(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n"


def _write_through(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    sync(path)


@contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupError(f"{error.filename or 'the backup'}: {error.strerror}") from error
