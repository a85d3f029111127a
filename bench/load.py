"""Load: many keep-alive clients on raw sockets, in one process; or threads that search.

`python -m bench.load` reads {"port": …, "paths": […], "clients": …, "think": …, "warm": …,
"seconds": …} from standard input and prints what it measured, both JSON: after `warm` seconds of
the same load, for `seconds`. Latency runs from sending a request to having its whole answer.
"""

import asyncio
import json
import random
import re
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import connections

from bench.harness import percentile

_TIMEOUT = 30.0


class _Client(asyncio.Protocol):
    """One connection; `ask` sends a request and waits for its answer."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.answer: asyncio.Future | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    async def ask(self, request: bytes) -> tuple[int, str]:
        """The status, and what X-Cache says."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(_TIMEOUT):
            return await self.answer

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        at = head.find(b"content-length:")
        if at < 0:
            self._fail(ConnectionError("an answer without Content-Length"))
            return
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) >= end + 4 + length:
            del self.buffer[: end + 4 + length]
            if self.answer and not self.answer.done():
                state = re.search(rb"\r\nx-cache: *(\w+)", head)
                self.answer.set_result((int(head[9:12]), state[1].decode() if state else "none"))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionError("the server closed the connection"))

    def _fail(self, error: Exception) -> None:
        if self.answer and not self.answer.done():
            self.answer.set_exception(error)


def searchers(
    search: Callable[[random.Random], object], *, threads: int, seconds: float
) -> dict[str, float]:
    """`threads` at once, each doing `search` again and again inside a process of the project: how
    many a second were answered, and the 95th percentile in seconds. The first of each is not
    counted: it connects, and loads what it needs."""
    times: list[float] = []
    begin = threading.Barrier(threads + 1, timeout=120)

    def run(number: int) -> None:
        chance = random.Random(number)
        search(chance)
        begin.wait()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            search(chance)
            times.append(time.perf_counter() - started)
        connections.close_all()

    connections.close_all()  # the pool has one for each thread
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(run, number) for number in range(threads)]
        begin.wait()
        started = time.perf_counter()
    for each in running:
        each.result()
    return {"rate": len(times) / (time.perf_counter() - started), "p95": percentile(times, 0.95)}


async def _visit(number: int, plan: dict, found: dict) -> None:
    chance = random.Random(number)
    loop = asyncio.get_running_loop()
    # Arrivals spread over the think time, so that the clients do not march in step.
    await asyncio.sleep(chance.uniform(0, plan["think"] or 0.1))
    client = None
    while time.monotonic() < found["end"]:
        path = chance.choice(plan["paths"])
        started = time.perf_counter()
        try:
            if client is None:
                _, client = await loop.create_connection(_Client, "127.0.0.1", plan["port"])
            status, state = await client.ask(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
        except (OSError, TimeoutError) as error:
            found["errors"].append(f"{path}: {type(error).__name__} {error}")
            client = None
        else:
            if status != 200:
                found["errors"].append(f"{path}: status {status}")
            if time.monotonic() >= found["start"]:
                found["latencies"].append(time.perf_counter() - started)
                found["cache"][state] += 1
        if plan["think"]:
            await asyncio.sleep(plan["think"] * chance.uniform(0.5, 1.5))


async def _run(plan: dict) -> dict:
    start = time.monotonic() + plan.get("warm", 0)
    end = start + plan["seconds"]
    found = {"start": start, "end": end, "latencies": [], "errors": [], "cache": Counter()}
    await asyncio.gather(*(_visit(number, plan, found) for number in range(plan["clients"])))
    latencies = found["latencies"] or [0.0]
    return {
        "requests": len(found["latencies"]),
        "errors": len(found["errors"]),
        "examples": found["errors"][:3],
        "per_second": len(found["latencies"]) / (time.monotonic() - start),
        "cache": dict(found["cache"]),
        **{
            name: percentile(latencies, share)
            for name, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99), ("worst", 1.0))
        },
        "client_cpu_seconds": time.process_time(),
    }


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(asyncio.run(_run(json.load(sys.stdin)))))
