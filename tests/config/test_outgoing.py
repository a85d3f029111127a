"""The guard of outgoing connections: what may be reached, and that nothing gets around it."""

import asyncio
import gzip
import socket
import threading
import time
from contextlib import suppress

import aiohttp
import pytest
import requests

from config import outgoing
from config.outgoing import Refused, Unresolved

PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "0",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "localhost",
    "LOCALHOST",
    "[::1]",
    "[::]",
    "[::127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2001::1]",
    "[2001:db8::1]",
    "[fe80::1]",
    "[fc00::1]",
    "[fec0::1]",
    "[ff02::1]",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "[2606:4700::1111]", "[64:ff9b::101:101]", "[2002:101:101::1]"]
MALFORMED = {
    "": "http",
    "example.org": "http",
    "ftp://1.1.1.1/": "http",
    "file:///etc/passwd": "http",
    "gopher://1.1.1.1/": "http",
    "http://": "host",
    "http:///path": "host",
    "http://user@1.1.1.1/": "user",
    "http://user:password@1.1.1.1/": "user",
    "http://@1.1.1.1/": "user",
    "http://1.1.1.1:0/": "port",
    "http://1.1.1.1:65536/": "Port",
    "http://1.1.1.1:80x/": "Port",
    "http://1.1.1.1\\@127.0.0.1/": "backslash",
    "http://1.1.1.1 .example.org/": "space",
    "http://1.1.1.1/\r\nHost: x": "control",
    "http://[::1/": "URL",
    "http://a..b/": "host name",
    f"http://{'a' * 300}.org/": "host name",
    f"http://1.1.1.1/{'a' * 2000}": "2,000",
}


@pytest.fixture
def names(monkeypatch):
    """`names["host"] = ["10.0.0.1"]` is what a name server that a stranger runs would answer."""
    answers = {}
    real = outgoing._plain_getaddrinfo

    def resolve(host, port, *rest, **options):
        name = host.rstrip(".") if isinstance(host, str) else host
        if name not in answers:
            return real(host, port, *rest, **options)
        found = []
        for address in answers[name]:
            found += real(address, port, type=socket.SOCK_STREAM)
        return found

    monkeypatch.setattr(outgoing, "_plain_getaddrinfo", resolve)
    return answers


@pytest.fixture
def listener():
    """The port of a server on 127.0.0.1 that takes connections; `.met` says of any."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def met(server) -> bool:
    """Whether somebody connected."""
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("host", PRIVATE)
def test_a_private_host_is_refused(host):
    with pytest.raises(Refused, match="private"):
        outgoing.check_url(f"http://{host}/hook")


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_host_is_taken(host):
    outgoing.check_url(f"https://{host}:8443/hook")
    assert outgoing.allowed(host.strip("[]"), 443)


@pytest.mark.parametrize(("url", "reason"), MALFORMED.items())
def test_what_is_no_url_is_refused(url, reason):
    with pytest.raises(Refused, match=reason):
        outgoing.check_url(url)


def test_a_host_without_an_address_is_told_apart():
    with pytest.raises(Unresolved, match=r"nowhere\.invalid cannot be found"):
        outgoing.check_url("http://nowhere.invalid/")


def test_a_refusal_is_an_error_of_values_and_of_connections():
    """Validation catches the one, libraries that connect the other."""
    assert issubclass(Refused, ValueError)
    assert issubclass(Refused, OSError)
    assert str(Refused("no")) == "no"


def test_a_host_that_is_listed_may_be_anywhere(settings, names):
    names["hooks.internal"] = ["10.0.0.7"]
    with pytest.raises(Refused):
        outgoing.check_url("http://hooks.internal/")
    settings.OUTGOING_ALLOWED_HOSTS = ["Hooks.Internal", "127.0.0.1", "[::1]"]
    for host in ("hooks.internal", "HOOKS.internal.", "127.0.0.1", "[::1]"):
        outgoing.check_url(f"http://{host}/")
    with pytest.raises(Refused):  # by another name it is not listed
        outgoing.check_url("http://localhost/")


def test_a_name_of_both_worlds_keeps_its_public_addresses(names):
    names["both.example"] = ["10.0.0.1", "1.1.1.1", "::1"]
    assert [info[4][0] for info in outgoing.allowed("both.example", 80)] == ["1.1.1.1"]
    names["both.example"] = ["10.0.0.1", "::1"]
    with pytest.raises(Refused):
        outgoing.allowed("both.example", 80)


def test_outside_the_guard_everything_is_as_it_was(listener):
    with socket.create_connection(listener.getsockname(), 2):
        assert met(listener)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "rebound.example"])
def test_inside_no_way_of_connecting_gets_through(listener, names, host):
    names["rebound.example"] = ["127.0.0.1"]
    port = listener.getsockname()[1]

    def by_socket():
        with socket.socket() as line:
            line.connect((host, port))

    def by_connect_ex():
        with socket.socket() as line:
            line.connect_ex((host, port))

    def by_datagram():
        with socket.socket(type=socket.SOCK_DGRAM) as line:
            line.sendto(b"x", (host, port))

    ways = [
        by_socket,
        by_connect_ex,
        by_datagram,
        lambda: socket.create_connection((host, port), 2),
        lambda: requests.get(f"http://{host}:{port}/", timeout=2),
        lambda: asyncio.run(_fetch(f"http://{host}:{port}/")),
    ]
    for way in ways:
        with outgoing.guarded() as guard, pytest.raises((OSError, aiohttp.ClientError)) as caught:
            way()
        # aiohttp itself takes a number for no host.
        assert "private" in guard.refused or caught.type is aiohttp.InvalidUrlClientError
    assert not met(listener)


async def _fetch(url: str, resolver=None) -> int:
    connector = aiohttp.TCPConnector(resolver=resolver)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        return answer.status


def test_local_sockets_are_no_way_out(tmp_path):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as line:
        server.bind(str(tmp_path / "line"))
        server.listen()
        with outgoing.guarded(), pytest.raises(Refused):
            line.connect(str(tmp_path / "line"))


def test_what_is_listed_can_be_connected_to_by_all_ways(listener, settings, names):
    settings.OUTGOING_ALLOWED_HOSTS = ["inner.example"]
    names["inner.example"] = ["127.0.0.1"]
    port = listener.getsockname()[1]
    with outgoing.guarded():
        with socket.create_connection(("inner.example", port), 2):
            assert met(listener)
        with socket.socket() as line:
            line.connect(("inner.example", port))
            assert met(listener)
    with outgoing.guarded(also=["127.0.0.1"]), socket.create_connection(("127.0.0.1", port), 2):
        assert met(listener)


def test_a_redirect_into_our_network_is_refused(settings, names):
    """The first host may be reached, the one that it names may not."""
    settings.OUTGOING_ALLOWED_HOSTS = ["front.example"]
    names["front.example"] = ["127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer():
            line, _ = server.accept()
            with line:
                line.recv(65_536)
                line.sendall(
                    f"HTTP/1.1 302 Found\r\nLocation: http://localhost:{port}/\r\n"
                    "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
                )

        thread = threading.Thread(target=answer)
        thread.start()
        with outgoing.guarded(), pytest.raises(requests.ConnectionError, match="private"):
            requests.get(f"http://front.example:{port}/", timeout=5)
        thread.join(5)
        server.settimeout(0.2)
        assert not met(server)


def test_the_resolver_of_aiohttp_lets_nothing_through(listener, settings, names):
    names["rebound.example"] = ["127.0.0.1"]
    port = listener.getsockname()[1]
    url = f"http://rebound.example:{port}/"
    with pytest.raises(aiohttp.ClientConnectorDNSError) as caught:
        asyncio.run(_fetch(url, outgoing.GuardedResolver()))
    assert "private" in str(caught.value.os_error)
    assert not met(listener)

    settings.OUTGOING_ALLOWED_HOSTS = ["rebound.example"]

    async def connect():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):  # it takes the connection and says nothing
                await _fetch(url, outgoing.GuardedResolver())

    with outgoing.guarded():
        asyncio.run(connect())
    assert met(listener)


def test_after_its_time_what_drips_is_cut(settings):
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.1"]
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            line, _ = server.accept()
            with line:
                line.recv(65_536)
                line.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.05):
                    try:
                        line.sendall(b"X-Slow: 1\r\n"[:3])
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        try:
            with outgoing.guarded(seconds=0.5) as guard, suppress(requests.RequestException):
                requests.get(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=5)
            assert guard.is_cut
            assert 0.4 < time.monotonic() - started < 3
            with guard.lock:
                assert not guard.lines
        finally:
            stop.set()
            thread.join(5)


def test_guards_of_threads_do_not_meet(listener):
    inside, go_on = threading.Event(), threading.Event()

    def hold():
        with outgoing.guarded():
            inside.set()
            go_on.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(5)
    with socket.create_connection(listener.getsockname(), 2):
        assert met(listener)
    go_on.set()
    thread.join()


@pytest.fixture
def bomb():
    """The port of a server whose answer is small on the line and large unpacked."""
    body = gzip.compress(b"\0" * (4 * outgoing.ANSWER_BYTES))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            line, _ = server.accept()
            with line, suppress(OSError):
                line.recv(65_536)
                line.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
                    % len(body)
                    + body
                )

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def test_an_answer_that_unpacks_to_too_much_is_not_read(bomb):
    outgoing.limit_requests()
    outgoing.limit_requests()
    with (
        outgoing.guarded(also=["127.0.0.1"]) as guard,
        pytest.raises(Refused, match="larger than 1,048,576"),
    ):
        requests.get(f"http://127.0.0.1:{bomb}/", timeout=5)
    assert "larger" in guard.refused


def test_outside_the_guard_answers_have_no_limit(bomb):
    outgoing.limit_requests()
    answer = requests.get(f"http://127.0.0.1:{bomb}/", timeout=5)
    assert len(answer.content) == 4 * outgoing.ANSWER_BYTES


def test_a_proxy_of_the_environment_is_no_way_around(listener, monkeypatch):
    """A proxy would look the name up by itself. One on our own network is refused."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setenv("no_proxy", "")
    with outgoing.guarded() as guard, pytest.raises(requests.RequestException):
        requests.get("http://hooks.invalid/", timeout=2)
    assert "private" in guard.refused
    with outgoing.guarded(), pytest.raises(aiohttp.ClientError):
        asyncio.run(_fetch("http://hooks.invalid/"))
    assert not met(listener)
