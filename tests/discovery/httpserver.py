"""A real HTTP server on 127.0.0.1 that answers well, badly, or not at all, as a test asks.

Each path has an answer, which a test sets and changes; every request is kept.
"""

import gzip
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

ALL = "*"  # all paths together, in what is counted
LONGEST_HANG = 30  # seconds, should a test never let go


@dataclass(frozen=True)
class Asked:
    """A request as it came in. `at`: time.monotonic()."""

    path: str
    headers: dict[str, str]
    at: float


Answer = Callable[["Handler"], None]


@dataclass
class Server:
    """`server.answers["/slots"] = good({...})`; `server.asked("/slots")` is what came in.

    `most_at_once`: how many requests of a path were answered at one time at most.
    """

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    at_once: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    most_at_once: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def asked(self, path: str) -> list[Asked]:
        with self.lock:
            return [each for each in self.requests if each.path == path]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    known: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        known = self.known
        with known.lock:
            known.requests.append(Asked(path, dict(self.headers), time.monotonic()))
            for each in (path, ALL):
                known.at_once[each] += 1
                known.most_at_once[each] = max(known.most_at_once[each], known.at_once[each])
            answer = known.answers.get(path, status(404))
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                answer(self)
        finally:
            with known.lock:
                for each in (path, ALL):
                    known.at_once[each] -= 1

    def reply(self, code: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer; `Content_Type="…"` becomes a header."""
        self.send_response(code)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(body))} | named).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args) -> None:
        """Nothing on the terminal."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """Clients that go away in the middle are what these tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving() -> Iterator[Server]:
    """A server for the time of the block."""
    known = Server()

    class Handlers(Handler):
        pass

    Handlers.known = known
    server = _Listener(("127.0.0.1", 0), Handlers)
    known.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield known
    finally:
        known.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def good(data, *, kind: str = "application/json", after: float = 0) -> Answer:
    """JSON, after so many seconds."""

    def answer(handler: Handler) -> None:
        if after:
            handler.known.released.wait(after)
        handler.reply(200, orjson.dumps(data), Content_Type=kind)

    return answer


def raw(body: bytes, *, kind: str = "application/json") -> Answer:
    """These bytes: truncated JSON, NaN, HTML."""
    return lambda handler: handler.reply(200, body, Content_Type=kind)


def status(code: int, **headers: str) -> Answer:
    """An error, with a body that is JSON and says that nothing is free."""
    body = b"" if code in {204, 304} else b"[]"
    return lambda handler: handler.reply(code, body, Content_Type="application/json", **headers)


def redirect(target: str) -> Answer:
    return lambda handler: handler.reply(302, Location=target)


def conditional(data, *, etag: str = "", modified: str = "") -> Answer:
    """JSON with validators; 304 to whoever comes with them."""

    def answer(handler: Handler) -> None:
        headers = {"ETag": etag} if etag else {}
        headers |= {"Last_Modified": modified} if modified else {}
        seen = {handler.headers.get("If-None-Match"), handler.headers.get("If-Modified-Since")}
        if seen & {etag, modified} - {"", None}:
            handler.reply(304, **headers)
        else:
            handler.reply(200, orjson.dumps(data), Content_Type="application/json", **headers)

    return answer


def hanging(handler: Handler) -> None:
    """No answer at all, until the test lets go."""
    handler.known.released.wait(LONGEST_HANG)
    handler.close_connection = True


def dripping(handler: Handler) -> None:
    """An answer that comes byte by byte and never ends: each byte is in time, the whole is not."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    end = time.monotonic() + LONGEST_HANG
    while time.monotonic() < end and not handler.known.released.wait(0.05):
        handler.wfile.write(b" ")


def breaking_off(handler: Handler) -> None:
    """Half of what Content-Length promises, and the end of the connection."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'[{"id": "a"')
    handler.close_connection = True


def babbling(handler: Handler) -> None:
    """Something that is not HTTP."""
    handler.wfile.write(b"[]\r\n\r\n")
    handler.close_connection = True


def huge(size: int) -> Answer:
    """So many bytes without a Content-Length, as long as the other side reads."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        block = b"[" * 65_536
        for _ in range(size // len(block)):
            handler.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def bomb(size: int) -> Answer:
    """A small body that is so large when it is unpacked."""
    body = gzip.compress(b"[" + b" " * size + b"]")
    return lambda handler: handler.reply(
        200, body, Content_Type="application/json", Content_Encoding="gzip"
    )
