"""Clients of all five domains for the chaos bench: each write by a key of its own.

An operation is one kind of request. Its client sends it again with the same key while the answer is
a refusal or none at all, as a careful client does, and remembers what was acknowledged.
"""

import http.client
import itertools
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

PAUSE = 0.05  # seconds between two operations of a client
ANSWER_SECONDS = 12.0
GIVE_UP_SECONDS = 90.0
LONGEST_WAIT = 2.0  # of a Retry-After


@dataclass(frozen=True)
class Answer:
    """`status` 0: none came (refused connection, broken off, too late)."""

    status: int
    headers: dict[str, str]
    body: Any


class Http:
    """One client's connection, made anew where it broke."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._open: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Answer:
        """Send one request and read all of its answer."""
        headers = {"Authorization": f"Token {self._token}"} if self._token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        try:
            if self._open is None:
                self._open = http.client.HTTPConnection(
                    "127.0.0.1", self._port, timeout=ANSWER_SECONDS
                )
            self._open.request(
                method, path, None if body is None else json.dumps(body).encode(), headers
            )
            answer = self._open.getresponse()
            text = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, json.loads(text) if text else None)
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            return Answer(0, {}, None)

    def close(self) -> None:
        """Leave the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None


@dataclass
class Ledger:
    """What one operation's clients were told.

    `acknowledged`: the keys of what was kept; `sent`: of what was ever sent. `refused` counts 503
    and 429 with Retry-After, `unanswered` broken connections, `unclean` any other failure, with
    examples. `successes`: when each success began (monotonic seconds).
    """

    acknowledged: dict[str, Any] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    refused: int = 0
    unanswered: int = 0
    unclean: Counter = field(default_factory=Counter)
    given_up: int = 0
    successes: list[float] = field(default_factory=list)


class Client(threading.Thread):
    """Does one operation again and again until told to stop.

    `make(number) -> (method, path, body)`; `finish(http, answer) -> what to remember, or None where
    it did not work out after all`.
    """

    def __init__(
        self,
        name: str,
        http_: Http,
        make: Callable[[int], tuple[str, str, Any]],
        *,
        writes: bool = True,
        finish: Callable[[Http, Answer], Any] | None = None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.ledger = Ledger()
        self._http, self._make, self._writes, self._finish = http_, make, writes, finish
        self._stopping = threading.Event()
        self._numbers = itertools.count()

    def stop(self) -> None:
        """No new operation; the one under way is brought to its end."""
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._one(next(self._numbers))
            self._stopping.wait(PAUSE)
        self._http.close()

    def _one(self, number: int) -> None:
        key = f"{self.name}-{number}"
        request = self._make(number)
        self.ledger.sent.add(key)
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < give_up:
            began = time.monotonic()
            answer = self._http.ask(*request, key=key if self._writes else "")
            if 200 <= answer.status < 300:
                kept = self._finish(self._http, answer) if self._finish else answer.body
                if kept is not None or self._finish is None:
                    self.ledger.acknowledged[key] = kept
                    self.ledger.successes.append(began)
                    return
            else:
                self._note(answer)
            if not self._writes:
                return  # a read is not sent again: the next one comes anyway
            time.sleep(_pause(answer))
        self.ledger.given_up += 1

    def _note(self, answer: Answer) -> None:
        if answer.status == 0:
            self.ledger.unanswered += 1
        elif answer.status in (503, 429) and "retry-after" in answer.headers:
            self.ledger.refused += 1
        elif answer.status == 409 and "retry-after" in answer.headers:
            self.ledger.refused += 1  # the same key is at work: a dead process held it
        else:
            self.ledger.unclean[f"{answer.status} {str(answer.body)[:200]}"] += 1


def _pause(answer: Answer) -> float:
    try:
        return min(float(answer.headers.get("retry-after", 0.3)), LONGEST_WAIT)
    except ValueError:
        return 0.3


def clients(port: int, setup: dict) -> list[Client]:
    """One client for each operation, writes first. `setup`: what `chaos_probes.prepare` made."""
    tokens = setup["tokens"]
    now = lambda: datetime.now(UTC).isoformat()  # noqa: E731
    posts = setup["posts"]

    def http_of(who: str) -> Http:
        return Http(port, tokens[who])

    def poll(number: int) -> tuple:
        slots = [
            {"venue": "chaos", "slot_id": f"chaos-{one}", "starts_at": setup["starts_at"]}
            for one in range(max(0, number - 40), number + 1)
        ]
        return "POST", "/api/v1/discovery/polls", {
            "source": "chaos", "polled_at": now(), "slots": slots,
        }  # fmt: skip

    def event(number: int) -> tuple:
        return "POST", "/api/v1/events", {
            "events": [
                {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"chaos-{number}-{one}")),
                 "type": "post_view", "target": posts[one % len(posts)], "at": setup["events_at"]}
                for one in range(10)
            ]
        }  # fmt: skip

    return [
        Client(
            "snapshot", http_of("ingest"),
            lambda number: ("POST", "/api/v1/snapshots", [{
                "seller": "chaos", "product_name": f"Chaos {number}", "price": "9.90",
                "currency": "EUR", "scraped_at": now(),
            }]),
        ),
        Client(
            "item", http_of("ann"),
            lambda number: ("POST", "/api/v1/items", {
                "kind": "found", "title": f"chaos item {number}", "category": "chaos",
                "latitude": 49.2, "longitude": -123.0,
            }),
        ),
        Client(
            "match", http_of("bob"),
            lambda number: ("POST", "/api/v1/match", {
                "query": {"kind": "lost", "title": f"chaos match {number}"},
            }),
            finish=_await_match,
        ),
        Client("poll", http_of("ingest"), poll),
        Client(
            "post", http_of("ann"),
            lambda number: ("POST", "/api/v1/posts", {"text": f"chaos post {number}"}),
        ),
        Client(
            "comment", http_of("bob"),
            lambda number: (
                "POST", f"/api/v1/posts/{posts[number % len(posts)]}/comments",
                {"text": f"chaos comment {number}"},
            ),
        ),
        Client("events", http_of("bob"), event),
        *[
            Client(f"read {path}", http_of("bob"), lambda _, path=path: ("GET", path, None),
                   writes=False)
            for path in (
                "/api/v1/catalog", "/api/v1/items/search?q=chaos", "/api/v1/feed",
                "/api/v1/chat/watches/just-opened", f"/api/v1/posts/{posts[0]}",
            )
        ],
    ]  # fmt: skip


def _await_match(http_: Http, answer: Answer) -> str | None:
    """The task's id once its result is there: a match is done when somebody can read it."""
    task = answer.body["task_id"]
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < give_up:
        state = http_.ask("GET", f"/api/v1/jobs/match/status/{task}")
        if state.status == 200:
            return task
        time.sleep(0.2)
    return None
