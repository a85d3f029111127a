"""Counters that commit with what they count. `/metrics` exposes each under its name."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db import connection
from psycopg.types.json import Jsonb

from config.models import Tally
from config.sqlfiles import queries


class Count(NamedTuple):
    """By how much a counter `name{labels}` grows."""

    name: str
    labels: dict[str, str]
    value: float = 1


def add(name: str, value: float = 1, **labels: str) -> None:
    """Add `value` to the counter `name{labels}` in the caller's transaction.

    The row stays locked until that transaction ends: make this the last statement of a long one.
    """
    if not value:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            queries("config")["add_to_tally"],
            {"name": name, "labels": _json(labels), "value": value},
        )


def add_all(counts: Iterable[Count]) -> None:
    """`add` for several counters, each named once, in one statement; in an order all agree on."""
    rows = sorted((one.name, _text(one.labels), float(one.value)) for one in counts if one.value)
    if not rows:
        return
    names, labels, values = zip(*rows, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            queries("config")["add_to_tallies"],
            {"names": list(names), "labels": list(labels), "values": list(values)},
        )


def observed(
    name: str, value: float, bounds: Sequence[float], labels: dict[str, str] | None = None
) -> list[Count]:
    """What adds `value` to the histogram `name{labels}`; its buckets end at `bounds`, ascending."""
    labels = labels or {}
    bound = next((bound for bound in bounds if value <= bound), math.inf)
    return [
        Count(f"{name}_bucket", labels | {"le": "+Inf" if bound == math.inf else f"{bound:g}"}),
        Count(f"{name}_sum", labels, value),
    ]


def all() -> list[Tally]:
    """Every counter, by name."""
    return list(Tally.objects.order_by("name", "labels"))


def _json(labels: dict[str, str]):
    return Jsonb({key: str(value) for key, value in sorted(labels.items())})


def _text(labels: dict[str, str]) -> str:
    return json.dumps({key: str(value) for key, value in sorted(labels.items())})
