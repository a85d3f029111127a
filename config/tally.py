"""Counters that commit with what they count. `/metrics` exposes each under its name.

Each is declared in the `metrics.py` of whoever counts it: its text, its labels, and their values
where these are known, so that it stands there with 0 before the first is counted. A counter that
appears with 1 has grown from nothing for Prometheus, which then does not see it grow.
"""

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Declared:
    """A counter as its domain describes it. `labels`: the values that are known of each label, ()
    where they are not. `bounds`: of the buckets of a histogram, whose `name` has no suffix."""

    name: str
    text: str
    labels: dict[str, tuple[str, ...]]
    bounds: tuple[float, ...] = ()


_declared: dict[str, Declared] = {}


def declare(name: str, text: str, **labels: Iterable[str]) -> None:
    """Describe the counter `name`, which ends in `_total`, or in `_sum` or `_count` of a summary.

    `outcome=("done", "error")` names all values of a label; `source=()` says that they are open.
    """
    known = {label: tuple(values) for label, values in labels.items()}
    _declared[name] = Declared(name, text, known)


def declare_histogram(name: str, text: str, bounds: Sequence[float]) -> None:
    """Describe what `observed` counts under `name`."""
    _declared[name] = Declared(name, text, {}, tuple(bounds))


def declared() -> dict[str, Declared]:
    """Every declared counter by name; of the `metrics.py` that were imported."""
    return dict(sorted(_declared.items()))


def zeros() -> list[Tally]:
    """A row of 0 for each declared counter with labels that are known."""
    return [
        Tally(name=name, labels=labels)
        for each in _declared.values()
        for name, labels in _known(each)
    ]


def _known(each: Declared) -> Iterable[tuple[str, dict[str, str]]]:
    if each.bounds:
        yield f"{each.name}_sum", {}
        for bound in (*each.bounds, math.inf):
            yield f"{each.name}_bucket", {"le": _le(bound)}
        return
    for values in itertools.product(*each.labels.values()):
        yield each.name, dict(zip(each.labels, values, strict=True))


def _le(bound: float) -> str:
    return "+Inf" if bound == math.inf else f"{bound:g}"


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
        Count(f"{name}_bucket", labels | {"le": _le(bound)}),
        Count(f"{name}_sum", labels, value),
    ]


def all() -> list[Tally]:
    """Every counter, by name."""
    return list(Tally.objects.order_by("name", "labels"))


def _json(labels: dict[str, str]):
    return Jsonb({key: str(value) for key, value in sorted(labels.items())})


def _text(labels: dict[str, str]) -> str:
    return json.dumps({key: str(value) for key, value in sorted(labels.items())})
