"""Sending word: by e-mail, by webhook, by Apprise URL. No database.

Everything goes through `config.outgoing`, so that no target lies inside our own network unless
OUTGOING_ALLOWED_HOSTS names its host, and through a limit of time. What a message is called
(`message_id`) is the same each time that it is sent, so that who got it twice can tell.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import smtplib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.headerregistry import Address
from email.utils import parseaddr
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
from django.conf import settings
from django.core import mail

from config import outgoing
from config.rendering import dumps
from config.text import storable
from discovery.models import Watch

SIGNATURE = "Spyglass-Signature"
BODY_BYTES = 64 * 1024  # of an answer, at most
EXCERPT = 200  # characters of it that a reason cites
REASON_LENGTH = 500
LONGEST_RETRY_AFTER = 6 * 3600  # seconds
STEPS = 3  # a mail or an Apprise service takes several exchanges, each within the time limit
# Answers of a client's fault that may be another one next time.
_PASSING = {408, 425, 429}
# Parameters with which an Apprise URL reads files of this host.
_OF_FILES = {"attach", "keyfile", "subfile", "template", "pgp", "pgpkey", "pgppub", "pgpprv", "pem"}
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa1-\ud7ff]+")

# Apprise says why it failed to its log alone. People read it there, not in ours.
_apprise_log = logging.getLogger("apprise")
_apprise_log.propagate = False
_apprise_log.addHandler(logging.NullHandler())


class SendFailed(Exception):
    """A message did not go out. `permanent`: it will not, however often it is tried.
    `retry_after`: seconds that the receiver asks to wait, or None."""

    def __init__(self, reason: str, permanent: bool, retry_after: float | None = None):
        self.reason = storable(reason, REASON_LENGTH)
        super().__init__(self.reason)
        self.permanent = permanent
        self.retry_after = retry_after


@dataclass(frozen=True)
class Message:
    """What is sent: to people as `title` and `text`, to programs as `data` (plain data)."""

    message_id: str
    title: str
    text: str
    data: Mapping[str, Any]


def send(*, channel: str, target: str, secret: str, message: Message) -> None:
    """Send a message. Raises SendFailed; within its time limit, `longest`."""
    match channel:
        case Watch.Channel.EMAIL:
            send_mail(target, message)
        case Watch.Channel.WEBHOOK:
            send_webhook(target, secret, message)
        case Watch.Channel.APPRISE:
            send_apprise(target, message)
        case _:
            raise ValueError(f"nothing is sent by {channel}")


def longest() -> float:
    """Seconds that `send` takes at most, but for looking up a host."""
    return settings.OUTGOING_TIMEOUT_SECONDS * STEPS


def signature(secret: str, body: bytes, at: int) -> str:
    """What the header Spyglass-Signature says: the Unix time, and the HMAC-SHA256 of `at.body`."""
    signed = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"


def check_apprise_url(url: str) -> None:
    """Raise outgoing.Refused unless Apprise knows the URL and may be let loose on it.

    Only services that are reached by HTTP, and none that reads files of this host.
    """
    service = _apprise_service(url)
    if service is None:
        raise outgoing.Refused("Is no Apprise URL that is complete (see https://appriseit.com).")
    if not _is_web_service(type(service)):
        raise outgoing.Refused("Is of a service that is not reached by HTTP.")
    if _OF_FILES & {name.lstrip("+-:").lower() for name in parse_qs(urlsplit(url).query)}:
        raise outgoing.Refused("Names a file, which is not read here.")
    # Others have tokens where a URL has its host, and go to their own service.
    if any("{host}" in template for template in service.templates) and service.host:
        outgoing.allowed(service.host.strip("[]"), service.port or 443)


def send_mail(address: str, message: Message) -> None:
    """Send a message by the mail server of EMAIL_URL. Raises SendFailed."""
    if not settings.EMAIL_URL:
        raise SendFailed("No mail server is set up (EMAIL_URL).", permanent=False)
    email = mail.EmailMessage(
        message.title,
        message.text,
        to=[address],
        headers={
            "Message-ID": f"<{message.message_id}@{_sender_domain()}>",
            "Auto-Submitted": "auto-generated",
        },
    )
    try:
        # The operator set the server: it may be anywhere.
        with outgoing.guarded(seconds=longest(), also=[settings.EMAIL_HOST]):
            email.send()
    except smtplib.SMTPRecipientsRefused as error:
        code, reason = next(iter(error.recipients.values()))
        raise SendFailed(f"{code} {_readable(reason)}", permanent=code >= 500) from error
    except smtplib.SMTPDataError as error:
        reason = f"{error.smtp_code} {_readable(error.smtp_error)}"
        raise SendFailed(reason, permanent=error.smtp_code >= 500) from error
    except (smtplib.SMTPException, OSError) as error:
        raise SendFailed(f"The mail server: {_readable(error)}", permanent=False) from error


def send_webhook(url: str, secret: str, message: Message) -> None:
    """POST a message as signed JSON. Redirects are not followed. Raises SendFailed."""
    body = dumps(message.data)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"Spyglass/{settings.VERSION}",
        "Idempotency-Key": message.message_id,
        SIGNATURE: signature(secret, body, int(time.time())),
    }
    try:
        outgoing.check_url(url)
        with outgoing.guarded():
            status, answer, retry_after = asyncio.run(_post(url, body, headers))
    except outgoing.Refused as refused:
        temporary = isinstance(refused, outgoing.Unresolved)
        raise SendFailed(str(refused), permanent=not temporary) from refused
    except TimeoutError as error:
        limit = settings.OUTGOING_TIMEOUT_SECONDS
        raise SendFailed(f"No answer within {limit:g} s.", permanent=False) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _not_reached(error) from error
    if not 200 <= status < 300:
        permanent = 300 <= status < 500 and status not in _PASSING
        raise SendFailed(f"{status} {answer}".strip(), permanent, retry_after)


def send_apprise(url: str, message: Message) -> None:
    """Send a message to the service of an Apprise URL. Raises SendFailed."""
    try:
        check_apprise_url(url)
    except outgoing.Refused as refused:
        temporary = isinstance(refused, outgoing.Unresolved)
        raise SendFailed(str(refused), permanent=not temporary) from refused
    service = _apprise_service(url)
    with outgoing.guarded(seconds=longest()) as guard, _said() as said:
        try:
            # Called itself and not by Apprise's dispatcher, whose threads the guard would not see.
            sent = service.notify(title=message.title, body=message.text, body_format="text")
        except (TypeError, OSError, ValueError) as error:
            said.append(_readable(error))
            sent = False
    if sent:
        return
    if guard.refused:
        raise SendFailed(guard.refused, permanent=True)
    if guard.is_cut:
        raise SendFailed(f"Not done within {longest():g} s.", permanent=False)
    raise SendFailed("; ".join(said) or "The service did not take it.", permanent=False)


async def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, float | None]:
    """Status, an excerpt of the answer, and the seconds that it asks to wait."""
    timeout = aiohttp.ClientTimeout(total=settings.OUTGOING_TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(resolver=outgoing.GuardedResolver(), force_close=True)
    async with (
        aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        read = bytearray()
        while len(read) < BODY_BYTES and (part := await response.content.read(BODY_BYTES)):
            read += part
        return (
            response.status,
            _readable(bytes(read)),
            outgoing.retry_after(response.headers, most=LONGEST_RETRY_AFTER),
        )


def _not_reached(error: Exception) -> SendFailed:
    inner = getattr(error, "os_error", None) or error
    refused = isinstance(inner, outgoing.Refused) and not isinstance(inner, outgoing.Unresolved)
    # Of its own errors aiohttp says where it went, of others what happened.
    reason = str(inner) if isinstance(inner, outgoing.Refused) else _readable(error)
    wrong = isinstance(error, aiohttp.InvalidURL)
    return SendFailed(reason or type(error).__name__, permanent=refused or wrong)


def _apprise_service(url: str):
    """The service of an Apprise URL; None where there is none."""
    import apprise  # takes half a second: only who uses it pays

    outgoing.limit_requests()

    asset = apprise.AppriseAsset(
        app_id="Spyglass",
        app_desc="Spyglass",
        storage_mode="memory",  # nothing is written to the disk
        pgp_autogen=False,
        pem_autogen=False,
        allow_templates=False,
    )
    try:
        return apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    except (TypeError, ValueError, AttributeError, KeyError):
        # Some of the many services stumble over URLs that others refuse.
        return None


@cache
def _is_web_service(service: type) -> bool:
    """Whether a service of Apprise is reached by requests alone, as far as its modules show."""
    import sys

    modules = [
        sys.modules[base.__module__]
        for base in service.__mro__
        if base.__module__.startswith("apprise.plugins.")
        and base.__module__ != "apprise.plugins.base"
    ]
    others = {"smtplib", "socket", "subprocess", "ctypes"}
    return any(hasattr(module, "requests") for module in modules) and not any(
        hasattr(module, name) for module in modules for name in others
    )


class _Ear(logging.Handler):
    """Keeps what is logged in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self.said) < 5:
            self.said.append(_readable(record.getMessage()))


@contextmanager
def _said() -> Iterator[list[str]]:
    ear = _Ear()
    _apprise_log.addHandler(ear)
    try:
        yield ear.said
    finally:
        _apprise_log.removeHandler(ear)


def _sender_domain() -> str:
    return Address(addr_spec=parseaddr(settings.DEFAULT_FROM_EMAIL)[1]).domain or "localhost"


def _readable(value: Any) -> str:
    """One short line, whatever it was."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return _UNPRINTABLE.sub(" ", text).strip()[:EXCERPT]
