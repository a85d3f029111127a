"""What staff may see of targets, errors and configs: no credentials. Pure."""

import re
from typing import Any
from urllib.parse import urlsplit

from discovery.models import Watch

_URL = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s'\"<>]*)", re.IGNORECASE)
_PATH_AFTER_URL = re.compile(r"(\burl: )/\S+", re.IGNORECASE)
_SECRET_KEY = re.compile(r"auth|token|key|secret|passw|cookie|credential", re.IGNORECASE)
_PART = re.compile(r"[^/?&=:@#]{6,}")  # of a target: long enough to be a secret
_HIDDEN = "…"


def shown_target(watch: Watch) -> str:
    """Where a watch sends word, without what would let others send there.

    Of a webhook its host, of an Apprise URL its scheme: paths, queries and there even hosts hold
    tokens.
    """
    if watch.channel == Watch.Channel.EMAIL:
        return watch.target
    if not watch.target:
        return ""
    if watch.channel == Watch.Channel.APPRISE:
        return f"{watch.target.partition('://')[0]}://{_HIDDEN}"
    return without_credentials(watch.target)


def without_credentials(text: str) -> str:
    """`text` with every URL cut down to its scheme and host."""

    def cut(found: re.Match) -> str:
        try:
            host = urlsplit(found[0]).hostname or ""
        except ValueError:
            host = ""
        return f"{found[1]}://{host}/{_HIDDEN}"

    return _PATH_AFTER_URL.sub(rf"\1/{_HIDDEN}", _URL.sub(cut, text))


def shown_error(text: str, watch: Watch | None = None) -> str:
    """An error without credentials: URLs are cut, and so is every part of the watch's target."""
    if watch is not None:
        secrets = [watch.secret] if watch.secret else []
        if watch.channel in (Watch.Channel.WEBHOOK, Watch.Channel.APPRISE):
            host = ""
            if watch.channel == Watch.Channel.WEBHOOK:
                host = (urlsplit(watch.target).hostname or "") if "[" not in watch.target else ""
            rest = watch.target.partition("://")[2]
            secrets += [part for part in _PART.findall(rest) if part.lower() != host]
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
    return without_credentials(text)


def masked(value: Any) -> Any:
    """A config for people who may look, not change: no values of telling keys, no queries."""
    if isinstance(value, dict):
        return {
            key: _HIDDEN if _SECRET_KEY.search(str(key)) else masked(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [masked(each) for each in value]
    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value) if "[" not in value else None
        if parts is None or parts.query or "@" in parts.netloc:
            return without_credentials(value)
    return value
