"""What the staff pages draw: the cells around an item, and a score as a waterfall."""

import math
from dataclasses import dataclass
from typing import Any

from matching import queries
from matching.geo import distance_m, geohash
from matching.kinds import COUNTERPARTS
from matching.models import Item

_BITS = 15  # of longitude and of latitude each in a geohash of 6 characters
_PER_DEGREE_M = 111_195  # along a meridian, on the sphere of `matching.geo`
_ROW = 100  # height of a cell in the picture
_SCALES_M = (50, 100, 200, 500, 1_000)


@dataclass(frozen=True)
class _Cell:
    """A cell of the picture; `x` and `y` are its upper left corner."""

    name: str
    x: float
    y: float
    middle: bool


@dataclass(frozen=True)
class _Dot:
    """An item in the picture."""

    item_id: int
    kind: str
    x: float
    y: float
    metres: int
    counterpart: bool


def cell_view(item: Item) -> dict[str, Any] | None:
    """The geohash cell (6 characters) of an item with its neighbours, and the live items in them.

    Positions are in units of the picture, north up; a cell is 100 high. Cells go on across ±180°
    and end at the poles. None for an item without a place. One query.
    """
    if item.geohash is None:
        return None
    columns = rows = 1 << _BITS
    column = min(columns - 1, math.floor((item.longitude + 180) / 360 * columns))
    row = min(rows - 1, math.floor((item.latitude + 90) / 180 * rows))
    # A cell is twice as wide as high at the equator; near the poles it keeps a readable width.
    width = _ROW * max(0.5, 2 * math.cos(math.radians(item.latitude)))
    cells = [
        _Cell(_name(column + dx, row + dy), (dx + 1) * width, (1 - dy) * _ROW, dx == dy == 0)
        for dy in (1, 0, -1)
        for dx in (-1, 0, 1)
        if 0 <= row + dy < rows
    ]

    def place(latitude: float, longitude: float) -> tuple[float, float]:
        across = (longitude + 180) / 360 * columns - (column - 1)
        across = (across + columns / 2) % columns - columns / 2  # the shorter way round
        down = (row + 2) - (latitude + 90) / 180 * rows
        return round(across * width, 1), round(down * _ROW, 1)

    found = queries.items_in_cells(cells=[cell.name for cell in cells], except_item=item.pk)
    dots = [
        _Dot(
            one["item_id"],
            one["kind"],
            *place(one["latitude"], one["longitude"]),
            round(distance_m(item.latitude, item.longitude, one["latitude"], one["longitude"])),
            one["kind"] == COUNTERPARTS[item.kind],
        )
        for one in found
    ]
    per_metre = _ROW / (_PER_DEGREE_M * 180 / rows)
    scale = max(metres for metres in _SCALES_M if metres * per_metre <= width)
    return {
        "name": item.geohash[:6],
        "box": f"-1 -1 {3 * width + 2:.1f} {3 * _ROW + 30}",
        "cell_width": round(width, 1),
        "cell_height": _ROW,
        "cells": cells,
        # Counterparts last: they lie on top.
        "dots": sorted(dots, key=lambda dot: dot.counterpart),
        "counterparts": sum(dot.counterpart for dot in dots),
        "others": sum(not dot.counterpart for dot in dots),
        "capped": len(dots) == queries.CELL_ITEMS,
        "here": place(item.latitude, item.longitude),
        "scale": {
            "metres": scale,
            "length": round(scale * per_metre, 1),
            "y": 3 * _ROW + 16,
        },
    }


def _name(column: int, row: int) -> str:
    """The cell by its numbers, counted from the west and the south."""
    columns = rows = 1 << _BITS
    longitude = ((column % columns) + 0.5) / columns * 360 - 180
    return geohash((row + 0.5) / rows * 180 - 90, longitude, 6)


def waterfall(score: float, components: list[dict[str, Any]]) -> dict[str, Any]:
    """A score as the steps that lead up to it, the largest first; positions in percent.

    Steps that take away go back. Where the contributions do not add up to the score, a last step
    says by how much it was calibrated.
    """
    steps, at = [], 0.0
    ordered = sorted(components, key=lambda one: -abs(one["contribution"]))
    for one in ordered:
        steps.append(one | {"start": at, "end": at + one["contribution"]})
        at += one["contribution"]
    if abs(score - at) > 0.005:
        rest = {"name": "calibration", "raw": None, "weight": None, "contribution": score - at}
        steps.append(rest | {"start": at, "end": score})
    low = min([0.0, *(step["end"] for step in steps)])
    high = max([1.0, *(step["end"] for step in steps)])
    scale = 100 / (high - low)

    def bar(start: float, end: float) -> dict[str, str]:
        left, width = (min(start, end) - low) * scale, abs(end - start) * scale
        return {"left": f"{left:.2f}", "width": f"{max(width, 0.3):.2f}"}

    return {
        "steps": [
            {
                "name": step["name"],
                "raw": "–" if step["raw"] is None else f"{step['raw']:.2f}",
                "weight": "–" if step["weight"] is None else f"{step['weight']:.2f}",
                "contribution": f"{step['contribution']:+.3f}".replace("-", "−"),
                "takes": step["contribution"] < 0,
                "bar": bar(step["start"], step["end"]),
            }
            for step in steps
        ],
        "score": f"{score:.3f}",
        "total": bar(0.0, score),
        "half": f"{(0.5 - low) * scale:.2f}",
    }
