"""Degradation, proven: faults under a steady load of all five domains. `script/bench chaos`.

A server as `script/server` starts it, a client for each kind of request, and one fault after the
other. Whatever was acknowledged must be there afterwards, once; whatever was refused must have been
refused cleanly (503 or 429 with Retry-After); read models must equal the truth.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from bench import chaos_load
from bench.chaos_load import Client, Ledger
from bench.harness import Bench, CannotRunError, Figure, figure, free_port, say
from bench.standby import StandbyServer
from bench.web import await_answer

ROWS = QUICK_ROWS = LEAST_ROWS = 1
DATABASE = "chaos"
CALM_SECONDS = 8.0  # between two faults, and before the first
RECOVER_SECONDS = 90.0
QUEUED = 3_000
QUICK = (
    "Valkey stopped for 5 s",
    "PostgreSQL killed",
    "web process killed",
    "worker killed, with all its children",
    "standby killed, away for 5 s",
)
_PROBES = "bench.chaos_probes"


@dataclass(frozen=True)
class Fault:
    """`strike()` does it and undoes it."""

    name: str
    strike: Callable[[], None]


@dataclass
class Struck:
    """What one fault cost: counts while it lasted and until all was well again."""

    name: str
    seconds: float
    recovered: float | None
    acknowledged: int
    refused: int
    unanswered: int
    unclean: int


IDS = (
    "chaos_lost",
    "chaos_double",
    "chaos_unclean",
    "chaos_differences",
    "chaos_recovery_worst",
)


def figures(bench: Bench) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
    """All figures of one run."""
    yield IDS, lambda: measure(bench)


def measure(bench: Bench) -> list[Figure]:
    """Strike with every fault (in a quick run, the QUICK ones), then hold all against all."""
    bench.drop_database(DATABASE)
    bench.create_database(DATABASE)
    bench.manage(DATABASE, "migrate", "-v0")
    setup = bench.probe(DATABASE, "prepare", module=_PROBES)
    standby = StandbyServer(bench.folder / "standby", bench.postgres)
    standby.start()
    try:
        return _measure(bench, setup, standby)
    finally:
        standby.stop()


def _measure(bench: Bench, setup: dict, standby: StandbyServer) -> list[Figure]:
    url = urlunsplit(urlsplit(standby.url)._replace(path=f"/{DATABASE}"))
    with _server(bench, REPLICA_URL=url) as (port, main):
        clients = chaos_load.clients(port, setup)
        for client in clients:
            client.start()
        try:
            _await_all(clients, time.monotonic(), RECOVER_SECONDS)
            struck = [
                _strike(fault, clients, bench.seconds(CALM_SECONDS))
                for fault in _faults(bench, main, standby)
                if not bench.is_quick or fault.name in QUICK
            ]
        finally:
            for client in clients:
                client.stop()
        for client in clients:
            client.join(chaos_load.GIVE_UP_SECONDS + chaos_load.ANSWER_SECONDS)
        for client in clients:
            say(f"{client.name}: {_told(client.ledger)}")
        verdict = bench.probe(
            DATABASE, "verify", module=_PROBES, ledger=str(_write(bench, clients))
        )
    say(_table(struck))
    return _figures(struck, clients, verdict)


def _figures(struck: list[Struck], clients: list[Client], verdict: dict) -> list[Figure]:
    operations = verdict["operations"]
    unclean: Counter = Counter()
    for client in clients:
        unclean += client.ledger.unclean
    wrong = {name: one for name, one in verdict["differences"].items() if one["count"]}
    differences = sum(one["count"] for one in wrong.values())
    slowest = max((one.recovered or RECOVER_SECONDS for one in struck), default=0.0)
    return [
        figure("chaos_lost", sum(one["lost"] for one in operations.values()), "", "<= 0",
               operations=operations, settled=verdict["settled"],
               acknowledged=sum(len(one.ledger.acknowledged) for one in clients)),
        figure("chaos_double", sum(one["double"] for one in operations.values()), "", "<= 0"),
        figure("chaos_unclean", sum(unclean.values()), "", "<= 0", examples=dict(unclean)),
        figure("chaos_differences", differences, "", "<= 0", **wrong),
        figure("chaos_recovery_worst", slowest, "s", "<= 60",
               faults={one.name: one.__dict__ for one in struck}),
    ]  # fmt: skip


def _faults(bench: Bench, main: subprocess.Popen, standby: StandbyServer) -> Iterator[Fault]:
    yield Fault("Valkey stopped for 5 s", lambda: _stop_for(bench.valkey, 5))
    yield Fault("Valkey killed", lambda: _kill_server(bench.valkey))
    yield Fault("PostgreSQL restarted", lambda: _stop_for(bench.postgres, 0))
    yield Fault("PostgreSQL away for 8 s", lambda: _stop_for(bench.postgres, 8))
    yield Fault("PostgreSQL killed", lambda: _kill_server(bench.postgres))
    yield Fault("web process killed", lambda: _kill(_children(_part(main, "granian"))[:1]))
    yield Fault("web server killed", lambda: _kill(_tree(_part(main, "granian"))))
    yield Fault("a child of the worker killed", lambda: _kill(_worker_children(main)[:1]))
    yield Fault("worker killed, with all its children", lambda: _kill(_tree(_worker(main))))
    yield Fault(
        f"queue filled with {QUEUED:,} tasks",
        lambda: bench.probe(DATABASE, "fill_queue", module=_PROBES, tasks=QUEUED),
    )
    yield Fault("standby killed, away for 5 s", lambda: _kill_server(standby, 5))
    yield Fault("standby lags for 5 s", lambda: _lag_for(standby, 5))
    yield Fault("disk slowed by others for 8 s", lambda: _slow_disk(bench.folder, 8))


def _strike(fault: Fault, clients: list[Client], calm: float) -> Struck:
    before = [_snapshot(client.ledger) for client in clients]
    say(f"fault: {fault.name}")
    started = time.monotonic()
    fault.strike()
    ended = time.monotonic()
    recovered = _await_all(clients, ended, RECOVER_SECONDS)
    time.sleep(calm)
    spent = [
        tuple(after - earlier for after, earlier in zip(_snapshot(client.ledger), old, strict=True))
        for client, old in zip(clients, before, strict=True)
    ]
    acknowledged, refused, unanswered, unclean = (
        sum(column) for column in zip(*spent, strict=True)
    )
    return Struck(
        fault.name, ended - started, recovered, acknowledged, refused, unanswered, unclean
    )


def _await_all(clients: list[Client], since: float, limit: float) -> float | None:
    """Seconds after `since` until every client had begun and ended something well; None: never."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        firsts = [
            next((began for began in client.ledger.successes[-500:] if began >= since), None)
            for client in clients
        ]
        if None not in firsts:
            return max(firsts) - since
        time.sleep(0.1)
    return None


def _snapshot(ledger: Ledger) -> tuple[int, int, int, int]:
    return (
        len(ledger.acknowledged),
        ledger.refused,
        ledger.unanswered,
        sum(ledger.unclean.values()),
    )


def _told(ledger: Ledger) -> str:
    text = (
        f"{len(ledger.acknowledged):,} acknowledged, {ledger.refused:,} refused,"
        f" {ledger.unanswered:,} unanswered, {ledger.given_up:,} given up"
    )
    return f"{text}, unclean {dict(ledger.unclean)}" if ledger.unclean else text


def _table(struck: list[Struck]) -> str:
    lines = ["acknowledged  refused  unanswered  unclean  lasted  well again after  fault"]
    lines += [
        f"{one.acknowledged:12,}  {one.refused:7,}  {one.unanswered:10,}  {one.unclean:7,}"
        f"  {one.seconds:5.1f}s  "
        + (f"{one.recovered:15.1f}s" if one.recovered is not None else f"{'never':>16}")
        + f"  {one.name}"
        for one in struck
    ]
    return "\n  ".join(lines)


def _write(bench: Bench, clients: list[Client]) -> Path:
    path = bench.folder / "ledger.json"
    told = {
        client.name: {
            "acknowledged": sorted(client.ledger.acknowledged),
            "sent": sorted(client.ledger.sent),
        }
        for client in clients
    }
    path.write_text(json.dumps(told))
    return path


# The server and its processes.


@contextmanager
def _server(bench: Bench, **extra: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """`script/server` on the bench's own servers: its port and its process."""
    port = free_port()
    command = [sys.executable, "-m", "config.server", "--no-demo", "--port", str(port)]
    main = bench.start(DATABASE, [*command, "--workers", "2"], "server.log", **extra)
    try:
        log = bench.folder / "server.log"
        await_answer(f"http://127.0.0.1:{port}/health/ready", main, log)
        yield port, main
    finally:
        main.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            main.wait(60)
        _kill(_tree(main.pid))


def _processes() -> dict[int, tuple[int, str]]:
    """{pid: (parent, command line)} of this machine."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError, IndexError, ValueError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = (int(stat[1]), line)
    return found


def _children(pid: int) -> list[int]:
    return [child for child, (parent, _) in _processes().items() if parent == pid]


def _tree(pid: int) -> list[int]:
    """A process and all below it, parents first."""
    known = _processes()
    found = [pid] if pid in known else []
    for one in found:
        found += [child for child, (parent, _) in known.items() if parent == one]
    return found


def _part(main: subprocess.Popen, marker: str) -> int:
    """The topmost process below the server whose command line has `marker`."""
    known = _processes()
    for pid in _tree(main.pid):
        if marker in known.get(pid, (0, ""))[1]:
            return pid
    raise CannotRunError(f"no process of the server has {marker!r} in its command line")


def _worker(main: subprocess.Popen) -> int:
    return _part(main, "manage.py worker")


def _worker_children(main: subprocess.Popen) -> list[int]:
    """The processes that do tasks: leaves of the worker, youngest first."""
    tree = _tree(_worker(main))
    parents = {parent for _, (parent, _) in _processes().items()}
    return [pid for pid in reversed(tree) if pid not in parents]


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _stop_for(server, seconds: float) -> None:
    server.stop()
    time.sleep(seconds)
    server.start()


def _lag_for(standby: StandbyServer, seconds: float) -> None:
    standby.pause_replay(True)
    time.sleep(seconds)
    standby.pause_replay(False)


def _kill_server(server, away: float = 0.5) -> None:
    _kill([server.pid])
    time.sleep(away)
    server.start()


def _slow_disk(folder: Path, seconds: float) -> None:
    """Two writers that make the disk flush all the time."""
    end = time.monotonic() + seconds

    def flush(number: int) -> None:
        block = os.urandom(4 * 2**20)
        with (folder / f"busy-{number}").open("wb") as file:
            while time.monotonic() < end:
                file.seek(0)
                file.write(block)
                file.flush()
                os.fsync(file.fileno())

    writers = [threading.Thread(target=flush, args=[number]) for number in range(2)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
