"""Clients that ask for new drops again and again: `python -m bench.pollers`.

Reads {"port": …, "clients": …, "every": …, "seconds": …} from standard input and prints, as JSON,
what each client saw between its first `at` and its last, and how long answers took.
"""

import asyncio
import json
import random
import resource
import sys
import time
from datetime import UTC, datetime
from urllib.parse import quote

from bench.harness import percentile

_TIMEOUT = 30.0
_PATH = "/api/v1/chat/watches/new-drops"


class _Client:
    """A keep-alive connection that is opened again where the server closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams = None

    async def get(self, path: str) -> dict:
        async with asyncio.timeout(_TIMEOUT):
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
        if int(head[9:12]) != 200:
            raise ConnectionError(f"{path}: {body[:200]!r}")
        return json.loads(body)

    def drop(self) -> None:
        """Forget a connection that failed."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def _poll(number: int, plan: dict, end: float, found: dict) -> None:
    chance = random.Random(number)
    await asyncio.sleep(chance.uniform(0, plan["every"]))
    client, at, more = _Client(plan["port"]), None, False
    seen: list[int] = []
    began = None
    while time.monotonic() < end:
        path = _PATH if at is None else f"{_PATH}?since={quote(at)}"
        started = time.perf_counter()
        try:
            answer = await client.get(path)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            found["errors"].append(f"{type(error).__name__}: {error}")
            client.drop()
        else:
            found["latencies"].append(time.perf_counter() - started)
            at, more = answer["at"], answer["more"]
            began = began or at
            seen += [drop["id"] for drop in answer["results"]]
        if not more:
            await asyncio.sleep(plan["every"] * chance.uniform(0.9, 1.1))
    found["clients"].append({"from": _iso(began), "to": _iso(at), "seen": seen})


def _iso(text: str) -> str:
    """As Python writes it, so that two of them compare as times do."""
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds")


async def _run(plan: dict) -> dict:
    begun = datetime.now(UTC).isoformat()
    found: dict = {"latencies": [], "errors": [], "clients": []}
    end = time.monotonic() + plan["seconds"]
    await asyncio.gather(*(_poll(n, plan, end, found) for n in range(plan["clients"])))
    times = found["latencies"]
    return {
        "begun": begun,
        "clients": found["clients"],
        "requests": len(times),
        "errors": len(found["errors"]),
        "examples": found["errors"][:3],
        "p50": percentile(times, 0.5),
        "p95": percentile(times, 0.95),
        "worst": max(times),
    }


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(asyncio.run(_run(json.load(sys.stdin)))))
