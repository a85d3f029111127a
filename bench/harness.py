"""What every benchmark stands on: servers of its own, figures, the table and the JSON.

The servers are the embedded ones with their production settings (fsync on), in a folder that is
deleted afterwards. PostgreSQL holds several databases, so that data sets do not meet.
"""

import json
import math
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from config.embedded import PostgresServer, ValkeyServer

PROJECT = Path(__file__).resolve().parent.parent
MANAGE = [sys.executable, str(PROJECT / "manage.py")]
SHARED_DATA = PROJECT.parent / "shared" / "data"


class CannotRunError(RuntimeError):
    """The benchmark cannot run here; the text says why and what to do."""


@dataclass(frozen=True)
class Figure:
    """One measured number. `goal` is `>= 50` or `<= 1.3`; `detail` says what stands behind it."""

    id: str
    value: float | None
    unit: str
    goal: str
    holds: bool
    detail: dict = field(default_factory=dict)


def figure(id: str, value: float, unit: str, goal: str, **detail) -> Figure:
    """A figure that is held against its goal. `detail`: names to plain values."""
    relation, limit = goal.split()
    holds = value >= float(limit) if relation == ">=" else _below(value, relation, float(limit))
    return Figure(id, round(value, 4), unit, goal, bool(holds), detail)


def _below(value: float, relation: str, limit: float) -> bool:
    return value <= limit if relation == "<=" else value < limit


@dataclass(frozen=True)
class Usage:
    """What a process took: wall-clock seconds, its peak resident memory in MB, what it printed."""

    seconds: float
    peak_mb: float
    output: str


class Bench:
    """The servers, folder and options that the figures of one run share."""

    def __init__(self, folder: Path, rows: int, *, is_quick: bool = False) -> None:
        self.folder = folder
        self.rows = rows
        self.is_quick = is_quick
        self.postgres = PostgresServer(folder / "pg")
        self.valkey = ValkeyServer(folder / "valkey")

    def rounds(self, whole: int) -> int:
        """How often, or how many, where a whole run does it `whole` times."""
        return max(1, whole // 4) if self.is_quick else whole

    def seconds(self, whole: float) -> float:
        """How long, where a whole run takes `whole` seconds."""
        return max(2, round(whole / 4)) if self.is_quick else whole

    def url(self, database: str) -> str:
        """The URL of one of the benchmark's databases."""
        return urlunsplit(urlsplit(self.postgres.url)._replace(path=f"/{database}"))

    def connect(self, database: str) -> psycopg.Connection:
        """A connection in autocommit mode; the caller closes it."""
        return psycopg.connect(self.url(database), autocommit=True)

    def create_database(self, name: str, template: str = "template1") -> None:
        """An empty database, or a copy of `template`, which nobody may be using."""
        with self.connect("postgres") as db:
            db.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it."""
        with self.connect("postgres") as db:
            db.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def environment(self, database: str, **extra: str) -> dict[str, str]:
        """The environment of a process of the project that works on `database`."""
        return os.environ | {
            "DATABASE_URL": self.url(database),
            "REDIS_URL": self.valkey.url,
            "CACHE_PREFIX": f"bench-{database}",
            "SECRET_KEY": "a-key-for-benchmarks-only",
            "SPYGLASS_EMBEDDED": "1",
            "SPYGLASS_VAR": str(self.folder / "var"),
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "THROTTLE_ADDRESS": "off",
            "THROTTLE_TOKEN": "off",
            "PYTHONPATH": str(PROJECT),
            **extra,
        }

    def manage(self, database: str, *arguments: object) -> Usage:
        """Run manage.py on `database` to its end. Raises CannotRunError."""
        return self._run(database, [*MANAGE, *map(str, arguments)])

    def probe(
        self, database: str, name: str, *, module: str = "bench.probes", **parameters: object
    ) -> dict:
        """What a function of `module` returns in a web process of its own."""
        command = [sys.executable, "-m", module, name, json.dumps(parameters)]
        done = self._run(database, command, PROCESS_ROLE="web")
        return json.loads(done.output)

    def probes(
        self, database: str, name: str, given: list[dict], *, module: str = "bench.probes"
    ) -> list[dict]:
        """The same in several processes at once, one for each of the `given` parameters."""
        with ThreadPoolExecutor(len(given)) as pool:
            return list(
                pool.map(lambda one: self.probe(database, name, module=module, **one), given)
            )

    def start(
        self, database: str, command: list[str], log: str | None = None, **extra: str
    ) -> subprocess.Popen:
        """A process that goes on, on `database`; what it says goes into the file `log`."""
        with (self.folder / log if log else Path(os.devnull)).open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=PROJECT,
                env=self.environment(database, **extra),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _run(self, database: str, command: list[str], **extra: str) -> Usage:
        started = time.monotonic()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(database, **extra),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            took = time.monotonic() - started
            if process.returncode:
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip()[-2000:]
                raise CannotRunError(f"{' '.join(command)[:300]} failed: {last}")
            output.seek(0)
            text = output.read().decode()
        scale = 1 if sys.platform == "darwin" else 1024
        return Usage(took, used.ru_maxrss * scale / 1e6, text)


@contextmanager
def servers(rows: int, *, is_quick: bool = False) -> Iterator[Bench]:
    """A Bench with its servers running; everything is stopped and deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="spyglass-bench-"))
    folder.chmod(0o711)  # as root the servers run as another user, who must get through
    bench = Bench(folder, rows, is_quick=is_quick)
    try:
        bench.postgres.start()
        bench.valkey.start()
        yield bench
    finally:
        bench.postgres.stop()
        bench.valkey.stop()
        shutil.rmtree(folder, ignore_errors=True)


def answer_probe(*probes: Callable[..., dict]) -> None:
    """Be the process of `Bench.probe`: print what the function returns that was asked for."""
    name, parameters = sys.argv[1:]
    found = {probe.__name__: probe for probe in probes}[name]
    print(json.dumps(found(**json.loads(parameters))))


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def say(text: str) -> None:
    """Progress, on standard error: standard output carries the table."""
    print(f"  {text}", file=sys.stderr, flush=True)


def seconds(work: Callable[[], object]) -> float:
    """How long `work()` takes by the wall clock, in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest-rank percentile of `values`, `share` in 0…1."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def table(figures: list[Figure]) -> str:
    """The figures as `figure | value | goal | holds`."""
    rows = [("figure", "value", "goal", "holds")]
    rows += [
        (
            each.id,
            "could not run" if each.value is None else f"{each.value:g} {each.unit}",
            f"{each.goal} {each.unit}",
            "yes" if each.holds else "NO",
        )
        for each in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def report(name: str, figures: list[Figure], *, rows: int | None) -> dict:
    """What `--json` writes."""
    return {
        "bench": name,
        "commit": _commit(),
        "machine": _machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": rows,
        "figures": [asdict(each) for each in figures],
    }


def write_json(path: str, document: dict) -> None:
    Path(path).write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")


def _commit() -> str:
    """The commit that stands in the work tree, `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _machine() -> dict:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
    }
