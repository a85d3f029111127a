"""The web server under load: a cached page against the smallest view, and 1,000 clients at once.

Client and server share this machine, so that the figures are pessimistic.
"""

import json
import random
import re
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from urllib.parse import quote

from bench.harness import PROJECT, Bench, CannotRunError, Figure, figure, free_port, median, say
from config import web

ROUNDS = 3
CONNECTIONS = 32
SECONDS = 6
CLIENTS = 1_000
THINK = 1.0
CROWD_WARM_SECONDS = 30  # a cache that serves a crowd has not been emptied just now
CROWD_SECONDS = 20
PAGE = "/api/v1/catalog?page_size=20"


def cached_page(bench: Bench, database: str) -> Figure:
    """Requests a second of a cached `catalog` page, against the smallest view, in turn."""
    rates = {"/bench/smallest": [], PAGE: []}
    with server(bench, database) as port:
        for path in rates:
            _hammer(port, path, seconds=2)
        for _ in range(bench.rounds(ROUNDS)):
            for path, found in rates.items():
                found.append(_hammer(port, path, seconds=bench.seconds(SECONDS)))
        size = len(urllib.request.urlopen(f"http://127.0.0.1:{port}{PAGE}").read())
    smallest, page = (median(found) for found in rates.values())
    say(f"smallest view: {smallest:,.0f} requests/s, cached page: {page:,.0f} requests/s")
    return figure(
        "cached_catalog_rps",
        page / smallest,
        "x",
        ">= 0.6",
        page_per_second=round(page),
        smallest_per_second=round(smallest),
        page_bytes=size,
        client="wrk" if shutil.which("wrk") else "bench.load",
        connections=CONNECTIONS,
    )


def crowd(bench: Bench, database: str) -> list[Figure]:
    """1,000 clients that read pages, products, suggestions and categories, a second apart."""
    paths = _mixed_paths(bench, database)
    with server(bench, database) as port:
        found = _load(
            port,
            paths=paths,
            clients=CLIENTS,
            think=THINK,
            warm=bench.seconds(CROWD_WARM_SECONDS),
            seconds=bench.seconds(CROWD_SECONDS),
        )
    say(f"{CLIENTS} clients: {found['per_second']:.0f} requests/s, p95 {found['p95']:.3f} s")
    detail = {
        "clients": CLIENTS,
        "think_seconds": THINK,
        "requests": found["requests"],
        "requests_per_second": round(found["per_second"]),
        "different_paths": len(set(paths)),
        "median_ms": round(found["median"] * 1000, 1),
        "p99_ms": round(found["p99"] * 1000, 1),
        "x_cache": found["cache"],
        "client_cpu_seconds": round(found["client_cpu_seconds"], 1),
        "shared": "client and server share the cores",
        "examples_of_errors": found["examples"],
    }
    return [
        figure("concurrent_1000_errors", found["errors"], "errors", "<= 0", **detail),
        figure("concurrent_1000_p95", found["p95"] * 1000, "ms", "< 300", **detail),
    ]


def _mixed_paths(bench: Bench, database: str) -> list[str]:
    """Of ten requests four are pages, three products, two suggestions, one the categories.

    Which ones follows Zipf's law with exponent 1, as popularity does (Breslau et al., Web Caching
    and Zipf-like Distributions, 1999); what is asked for more often stands in the list more often.
    """
    chance = random.Random(5)
    with bench.connect(database) as db:
        rows = db.execute("SELECT slug FROM catalog_slug_summary ORDER BY md5(slug)")
        slugs = _Zipf([slug for (slug,) in rows], chance)
        tags = _Zipf(
            [tag for (tag,) in db.execute("SELECT tag FROM catalog_category_counts")], chance
        )
    pages = _Zipf(list(range(1, 101)), chance)
    paths = []
    for _ in range(3_000):
        paths += [
            f"/api/v1/catalog?page={pages.draw()}",
            f"/api/v1/catalog?categories={quote(tags.draw())}&sort=price",
            f"/api/v1/catalog?sort=-discount&page={pages.draw()}",
            f"/api/v1/catalog?availability=available&min_price={chance.randint(5, 20)}",
            *(f"/api/v1/products/{quote(slugs.draw())}" for _ in range(3)),
            *(
                f"/api/v1/search/suggest?q={quote(slugs.draw()[: chance.randint(3, 20)])}"
                for _ in range(2)
            ),
            "/api/v1/meta/categories",
        ]
    return paths


class _Zipf:
    """Draws from `things`, the n-th with a weight of 1/n."""

    def __init__(self, things: list, chance: random.Random) -> None:
        self.things, self.chance = things, chance
        self.weights = list(accumulate(1 / rank for rank in range(1, len(things) + 1)))

    def draw(self):
        return self.chance.choices(self.things, cum_weights=self.weights)[0]


@contextmanager
def server(bench: Bench, database: str) -> Iterator[int]:
    """The web server as `script/server` starts it, on a free port, with `bench.settings`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each client
    port = free_port()
    metrics = bench.folder / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir()
    command = web.command(Namespace(host="127.0.0.1", port=port, workers=2))
    extra = {"PROCESS_ROLE": "web", "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    process = bench.start(database, command, "web.log", **extra)
    try:
        await_answer(f"http://127.0.0.1:{port}/bench/smallest", process, bench.folder / "web.log")
        yield port
    finally:
        process.terminate()
        process.wait(30)


def await_answer(url: str, process: subprocess.Popen, log: Path) -> None:
    """Wait for the first answer of a server. Raises CannotRunError with the end of its log."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=3):
            return
        time.sleep(0.1)
    last = log.read_text(errors="replace")[-2000:]
    raise CannotRunError(f"the server does not answer: {last}")


def _hammer(port: int, path: str, *, seconds: int) -> float:
    """Requests a second of one path, asked for without a pause."""
    wrk = shutil.which("wrk")
    if not wrk:
        found = _load(port, paths=[path], clients=CONNECTIONS, think=0, seconds=seconds)
        if found["errors"]:
            raise CannotRunError(f"{path}: {found['examples']}")
        return found["per_second"]
    url = f"http://127.0.0.1:{port}{path}"
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise CannotRunError(f"wrk on {path}: {said}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


def _load(port: int, **plan: object) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps({"port": port, **plan}),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotRunError(f"the load generator failed: {done.stderr[-1000:]}")
    return json.loads(done.stdout)
