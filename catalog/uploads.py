"""Files that staff send in by the admin: kept in a folder until a worker has ingested them.

The folder is the queue: a file is there whole or not at all, and goes when it has been ingested,
so a worker that is killed leaves it to the next run. Web server and worker must share VAR_DIR.
"""

import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from catalog.actions import ERROR_LENGTH, ingest_file
from catalog.models import IngestRun
from catalog.readers import SourceError, parse_map
from config.importing import Counts
from config.runs import Run
from config.text import storable

SUFFIXES = (".csv", ".tsv", ".ndjson", ".jsonl")
WAITING_AT_MOST = 100
_NAME_BYTES = 150  # with what is put before and behind it, a file name of less than 255
_STAMP = "%Y%m%dT%H%M%S%f"
# <when>-<random>-<name as sent>
_STORED = re.compile(r"(\d{8}T\d{12})-[0-9a-f]{8}-(.+)")


class UploadRefused(Exception):
    """The file is not taken; the text says why and what to do."""


@dataclass(frozen=True)
class Upload:
    """A file that waits. `name` as it was sent; `size` in bytes."""

    path: Path
    name: str
    size: int
    sent_at: datetime
    user: str
    mapping: tuple[str, ...]


def folder() -> Path:
    """Where uploads wait."""
    return settings.VAR_DIR / "uploads"


def keep_upload(
    *, name: str, size: int, chunks: Iterable[bytes], user: str, mapping: Iterable[str] = ()
) -> Upload:
    """Store a file for the worker. `mapping`: `field=column` pairs as `ingest_snapshots --map`.

    Raises UploadRefused: too large, not CSV or NDJSON by its name, a mapping that means nothing,
    too many files waiting.
    """
    mapping = tuple(mapping)
    safe = _safe(name)
    limit = settings.CATALOG_UPLOAD_MAX_BYTES
    if size > limit:
        raise UploadRefused(
            f"The file has {size:,} bytes; {limit:,} is the limit. Compress it with gzip,"
            " or send it in parts."
        )
    if len(waiting()) >= WAITING_AT_MOST:
        raise UploadRefused(f"{WAITING_AT_MOST} files wait already. Start a worker first.")
    try:
        parse_map(mapping)
    except SourceError as error:
        raise UploadRefused(str(error).replace("--map ", "")) from error
    folder().mkdir(parents=True, exist_ok=True)
    stamp = timezone.now().astimezone(UTC).strftime(_STAMP)
    path = folder() / f"{stamp}-{secrets.token_hex(4)}-{safe}"
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
    _note(path).write_text(json.dumps({"user": user, "mapping": mapping}), encoding="utf-8")
    part.rename(path)
    return _upload(path)


def waiting() -> list[Upload]:
    """The files that no worker has finished, oldest first."""
    if not folder().is_dir():
        return []
    return [_upload(path) for path in sorted(folder().iterdir()) if _is_upload(path)]


def ingest_waiting(run: Run) -> int:
    """Ingest every waiting file; returns the rows accepted.

    A file that cannot be read leaves a failed ingest run that says why, and the next one follows.
    """
    accepted = 0
    for upload in waiting():
        run.progress(rows=accepted, at=upload.name)
        started = timezone.now()
        try:
            report = ingest_file(
                path=str(upload.path),
                field_map=parse_map(upload.mapping),
                rejects_path=str(rejects_path(upload.path)),
                user_label=upload.user,
                progress=partial(_progress, run, accepted),
            )
            accepted += report.counts.accepted
        except SourceError as error:
            _note_failure(upload, started, error)
        upload.path.unlink(missing_ok=True)
        _note(upload.path).unlink(missing_ok=True)
    _remove_old()
    return accepted


def rejects_path(path: Path) -> Path:
    """Where the refused rows of an upload go."""
    rejects = folder() / "rejects"
    rejects.mkdir(parents=True, exist_ok=True)
    return rejects / f"{path.name}.rejects.csv"


def original_name(source: str) -> str:
    """How a person knows a source: an upload by its name as it was sent, any other as it is."""
    path = Path(source)
    found = _STORED.fullmatch(path.name)
    return found[2] if found and path.parent == folder() else source


def _remove_old() -> None:
    """Rejects files go when their runs do; what broke off on its way in goes with them."""
    days = settings.CATALOG_INGEST_RUNS_RETENTION_DAYS
    oldest = (timezone.now() - timedelta(days=days)).timestamp() if days else 0
    for pattern in ("rejects/*.csv", "*.part", "*.json"):
        for path in folder().glob(pattern):
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)


def _progress(run: Run, before: int, position: int, size: int | None, counts: Counts) -> None:
    run.progress(rows=before + counts.accepted)


def _note_failure(upload: Upload, started: datetime, error: SourceError) -> None:
    """A file that was refused before its first row has no run of its own yet."""
    source = str(upload.path)
    if not IngestRun.objects.filter(source=source, started_at__gte=started).exists():
        IngestRun.objects.create(
            source=source,
            state=IngestRun.State.FAILED,
            started_at=started,
            finished_at=timezone.now(),
            error=storable(str(error).replace(source, upload.name), ERROR_LENGTH),
            user_label=upload.user,
        )


def _safe(name: str) -> str:
    """The last part of `name`, with nothing in it that means something to a file system."""
    last = re.split(r"[/\\]", name)[-1]
    safe = re.sub(r"[^\w.-]+", "_", last).encode()[-_NAME_BYTES:].decode(errors="ignore")
    safe = safe.lstrip(".")
    if not safe.lower().removesuffix(".gz").endswith(SUFFIXES):
        raise UploadRefused(
            f"{last[:100]!r} is neither CSV nor NDJSON by its name: {', '.join(SUFFIXES)},"
            " each also with .gz."
        )
    return safe


def _is_upload(path: Path) -> bool:
    return path.suffix not in {".part", ".json"} and bool(_STORED.fullmatch(path.name))


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _upload(path: Path) -> Upload:
    stamp, name = _STORED.fullmatch(path.name).groups()
    note = _note(path)
    said = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    return Upload(
        path=path,
        name=name,
        size=path.stat().st_size if path.exists() else 0,
        sent_at=datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC),
        user=said.get("user", ""),
        mapping=tuple(said.get("mapping", ())),
    )
