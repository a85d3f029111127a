"""Where the archive lies: a directory, or a prefix in a bucket behind any S3 endpoint.

An object appears under its final key whole or not at all: it is written under a temporary key
first. Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …), where
the S3 client looks for them by itself; they are never part of a URL, a log line or an error.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from config.logs import first_line

BLOCK_BYTES = 8 * 1024 * 1024  # of an upload, and of what is read ahead
TEMPORARY = "_tmp"


class StoreError(Exception):
    """The store cannot be reached, or refused something. The message holds no credentials."""


class Store:
    """Objects by key below ARCHIVE_URL. Every method raises StoreError."""

    def __init__(self, url: str):
        self.url = url
        self._local = not url.startswith("s3://")
        if self._local:
            import fsspec

            self._fs = fsspec.filesystem("file", skip_instance_cache=True)
            self._root = str(Path(url.removeprefix("file://")).resolve())
        else:
            import s3fs

            # Made anew in each process: its event loop does not survive a fork.
            self._fs = s3fs.S3FileSystem(
                skip_instance_cache=True,
                use_listings_cache=False,
                default_block_size=BLOCK_BYTES,
                endpoint_url=settings.ARCHIVE_S3_ENDPOINT or None,
                config_kwargs={
                    "connect_timeout": 5,
                    "read_timeout": 60,
                    "retries": {"max_attempts": 2, "mode": "standard"},
                },
            )
            self._fs.retries = 2  # its own, around those of the client; by default 5
            self._root = url.removeprefix("s3://").rstrip("/")

    def check(self) -> None:
        """Raise StoreError where the directory or bucket is not there."""
        place = self._root if self._local else self._root.partition("/")[0]
        if not self._ask(lambda: self._fs.exists(place)):
            raise StoreError(f"{self.url} does not exist: make the directory (is it mounted?) "
                             "or the bucket")  # fmt: skip
        if self._local and not os.access(place, os.W_OK):
            raise StoreError(f"{self.url} cannot be written to")
        self.manifests("")

    def write(self, fill: Callable) -> tuple[str, int, str]:
        """Have `fill(file)` write a temporary object; returns (its key, bytes, SHA-256)."""
        key = f"{TEMPORARY}/{uuid.uuid4().hex}"
        try:
            self._make_folder(key)
            with self._fs.open(self._path(key), "wb", block_size=BLOCK_BYTES) as file:
                hashing = _Hashing(file)
                fill(hashing)
            self._sync(key)
        except BaseException as error:
            with suppress(Exception):  # what remains is removed by the next run
                self._fs.rm_file(self._path(key))
            if isinstance(error, _faults()):
                raise StoreError(_reason(error)) from error
            raise
        return key, hashing.size, hashing.digest.hexdigest()

    def publish(self, temporary: str, key: str) -> None:
        """Give a temporary object its final key; an object of that key is replaced."""

        def move() -> None:
            self._make_folder(key)
            if self._local:
                Path(self._path(temporary)).replace(self._path(key))
                sync(Path(self._path(key)).parent)
            else:
                self._fs.copy(self._path(temporary), self._path(key))
                self._fs.rm_file(self._path(temporary))

        self._ask(move)

    def open(self, key: str):
        """The object for reading, seekable, a few blocks in memory."""
        return self._ask(
            lambda: self._fs.open(
                self._path(key), "rb", block_size=BLOCK_BYTES, cache_type="readahead"
            )
        )

    def digest(self, key: str) -> tuple[int, str]:
        """(bytes, SHA-256) of what the store gives back."""

        def read() -> tuple[int, str]:
            digest, size = hashlib.sha256(), 0
            with self.open(key) as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    size += len(block)
            return size, digest.hexdigest()

        return self._ask(read)

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""

        def look() -> int | None:
            try:
                return self._fs.info(self._path(key))["size"]
            except FileNotFoundError:
                return None

        return self._ask(look)

    def put_json(self, key: str, value: dict) -> None:
        """Write a small JSON object, whole or not at all."""
        body = json.dumps(value, indent=1, sort_keys=True).encode()
        temporary, _, _ = self.write(lambda file: file.write(body))
        self.publish(temporary, key)

    def get_json(self, key: str) -> dict | None:
        """A JSON object; None where there is none. Raises StoreError where it is not JSON."""

        def read() -> dict | None:
            try:
                return json.loads(self._fs.cat_file(self._path(key)))
            except FileNotFoundError:
                return None
            except ValueError as error:
                raise StoreError(f"{key} is no JSON: {error}") from error

        return self._ask(read)

    def manifests(self, folder: str) -> list[str]:
        """The keys of manifests below `folder`, sorted."""

        def find() -> list[str]:
            base = self._path(folder).rstrip("/")
            found = [path.removeprefix(self._root + "/") for path in self._fs.find(base)]
            return sorted(
                key for key in found
                if key.endswith(".json") and not key.startswith(TEMPORARY + "/")
            )  # fmt: skip

        return self._ask(find)

    def remove(self, key: str) -> None:
        """Remove an object; none of that key is no error."""

        def go() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(key))

        self._ask(go)

    def sweep(self) -> int:
        """Remove what died half written. Only for who knows that nobody writes. Returns a count."""
        left = self._ask(lambda: self._fs.find(self._path(TEMPORARY)))
        for path in left:
            self.remove(path.removeprefix(self._root + "/"))
        return len(left)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _make_folder(self, key: str) -> None:
        if self._local:
            # Never the root itself: an archive whose disk is not mounted must not fill another.
            if not Path(self._root).is_dir():
                raise StoreError(f"{self.url} does not exist: is it mounted?")
            Path(self._path(key)).parent.mkdir(parents=True, exist_ok=True)

    def _sync(self, key: str) -> None:
        if self._local:
            sync(Path(self._path(key)))

    def _ask(self, do: Callable):
        try:
            return do()
        except _faults() as error:
            raise StoreError(_reason(error)) from error


class _Hashing:
    """A file for writing that counts and hashes what goes through."""

    def __init__(self, file):
        self._file, self.size, self.digest = file, 0, hashlib.sha256()
        self.closed = False

    def write(self, data) -> int:
        data = bytes(data)
        self._file.write(data)
        self.size += len(data)
        self.digest.update(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """The store flushes by blocks."""

    def close(self) -> None:
        """Closed by who opened it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def get() -> Store:
    """The store of ARCHIVE_URL. Raises StoreError where that is empty."""
    if not settings.ARCHIVE_URL:
        raise StoreError(
            "there is no archive: set ARCHIVE_URL to a directory or s3://bucket/prefix"
        )
    try:
        return Store(settings.ARCHIVE_URL)
    except _faults() as error:
        raise StoreError(_reason(error)) from error


def _faults() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return OSError, BotoCoreError, ClientError


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def sync(path: Path) -> None:
    """Write a file, or the names in a directory, through to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
