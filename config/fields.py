"""What domains share in checking values from outside, field by field. Pure: no database, no HTTP.

Which fields there are, and what each may hold, is the domains' own.
"""

from collections.abc import Callable, Mapping
from typing import Any

MAX_ID = 2**63 - 1  # of a bigint
NAME_SHOWN = 100  # characters of a name that is no field


class InvalidFields(ValueError):
    """Fields that cannot be stored. `errors`: {field: reason}, reasons for people to read."""

    def __init__(self, errors: Mapping[str, str]):
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in errors.items()))
        self.errors = dict(errors)


class Refused(ValueError):
    """Why one value was not taken."""


def printable(name: Any) -> str:
    """A name that somebody made up, as a message may repeat it."""
    return "".join(filter(str.isprintable, str(name)))[:NAME_SHOWN] or "(no name)"


def text(value: Any, limit: int) -> str:
    """Text of at most `limit` characters, as it is. Raises Refused."""
    if not isinstance(value, str):
        raise Refused("Must be text.")
    if len(value) > limit:
        raise Refused(f"Must be {limit:,} characters at most, not {len(value):,}.")
    return value


def integer(value: Any, least: int, most: int) -> int:
    """An integer from `least` to `most`, and no boolean. Raises Refused."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Refused(f"Must be an integer from {least:,} to {most:,}.")
    return value


def degrees(value: Any, limit: int) -> float:
    """A number from -`limit` to `limit`. Raises Refused."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -limit <= value <= limit:  # NaN is not, either
        raise Refused(f"Must be a number of degrees from -{limit} to {limit}.")
    return float(value)


def entries(value: Any, limit: int) -> list | tuple:
    """A list of at most `limit` entries. Raises Refused."""
    if not isinstance(value, list | tuple):
        raise Refused("Must be a list.")
    if len(value) > limit:
        raise Refused(f"Must have {limit:,} entries at most, not {len(value):,}.")
    return value


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same check, which None passes."""
    return lambda value: None if value is None else check(value)
