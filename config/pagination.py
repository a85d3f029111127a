"""Opaque cursors for keyset paging, and the depth cap of numbered pages."""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from config.fields import MAX_ID
from config.problems import Problem, invalid

PAGE_DEPTH_CAP = 10_000  # rows: deeper pages cost in proportion to their depth
MAX_LENGTH = 4_000  # characters of a cursor; a 2 kB name must fit
_VERSION = 1


def encode_cursor(*values: Any, kind: str = "") -> str:
    """The position after a row, as text for the client to send back.

    `values`: the row's sort key (str, int, bool, Decimal, datetime, None each, or a float, which
    comes back as the Decimal of the same number). `kind`: what the cursor belongs to, say sort and
    filters; it does not fit anything else.
    """
    text = json.dumps([_VERSION, kind, *map(_plain, values)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str, types: tuple[Any, ...], *, kind: str = "") -> list[Any]:
    """The values that `encode_cursor` was given.

    `types`: one class per value, or a union with None. Raises a 400 Problem that names `cursor`
    for anything that this API did not hand out for this `kind`.
    """
    parts = _parts(text)
    if len(parts) != len(types) + 2 or parts[0] != _VERSION:
        raise _malformed()
    if parts[1] != kind:
        raise invalid(cursor="Belongs to another sort order or filter; start without a cursor.")
    return [_typed(value, kind_of) for value, kind_of in zip(parts[2:], types, strict=True)]


def position(params: Mapping[str, Any], *types: Any, kind: str) -> Any:
    """The sort key in the parameter `cursor`: a value, or a tuple of several; None without one.

    `types` and `kind` as in `decode_cursor`, with its 400 Problem.
    """
    if "cursor" not in params:
        return None
    values = decode_cursor(params["cursor"], types, kind=kind)
    return values[0] if len(types) == 1 else tuple(values)


def next_cursor(after: Any, *, kind: str) -> str | None:
    """The cursor behind a row with this sort key, a value or a tuple; None for None: the end."""
    if after is None:
        return None
    return encode_cursor(*(after if isinstance(after, tuple) else [after]), kind=kind)


def page_of(rows: list[dict[str, Any]], after: Any, *, kind: str) -> dict[str, Any]:
    """A page as lists answer it; `after` as in `next_cursor`."""
    return {"next_cursor": next_cursor(after, kind=kind), "results": rows}


def check_depth(page: int, page_size: int) -> None:
    """Raise a 400 Problem that names `page` where it lies below PAGE_DEPTH_CAP rows."""
    if page * page_size > PAGE_DEPTH_CAP:
        last = max(1, PAGE_DEPTH_CAP // page_size)
        raise invalid(page=f"Goes to page {last} at this page_size; use cursor to go deeper.")


def _malformed() -> Problem:
    return invalid(cursor="Is not a cursor of this API; start without one.")


def _plain(value: Any) -> Any:
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return str(Decimal(repr(value)))  # repr gives back every bit
        case Decimal():
            return str(value)
        case datetime():
            return value.astimezone(UTC).isoformat()
    raise TypeError(f"A cursor cannot hold {type(value).__name__}.")


def _parts(text: str) -> list[Any]:
    if not text or len(text) > MAX_LENGTH or not text.isascii():
        raise _malformed()
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        parts = json.loads(data)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _malformed() from error
    if not isinstance(parts, list):
        raise _malformed()
    return parts


def _typed(value: Any, wanted: Any) -> Any:
    allowed = getattr(wanted, "__args__", (wanted,))
    if value is None:
        if type(None) in allowed:
            return None
        raise _malformed()
    target = next(one for one in allowed if one is not type(None))
    try:
        return _READERS[target](value)
    except (TypeError, ValueError, OverflowError, InvalidOperation) as error:
        raise _malformed() from error


def _read_text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    value.encode("utf-8")  # lone surrogates are ValueErrors here, not in PostgreSQL
    return value


def _read_integer(value: Any) -> int:
    # Without the least bigint: in a text, -9223372036854775808::bigint negates what is too large.
    if type(value) is not int or not -MAX_ID <= value <= MAX_ID:
        raise ValueError(value)
    return value


def _read_boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(value)
    return value


def _read_decimal(value: Any) -> Decimal:
    number = Decimal(_read_text(value))
    if not number.is_finite() or abs(number.adjusted()) > 30:
        raise ValueError(value)
    return number


def _read_time(value: Any) -> datetime:
    time = datetime.fromisoformat(_read_text(value))
    if time.tzinfo is None:
        raise ValueError(value)
    return time.astimezone(UTC)


_READERS = {
    str: _read_text,
    int: _read_integer,
    bool: _read_boolean,
    Decimal: _read_decimal,
    datetime: _read_time,
}
