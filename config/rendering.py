"""JSON in and out by orjson, and the answers that carry it.

DRF imports this module while it loads itself: nothing here may import `rest_framework.views`.
"""

import hashlib
import json
from decimal import Decimal
from typing import Any

import orjson
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpResponse
from django.utils.functional import Promise
from rest_framework.exceptions import NotAcceptable, ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.response import Response

from config import caching

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal | Promise):
        return str(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, dict):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form; convert it before rendering.")


def dumps(data: Any) -> bytes:
    """JSON as UTF-8 bytes. Decimals become strings (no digit is lost), UTC times end in Z.

    Text with lone surrogates, which UTF-8 cannot carry, is escaped as the standard library does.
    """
    try:
        return orjson.dumps(data, default=_plain, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        if "surrogates" not in str(error) and "UTF-8" not in str(error):
            raise
        return json.dumps(data, default=_plain, separators=(",", ":")).encode("ascii")


def digest(data: Any) -> str:
    """20 hex digits that stand for plain data: in keys of caches and kinds of cursors."""
    return hashlib.blake2b(dumps(data), digest_size=10).hexdigest()


def respond_private(request, data: Any, state: str = "") -> HttpResponse:
    """The answer with data of one person's: nobody keeps it without asking whether it still stands.

    304 where If-None-Match knows it. `state`: hit or miss where a cache was asked, else nothing is
    said.
    """
    body = dumps(data)
    etag = caching.etag_of(body)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if state:
        headers["X-Cache"] = state
    return caching.conditional(request, body, etag, headers, "application/json")


def respond_written(data: Any, *, status: int = 200, location: str = "") -> Response:
    """The answer to a write, which nobody keeps. `location`: the path of what was made."""
    headers = {"Location": location} if location else {}
    return Response(data, status=status, headers=headers | {"Cache-Control": "no-store"})


class OrjsonRenderer(BaseRenderer):
    """Renders with `dumps`."""

    media_type = "application/json"
    format = "json"
    charset = None  # JSON is UTF-8 by definition (RFC 8259, section 8.1)
    render_style = "binary"

    def render(self, data, accepted_media_type=None, renderer_context=None) -> bytes:
        return b"" if data is None else dumps(data)


def read_body(stream) -> bytes:
    """A request's body; raises RequestDataTooBig beyond DATA_UPLOAD_MAX_MEMORY_SIZE bytes."""
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    body = stream.read(limit + 1)
    if len(body) > limit:
        raise RequestDataTooBig(f"The request body is larger than {limit} bytes.")
    return body


class OrjsonParser(BaseParser):
    """Parses a JSON body of at most DATA_UPLOAD_MAX_MEMORY_SIZE bytes.

    Deep nesting, NaN, and lone surrogates are parse errors here, where the standard library
    raises RecursionError or lets them through.
    """

    media_type = "application/json"

    def parse(self, stream, media_type=None, parser_context=None) -> Any:
        """Raises ParseError (400) for what is not JSON, RequestDataTooBig (413)."""
        try:
            return orjson.loads(read_body(stream))
        except orjson.JSONDecodeError as error:
            raise ParseError(f"The body is not valid JSON: {error}.") from error


class Negotiation(DefaultContentNegotiation):
    """Answers in the default format when no acceptable one exists.

    RFC 9110 (section 12.5.1) allows it, and it keeps cached bytes independent of Accept.
    """

    def select_renderer(self, request, renderers, format_suffix=None):
        try:
            return super().select_renderer(request, renderers, format_suffix)
        except NotAcceptable:
            return renderers[0], renderers[0].media_type
