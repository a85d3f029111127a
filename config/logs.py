"""Log lines: text for people or one JSON object each, what they belong to, and no secret in them.

What is logged while a request or a job is at work carries its `request_id`, `job` and `run`. Both
formatters mask what looks like a secret, and what the environment says is one, in messages and
tracebacks alike. Imports no Django: the web server's own process logs by this, too.
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

MASK = "***"
# What a record may bring by `extra`, and in which order it is written.
FIELDS = ("user_id", "method", "path", "status", "duration_seconds")
LEAST_SECRET = 10  # characters: a shorter value of the environment may be any word of a message

_bound: ContextVar[Mapping[str, str | int]] = ContextVar(
    "spyglass_log_context", default=MappingProxyType({})
)

_SECRET_NAME = (
    r"(?:passw(?:or)?d|pwd|secret|token|api_?-?key|access_?-?key|secret_?-?key"
    r"|credentials?|signature|sessionid|csrfmiddlewaretoken|cookie)"
)
_PATTERNS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # Authorization: Token x; 'HTTP_AUTHORIZATION': 'Basic x'
        (r"(authorization['\"]?\s*[:=,]\s*b?['\"]?)(?:\w+\s+)?[^\s'\",;]+", rf"\1{MASK}"),
        (r"\b(bearer|token|basic)(\s+)[\w.~+/=-]{16,}", rf"\1\2{MASK}"),
        # scheme://user:password@host, scheme://:password@host
        (r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s:/?#@'\"]*):[^\s/?#'\"]*@", rf"\1:{MASK}@"),
        (rf"({_SECRET_NAME}['\"]?\s*[:=]\s*b?)(['\"])(?:\\.|(?!\2).)*\2", rf"\1\2{MASK}\2"),
        (rf"({_SECRET_NAME}['\"]?\s*[:=]\s*)[^\s'\",;&)}}\]]+", rf"\1{MASK}"),
    )
]
_NAMES_OF_SECRETS = re.compile(r"(SECRET|PASSWORD|TOKEN|KEY)$|SECRET_|_SECRET")


def first_line(error: BaseException | str) -> str:
    """What an error says first; PostgreSQL's go on with details."""
    return str(error).partition("\n")[0]


@contextlib.contextmanager
def bound(**what: str | int) -> Iterator[None]:
    """Have what is logged in the block carry these, on top of what it carries already."""
    token = _bound.set({name: one for name, one in {**_bound.get(), **what}.items() if one})
    try:
        yield
    finally:
        _bound.reset(token)


def begin(**what: str | int) -> None:
    """Have what this process logs from now on carry these alone."""
    _bound.set({name: one for name, one in what.items() if one})


def request_id() -> str:
    """The id of the request that is at work, or that asked for the job at work; "" for none."""
    return str(_bound.get().get("request_id", ""))


def _context(record: logging.LogRecord) -> Mapping[str, str | int]:
    """What a record belongs to. Django logs an answer of 4xx when the request has just ended."""
    given = getattr(getattr(record, "request", None), "request_id", "")
    return _bound.get() or ({"request_id": given} if given else {})


class _Masking(logging.Formatter):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._secrets = secrets_of(os.environ)

    def mask(self, text: str) -> str:
        return mask(text, self._secrets)


class TextFormatter(_Masking):
    """A line for people, with the request, where it has one, at its end."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        request = _context(record).get("request_id")
        return f"{line} [request {request}]" if request else line

    def format(self, record: logging.LogRecord) -> str:
        return self.mask(super().format(record))


class JsonFormatter(_Masking):
    """One JSON object a line: time, level, logger, message; request_id, job, run where it belongs
    to them; what the record brings of FIELDS; exception."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.mask(record.getMessage()),
            **_context(record),
        }
        for name in FIELDS:
            value = record.__dict__.get(name)
            if value is not None:
                line[name] = self.mask(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = self.mask(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = self.mask(record.stack_info)
        return json.dumps(line, default=str)  # ASCII: no line breaks, no lone surrogates


def mask(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without `secrets`, and without what looks like one: credentials of Authorization
    headers and URLs, values of names like password, token, secret."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets that settings hold: of variables that are named so, and passwords of URLs."""
    found = set()
    for name, value in environment.items():
        if _NAMES_OF_SECRETS.search(name):
            found.add(value)
        elif "://" in value:
            with contextlib.suppress(ValueError):  # not a URL after all
                password = urlsplit(value).password or ""
                found |= {password, unquote(password)}
    return tuple(sorted((one for one in found if len(one) >= LEAST_SECRET), key=len, reverse=True))
