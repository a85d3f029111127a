"""Discovery: ticks, feeds, pollers, watches, retention, recordings. `script/bench discovery`.

A tick is one poll of 28 buckets with 2,000 slots each, of which 2 % change. History is 5,000,000
drops over 30 days. `--rows N` makes the history smaller: the goals are meant for the whole.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bench import web
from bench.harness import PROJECT, Bench, CannotRunError, Figure, figure, median, say

ROWS = 5_000_000
QUICK_ROWS = 50_000
LEAST_ROWS = 10_000
EXPIRED = 1_000_000
ROUNDS = 3
POLLERS = 1_000
_PROBES = "bench.discovery_probes"

_HISTORY = """
INSERT INTO drop_events (
    event_type, source_id, bucket_id, slot_id, venue_id, opened_at, opened_minute, closed_at,
    starts_at, local_time, party_min, party_max, published_at
)
SELECT 'opened', source.id, 1000000000 + n % 28, 'slot ' || n, venue.first + n % 300, at,
    date_trunc('minute', at), at + interval '20 minutes', at + interval '3 days', '19:30', 2, 4,
    at + n * interval '1 microsecond'
FROM generate_series(1, %(rows)s) AS n
CROSS JOIN LATERAL (
    SELECT date_trunc('day', now()) - (n %% %(days)s + %(from)s) * interval '1 day'
        + (n / %(days)s) * interval '1 second' * (86000.0 * %(days)s / %(rows)s) AS at
) AS moment
CROSS JOIN (SELECT id FROM discovery_sources WHERE name = 'bench') AS source
CROSS JOIN (SELECT min(venue_id) AS first FROM venues) AS venue
""".replace("n % 28", "n %% 28").replace("n % 300", "n %% 300")


_LONGEST_WAIT = """
SELECT max(extract(epoch FROM clock_timestamp() - l.waitstart))
FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
WHERE NOT l.granted AND d.datname = current_database()
"""


class _Data:
    """The databases, each made when the first figure asks for it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._made: set[str] = set()

    def empty(self) -> str:
        return self._of("ticks_empty", 0)

    def full(self) -> str:
        return self._of("ticks_full", self.bench.rows)

    def _of(self, name: str, rows: int) -> str:
        if name not in self._made:
            self._made.add(name)
            say(f"making {name} with {rows:,} drops")
            self.bench.create_database(name)
            self.bench.manage(name, "migrate", "-v0")
            self.bench.probe(name, "prepare", module=_PROBES)
            if rows:
                make_history(self.bench, name, rows=rows, days=29, since=1)
        return name


def make_history(bench: Bench, database: str, *, rows: int, days: int, since: int) -> None:
    """`rows` drops over so many days, the newest of them `since` days ago."""
    bench.probe(database, "partitions", module=_PROBES, days=days + since + 1)
    with bench.connect(database) as db:
        db.execute("SET synchronous_commit = off")
        db.execute(_HISTORY, {"rows": rows, "days": days, "from": since})
        db.execute("VACUUM (ANALYZE) drop_events")
        db.execute("CHECKPOINT")


def figures(bench: Bench) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
    """Each measurement with the ids of its figures."""
    data = _Data(bench)
    yield (
        ("tick_statements", "tick_speedup", "tick_seconds"),
        lambda: _tick(bench, data.empty()),
    )
    yield ("tick_history_growth",), lambda: _growth(bench, data.empty(), data.full())
    yield (
        ("feed_cached_p95", "feed_uncached_p95", "feed_memory"),
        lambda: _feed(bench, data.full()),
    )
    yield ("watches_fitting_p95",), lambda: _watches(bench, data.full())
    yield (
        ("new_drops_missed", "new_drops_repeated", "new_drops_p95"),
        lambda: _pollers(bench, data.full()),
    )
    yield ("prune_seconds", "prune_lock"), lambda: _prune(bench, data.full())
    yield (
        ("recordings_differences", "recordings_cautious_differences"),
        lambda: _recordings(bench),
    )


def _tick(bench: Bench, database: str) -> list[Figure]:
    found = bench.probe(database, "tick", module=_PROBES, rounds=bench.rounds(5), orm_buckets=2)
    say(f"tick {found['seconds']:.3f} s, through the ORM {found['orm_seconds']:.1f} s")
    return [
        figure("tick_statements", found["statements_per_bucket"], "a bucket", "<= 1", **found),
        figure("tick_speedup", found["orm_seconds"] / found["seconds"], "x", ">= 20", **found),
        figure("tick_seconds", found["worst"], "s", "< 1", **found),
    ]


def _growth(bench: Bench, empty: str, full: str) -> Figure:
    times: dict[str, list[float]] = {empty: [], full: []}
    for _ in range(bench.rounds(ROUNDS)):
        for database, seen in times.items():
            seen.append(bench.probe(database, "ticks", module=_PROBES, rounds=9)["median"])
    before, after = (median(seen) for seen in times.values())
    say(f"tick on an empty database {before:.3f} s, with history {after:.3f} s")
    return figure("tick_history_growth", after / before, "x", "<= 1.2", empty=before, full=after)


def _feed(bench: Bench, database: str) -> list[Figure]:
    found = bench.probe(database, "feed_reads", module=_PROBES, samples=200)
    return [
        figure("feed_cached_p95", found["cached"] * 1000, "ms", "< 10", **found),
        figure("feed_uncached_p95", found["uncached"] * 1000, "ms", "< 50", **found),
        figure("feed_memory", found["peak_mb"], "MB", "< 20", **found),
    ]


def _watches(bench: Bench, database: str) -> Figure:
    found = bench.probe(database, "watches", module=_PROBES, watches=10_000, samples=200)
    return figure("watches_fitting_p95", found["p95"] * 1000, "ms", "< 50", **found)


def _pollers(bench: Bench, database: str) -> list[Figure]:
    """1,000 clients that ask every 5 seconds, while a source drops 40 slots every 2 seconds."""
    seconds = bench.seconds(36)
    with web.server(bench, database) as port:
        plan = {"port": port, "clients": POLLERS, "every": 5, "seconds": seconds + 4}
        clients = subprocess.Popen(
            [sys.executable, "-m", "bench.pollers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PROJECT,
            text=True,
        )
        with _ticking(bench, database, seconds=seconds, every=2):
            said, _ = clients.communicate(json.dumps(plan))
    if clients.returncode:
        raise CannotRunError("the pollers failed")
    found = json.loads(said)
    with bench.connect(database) as db:
        rows = db.execute(
            "SELECT id, published_at FROM drop_events WHERE published_at > %s ORDER BY 2",
            [found["begun"]],
        ).fetchall()
    missed = repeated = 0
    for client in found["clients"]:
        expected = {key for key, at in rows if client["from"] < at.isoformat() <= client["to"]}
        seen = client["seen"]
        repeated += len(seen) - len(set(seen))
        missed += len(expected - set(seen))
    detail = {name: found[name] for name in ("requests", "errors", "p50", "p95", "worst")}
    detail |= {"drops": len(rows), "seen": sum(len(one["seen"]) for one in found["clients"])}
    if found["errors"]:
        raise CannotRunError(f"{found['errors']} requests failed: {found['examples']}")
    return [
        figure("new_drops_missed", missed, "drops", "<= 0", **detail),
        figure("new_drops_repeated", repeated, "drops", "<= 0", **detail),
        figure("new_drops_p95", found["p95"] * 1000, "ms", "< 100", **detail),
    ]


@contextmanager
def _ticking(bench: Bench, database: str, **given: float) -> Iterator[None]:
    """Meanwhile a source drops slots, in a process of its own. Raises CannotRunError."""
    with ThreadPoolExecutor(1) as pool:
        ticks = pool.submit(bench.probe, database, "tick_for", module=_PROBES, buckets=2, **given)
        yield
        ticks.result()


def _prune(bench: Bench, database: str) -> list[Figure]:
    """A day that has expired, a million drops, beside a source that goes on ticking."""
    rows = min(EXPIRED, bench.rows)
    make_history(bench, database, rows=rows, days=1, since=31)
    waits, over = [0.0], threading.Event()

    def watch() -> None:
        """How long anybody has waited for a lock, asked every few milliseconds."""
        with bench.connect(database) as db:
            while not over.wait(0.005):
                [waited] = db.execute(_LONGEST_WAIT).fetchone()
                waits.append(float(waited or 0))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with _ticking(bench, database, seconds=12, every=0.1):
            time.sleep(4)
            found = bench.probe(database, "prune", module=_PROBES)
    finally:
        over.set()
        watching.join()
    return [
        figure("prune_seconds", found["seconds"], "s", "< 1", **found),
        figure("prune_lock", max(waits) * 1000, "ms", "<= 100", samples=len(waits)),
    ]


def _recordings(bench: Bench) -> list[Figure]:
    """Every poll of the vaccine, office and parking recordings, against the oracle."""
    made = []
    ids = {"plain": "recordings_differences", "cautious": "recordings_cautious_differences"}
    for how, name in ids.items():
        database = f"recordings_{how}"
        bench.create_database(database)
        bench.manage(database, "migrate", "-v0")
        found = bench.probe(database, "recordings", module=_PROBES, how=how, share=_share(bench))
        bench.drop_database(database)
        say(f"recordings, {how}: {found}")
        differences = sum(each["differences"] for each in found.values())
        made.append(figure(name, differences, "events", "<= 0", **found))
    return made


def _share(bench: Bench) -> float:
    return min(1.0, bench.rows / ROWS)
