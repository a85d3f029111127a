"""What a provider is, and the HTTP that providers share.

Whatever a source answers that is not a whole, well-formed answer is a failed poll, with a reason
for people to read: nothing opens and nothing closes by it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urljoin

import aiohttp
import orjson
from django.conf import settings
from django.utils import timezone

from config import outgoing
from config.text import storable
from discovery.models import Source
from discovery.polls import InvalidPoll, Poll, clean_poll

BODY_BYTES = 32 * 1024 * 1024  # of one answer, unpacked
CHUNK_BYTES = 64 * 1024
REDIRECTS = 5
CONNECT_SECONDS = 5.0
LONGEST_PAUSE = 86_400  # seconds; what a source may ask for at most, by ttl or Retry-After
MAY_BE_JSON = ("text/plain", "application/octet-stream", "binary/octet-stream")  # as hosts label it

Memory = dict[str, Any]


class FetchFailed(Exception):
    """A poll brought no answer that can be used. `reason` is for people.

    `retry_after`: seconds for which the source asked not to be polled, None where it did not.
    """

    def __init__(self, reason: str, retry_after: float | None = None):
        self.reason = storable(reason)  # of what a host said
        super().__init__(self.reason)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Fetched:
    """What a fetch brought. `poll` None: the source says that nothing changed (HTTP 304).

    `memory`: what to give the next fetch, by URL: validators, and what a provider adds.
    `floor_seconds`: how long the source asks to wait until the next poll.
    """

    poll: Poll | None
    memory: Memory = field(default_factory=dict)
    floor_seconds: int = 0


class Provider(Protocol):
    """Where polls of one kind of source come from. It holds no state: `source.validators` does."""

    def check(self, config: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with the config of a source: {key: reason}, reasons for people."""

    def is_standing(self, config: Mapping[str, Any]) -> bool:
        """Whether its slots name no day, so that the source needs `window_days` 0."""

    async def fetch(self, session: aiohttp.ClientSession, source: Source) -> Fetched:
        """Ask the source. `source.validators` is the memory of the last fetch. Raises FetchFailed.

        The poll's `polled_at` is when its answer had come.
        """


@dataclass(frozen=True)
class Answer:
    """A JSON answer; `changed` False (and no data) where the host says that it is as before.

    `memory`: the validators to ask with next time.
    """

    data: Any
    changed: bool
    memory: Memory


def session() -> aiohttp.ClientSession:
    """The one HTTP session of a process: it keeps no cookies, and connects to allowed addresses."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=outgoing.GuardedResolver(), limit=32, limit_per_host=4
        ),
        timeout=aiohttp.ClientTimeout(
            total=settings.OUTGOING_TIMEOUT_SECONDS,
            sock_connect=min(CONNECT_SECONDS, settings.OUTGOING_TIMEOUT_SECONDS),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": f"Spyglass/{settings.VERSION} (availability poller)",
            "Accept": "application/json",
        },
    )


async def get_json(session: aiohttp.ClientSession, url: str, memory: Memory) -> Answer:
    """GET a URL that answers with JSON, if it changed since `memory`. Raises FetchFailed.

    Redirects are followed by hand, as each target must be allowed. All of it together takes
    OUTGOING_TIMEOUT_SECONDS at most.
    """
    limit, name = settings.OUTGOING_TIMEOUT_SECONDS, shown(url)
    try:
        async with asyncio.timeout(limit):
            return await _follow(session, url, memory)
    except aiohttp.ConnectionTimeoutError as error:
        raise FetchFailed(f"Cannot connect to {name} in time") from error
    except TimeoutError as error:
        raise FetchFailed(f"{name} gave no whole answer within {limit:g} s") from error
    except outgoing.Refused as error:
        raise FetchFailed(f"{name} is not asked: {error}") from error
    except aiohttp.ClientPayloadError as error:
        raise FetchFailed(f"The answer of {name} broke off") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, outgoing.Refused):
            raise FetchFailed(f"{name} is not asked: {error.os_error}") from error
        raise FetchFailed(f"Cannot connect to {name}: {error.os_error}") from error
    except aiohttp.ClientResponseError as error:  # as text it has the whole URL in it
        said = " ".join(error.message.split())
        raise FetchFailed(f"{name} does not speak HTTP well: {said}") from error
    except aiohttp.InvalidURL as error:
        raise FetchFailed(f"{name} leads to what is no URL") from error
    except (aiohttp.ClientError, OSError) as error:
        said = str(error) or type(error).__name__
        raise FetchFailed(f"Cannot read the answer of {name}: {said}") from error


def checked_poll(given: Mapping[str, Any], *, what: str) -> Poll:
    """`clean_poll` of what a source showed just now. Raises FetchFailed with its first errors."""
    try:
        return clean_poll({**given, "polled_at": timezone.now()})
    except InvalidPoll as error:
        first = [f"{name}: {reason}" for name, reason in list(error.errors.items())[:3]]
        more = len(error.errors) - len(first)
        others = f" (and {more} more)" if more else ""
        raise FetchFailed(f"{what} cannot be recorded: {' '.join(first)}{others}") from error


def check_url(value: Any) -> str:
    """What is wrong with a URL in a config, "" where nothing is. Looks its host up."""
    if not isinstance(value, str) or not value:
        return "Must be a URL (https://…)."
    try:
        outgoing.check_url(value)
    except outgoing.Refused as refused:
        return str(refused)
    return ""


def shown(url: str) -> str:
    """A URL as reasons name it: without its query, which may hold a key."""
    return url.partition("?")[0].partition("#")[0]


def unknown_keys(config: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, str]:
    """An error for each key of a config that the provider does not know."""
    return {
        str(key): f"Is not a key here; known: {', '.join(known)}."
        for key in config
        if key not in known
    }


def plain_text(value: Any) -> str:
    """Text in one line without control characters; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return "".join(filter(str.isprintable, " ".join(value.split())))


def seconds(value: Any) -> int:
    """A number of seconds as a source says it, within 0 and LONGEST_PAUSE; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(min(max(value, 0), LONGEST_PAUSE))


async def _follow(session: aiohttp.ClientSession, url: str, memory: Memory) -> Answer:
    at = url
    for _ in range(REDIRECTS + 1):
        # Of an address in the URL itself the resolver is not asked; of a name it is, once more.
        await asyncio.to_thread(outgoing.check_url, at)
        async with session.get(at, headers=_conditions(memory), allow_redirects=False) as response:
            if response.status in {301, 302, 303, 307, 308}:
                target = response.headers.get("Location")
                if not target:
                    raise FetchFailed(f"{shown(at)} redirects to nowhere")
                at = urljoin(at, target)
                continue
            return await _read(response, shown(at), memory)
    raise FetchFailed(f"{shown(url)} redirects more than {REDIRECTS} times")


def _conditions(memory: Memory) -> dict[str, str]:
    names = {"etag": "If-None-Match", "last_modified": "If-Modified-Since"}
    return {header: memory[name] for name, header in names.items() if memory.get(name)}


async def _read(response: aiohttp.ClientResponse, name: str, memory: Memory) -> Answer:
    if response.status == 304:
        if not _conditions(memory):
            raise FetchFailed(f"{name} says that nothing changed, but was not asked")
        return Answer(None, changed=False, memory=memory)
    if response.status != 200:
        raise FetchFailed(
            f"{name} answered {response.status} {response.reason or ''}".strip(),
            retry_after=outgoing.retry_after(response.headers, most=LONGEST_PAUSE),
        )
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and not (kind.endswith(("/json", "+json")) or kind in MAY_BE_JSON):
        raise FetchFailed(f"{name} answered {kind[:100]}, not JSON")
    body = await _body(response, name)
    if not body.strip():
        raise FetchFailed(f"{name} answered with nothing")
    try:
        # In a thread: of a large answer the others would have to wait for the end.
        data = await asyncio.to_thread(orjson.loads, body)
    except orjson.JSONDecodeError as error:
        raise FetchFailed(f"The answer of {name} is not JSON: {error}") from error
    said = {"etag": "ETag", "last_modified": "Last-Modified"}
    found = {key: response.headers.get(header, "") for key, header in said.items()}
    return Answer(data, changed=True, memory={k: v for k, v in found.items() if _can_be_sent(v)})


async def _body(response: aiohttp.ClientResponse, name: str) -> bytes:
    too_large = FetchFailed(f"The answer of {name} is larger than {BODY_BYTES // 1024**2} MiB")
    if (response.content_length or 0) > BODY_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > BODY_BYTES:
            raise too_large
    return bytes(body)


def _can_be_sent(value: str) -> bool:
    return 0 < len(value) <= 1_000 and value.isascii() and value.isprintable()
