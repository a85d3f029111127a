"""Real servers on 127.0.0.1 that take what is sent to people: a web server and a mail server."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from aiosmtpd.controller import Controller

LONGEST_HANG = 30  # seconds, should a test never let go


@dataclass(frozen=True)
class Call:
    """A POST as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self):
        return orjson.loads(self.body)


@dataclass
class Hook:
    """`hook.calls` came in; `hook.answer(503, Retry_After="7")` is what the next ones get.

    While `hook.held` is clear they wait for their answer.
    """

    port: int = 0
    calls: list[Call] = field(default_factory=list)
    status: int = 200
    body: bytes = b"taken"
    headers: dict[str, str] = field(default_factory=dict)
    held: threading.Event = field(default_factory=threading.Event)
    came: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def web() -> Iterator[Hook]:
    """A web server that takes webhooks."""
    hook = Hook()
    hook.held.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.calls.append(Call(self.path, dict(self.headers), body))
            hook.came.set()
            hook.held.wait(LONGEST_HANG)
            with suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(hook.status)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(hook.body)))
                self.end_headers()
                self.wfile.write(hook.body)

        def log_message(self, *_args) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hook
    finally:
        hook.held.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class Postbox:
    """`box.mails` came in; `box.refuses` answers the commands instead, by name."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    held: threading.Event = field(default_factory=threading.Event)


@contextmanager
def post(on_mail: Callable[[], None] = lambda: None) -> Iterator[Postbox]:
    """A mail server."""
    box = Postbox()

    class Handler:
        async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
            if "RCPT" in box.refuses:
                return box.refuses["RCPT"]
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            if "DATA" in box.refuses:
                return box.refuses["DATA"]
            box.mails.append(message_from_bytes(envelope.content, policy=policy.default))
            on_mail()
            return "250 OK"

    class Server(Controller):
        def __init__(self) -> None:
            super().__init__(Handler(), hostname="127.0.0.1", port=0)

        def _trigger_server(self) -> None:
            """The port is known once it listens, which aiosmtpd's own check cannot say."""
            self.port = box.port = self.server.sockets[0].getsockname()[1]
            super()._trigger_server()

    server = Server()
    server.start()
    try:
        yield box
    finally:
        server.stop()
