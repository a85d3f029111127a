"""Connections to addresses that people name: only to the internet, never into our own network.

Anybody may give a webhook or a feed to poll; nobody may reach what only this host can (loopback,
private networks, the metadata service of a cloud). What counts is the address that a name resolves
to when the connection is made: so names that resolve differently a moment later (DNS rebinding) and
redirects are no way in. Hosts of OUTGOING_ALLOWED_HOSTS may be anywhere.
"""

import asyncio
import contextvars
import functools
import ipaddress
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

URL_LENGTH = 2_000
ANSWER_BYTES = 1024 * 1024  # of an answer to a message: nobody needs more of it than a line
# As getaddrinfo gives it: family, type, protocol, canonical name, address.
SockaddrInfo = tuple[int, int, int, str, tuple]

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Of special protocols, and not global, which older versions of Python do not know.
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Characters on which parsers of URLs disagree.
_UNWANTED = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")


# An OSError too, so that libraries take it for a connection that failed, as they expect some to.
class Refused(ValueError, OSError):
    """A target that may not be reached. The text is a reason for people to read."""


class Unresolved(Refused):
    """The host has no address right now; it may have one later."""


def check_url(url: str) -> None:
    """Raise Refused unless `url` is http or https, without a user, on a host that may be reached.

    It looks the host up. A connection that is made later needs `guarded` or `GuardedResolver`.
    """
    host, port = _parse(url)
    allowed(host, port)


def allowed(host: str, port: int) -> list[SockaddrInfo]:
    """The addresses of a host to which TCP connections may be made. Raises Refused."""
    return _allowed(_plain_getaddrinfo, host, port, type=socket.SOCK_STREAM)


def retry_after(headers: Mapping[str, str], *, most: float) -> float | None:
    """The seconds, `most` at most, that a Retry-After asks for by a number or a date (RFC 9110,
    10.2.3); None where it asks for nothing that is clear.
    """
    text = headers.get("Retry-After", "").strip()
    try:
        if text.isascii() and text.isdigit():
            return float(min(int(text[:10]), most))
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return float(min(max((moment - datetime.now(UTC)).total_seconds(), 0), most))
    except (TypeError, ValueError, OverflowError):
        return None


class GuardedResolver:
    """What `aiohttp.abc.AbstractResolver` asks for: resolves to addresses that may be reached.

    aiohttp does not ask it about hosts that are addresses: `check_url` every URL, those of
    redirects included, or make the requests inside `guarded`.
    """

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_INET
    ) -> list[dict[str, Any]]:
        """The addresses of a host, as aiohttp wants them. Raises Refused, an OSError."""
        look_up = functools.partial(
            _allowed, _plain_getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM
        )
        # In the context of the caller, so that the other thread sees the guard, too.
        context = contextvars.copy_context()
        found = await asyncio.get_running_loop().run_in_executor(None, context.run, look_up)
        return [
            {
                "hostname": host,
                "host": address[0],
                "port": address[1],
                "family": of_family,
                "proto": protocol,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            for of_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is kept."""


@dataclass
class Guard:
    """What holds inside one `guarded` block."""

    also: frozenset[str]  # hosts that may be anywhere, besides the setting's
    opened: set[str] = field(default_factory=set)  # addresses of hosts that may be anywhere
    lines: list[socket.socket] = field(default_factory=list)
    is_cut: bool = False  # the time was up
    refused: str = ""  # why something was not reached, which a library may keep to itself
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, line: socket.socket) -> None:
        """Hold on to a connection, so that it can be cut, whatever wraps or closes it."""
        with self.lock:
            if self.is_cut:
                raise TimeoutError("it took too long")
            self.lines.append(line.dup())

    def cut(self) -> None:
        """End all connections: who waits for one gets an error."""
        with self.lock:
            self.is_cut = True
            for line in self.lines:
                try:
                    line.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it has ended already, or was never made

    def let_go(self) -> None:
        """Close what is held."""
        with self.lock:
            for line in self.lines:
                line.close()
            self.lines.clear()


_guard: contextvars.ContextVar[Guard | None] = contextvars.ContextVar(
    "outgoing guard", default=None
)


@contextmanager
def guarded(*, seconds: float | None = None, also: Iterable[str] = ()) -> Iterator[Guard]:
    """Inside, this thread (and asyncio's tasks that it starts) reaches only what may be reached.

    Whatever looks up a host or connects, third-party libraries too, gets Refused otherwise.
    `seconds`: after that all connections made inside are cut, however slowly they drip. `also`:
    hosts that may be anywhere besides those of OUTGOING_ALLOWED_HOSTS, for what the operator set.
    """
    guard = Guard(frozenset(_folded(host) for host in also))
    timer = threading.Timer(seconds, guard.cut) if seconds else None
    token = _guard.set(guard)
    try:
        if timer:
            timer.daemon = True
            timer.start()
        yield guard
    finally:
        _guard.reset(token)
        if timer:
            timer.cancel()
        guard.let_go()


def limit_requests() -> None:
    """Let `requests`, which has no limit, read ANSWER_BYTES (unpacked) of an answer inside a guard.

    For libraries that use it: call it once they are imported. More than once does no harm.
    """
    import requests

    plain = requests.models.Response.iter_content
    if getattr(plain, "is_limited", False):
        return

    @functools.wraps(plain)
    def iter_content(response, chunk_size=1, decode_unicode=False):
        read = 0
        for part in plain(response, chunk_size, decode_unicode):
            read += len(part)
            if _guard.get() is not None and read > ANSWER_BYTES:
                response.close()
                raise _noted(Refused(f"The answer is larger than {ANSWER_BYTES:,} bytes."))
            yield part

    iter_content.is_limited = True
    requests.models.Response.iter_content = iter_content


def _parse(url: str) -> tuple[str, int]:
    if not isinstance(url, str) or len(url) > URL_LENGTH:
        raise Refused(f"Must be a URL of {URL_LENGTH:,} characters at most.")
    if _UNWANTED.search(url):
        raise Refused("Is not a URL: it has a space, a backslash or a control character in it.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"Is not a URL: {error}.") from error
    if parts.scheme not in ("http", "https"):
        raise Refused("Must be a URL that begins with http:// or https://.")
    if "@" in parts.netloc:
        raise Refused("May not have a user name or a password in it.")
    if not parts.hostname:
        raise Refused("Has no host.")
    if port == 0:
        raise Refused("Has port 0, which is none.")
    return parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def _allowed(resolve, host: Any, port: Any, **options: Any) -> list[SockaddrInfo]:
    """What `resolve` (getaddrinfo) finds, without what may not be reached. Raises Refused."""
    name = _text(host)
    try:
        found = resolve(host, port, **options)
    except UnicodeError as error:
        raise Refused(f"{name!r} is no host name.") from error
    except OSError as error:
        raise Unresolved(f"The host {name} cannot be found.") from error
    if _is_listed(name):
        if guard := _guard.get():
            guard.opened.update(info[4][0] for info in found)
        return found
    reachable = [info for info in found if _is_public(info[4][0])]
    if not reachable:
        reason = f"{name} is on a private or local network, which may not be reached."
        raise _noted(Refused(reason))
    return reachable


def _noted(refused: Refused) -> Refused:
    if guard := _guard.get():
        guard.refused = str(refused)
    return refused


def _is_listed(name: str) -> bool:
    guard = _guard.get()
    listed = {_folded(host) for host in settings.OUTGOING_ALLOWED_HOSTS}
    return _folded(name) in (listed | guard.also if guard else listed)


def _folded(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _text(host: Any) -> str:
    if host is None:
        return "(no host)"
    return host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)


def _is_public(text: str) -> bool:
    """Whether an address is one of the internet, and so is the one that is embedded in it."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return _is_public(str(address.ipv4_mapped))
        if address in _NAT64:
            return _is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        if address.sixtofour and not _is_public(str(address.sixtofour)):
            return False
        if address not in _GLOBAL_UNICAST:
            return False
    elif any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


_plain_getaddrinfo = socket.getaddrinfo


def _getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    if _guard.get() is None:
        return _plain_getaddrinfo(host, port, family, type, proto, flags)
    return _allowed(
        _plain_getaddrinfo, host, port, family=family, type=type, proto=proto, flags=flags
    )


def _checked(line: socket.socket, address: Any) -> Any:
    """The address to use instead of the one that is asked for. Raises Refused."""
    guard = _guard.get()
    if guard is None:
        return address
    if line.family not in (socket.AF_INET, socket.AF_INET6):
        raise _noted(Refused("Only the internet may be reached."))
    if address[0] not in guard.opened:
        address = _allowed(_plain_getaddrinfo, address[0], address[1], family=line.family)[0][4]
    guard.keep(line)
    return address


class _Guarded:
    """The ways out of a socket, with a look at the address before."""

    @staticmethod
    def connect(plain):
        """For connect and connect_ex, which take an address alone."""

        @functools.wraps(plain)
        def connect(line, address):
            return plain(line, _checked(line, address))

        return connect

    @staticmethod
    def sendto(plain):
        """For sendto, whose address comes last."""

        @functools.wraps(plain)
        def sendto(line, data, *rest):
            return plain(line, data, *rest[:-1], _checked(line, rest[-1]))

        return sendto


def _install() -> None:
    """Put the guard before what Python's code connects with. Outside `guarded` it costs a look-up.

    An address could be connected to without getaddrinfo, so connections are checked, too.
    """
    socket.getaddrinfo = _getaddrinfo
    for name, wrap in (
        ("connect", _Guarded.connect),
        ("connect_ex", _Guarded.connect),
        ("sendto", _Guarded.sendto),
    ):
        setattr(socket.socket, name, wrap(getattr(socket.socket, name)))


_install()
