"""Places on a sphere: geohashes, the cells around a place, and distances.

A geohash (G. Niemeyer, 2008) interleaves the bits of longitude and latitude, longitude first, five
bits a character: places with a common prefix lie in one cell. What is near may still lie across a
border, so a search takes every cell that the circle around a place touches; across ±180° and over
the poles too. `geohash` is equal to `matching_geohash` in SQL.
"""

import math
from collections.abc import Iterator, Sequence

EARTH_RADIUS_M = 6_371_008.8  # mean radius (IUGG); at most 0.6 % off the ellipsoid
PRECISION = 9  # characters: 45 bits, about 5 m by 5 m at the equator
MAX_CELLS = 32
CELL_DIAGONAL_M = 1_400.0  # of a cell of six characters at the equator, where it is the longest

_DIGITS = "0123456789bcdefghjkmnpqrstuvwxyz"
_LONGITUDE_BITS, _LATITUDE_BITS = 23, 22
_BITS = _LONGITUDE_BITS + _LATITUDE_BITS
_COLUMNS, _ROWS = 1 << _LONGITUDE_BITS, 1 << _LATITUDE_BITS

Range = tuple[str, str]


def geohash(latitude: float, longitude: float, precision: int = PRECISION) -> str:
    """The cell of a place in degrees, 1 to 9 characters. +180 and +90 lie in the last cell."""
    column = min(_COLUMNS - 1, math.floor((longitude + 180) / 360 * _COLUMNS))
    row = min(_ROWS - 1, math.floor((latitude + 90) / 180 * _ROWS))
    return _text(_interleave(column, row))[:precision]


def distance_m(
    latitude: float, longitude: float, other_latitude: float, other_longitude: float
) -> float:
    """Metres along the great circle between two places in degrees (haversine)."""
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    half_dphi = (other_phi - phi) / 2
    half_dlambda = math.radians(other_longitude - longitude) / 2
    h = math.sin(half_dphi) ** 2 + math.cos(phi) * math.cos(other_phi) * (
        math.sin(half_dlambda) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, h)))


def rings(latitude: float, longitude: float, radii_m: Sequence[float]) -> list[list[Range]]:
    """For each radius, growing, the ranges of geohashes that its covering adds to those before.

    A range is a first and a last geohash of 9 characters. No two ranges overlap.
    """
    seen: list[tuple[int, int]] = []
    found = []
    for radius in radii_m:
        spans = _merged(
            (cell << (_BITS - 5 * precision), (cell + 1) << (_BITS - 5 * precision))
            for precision, cell in _cells(latitude, longitude, radius)
        )
        found.append([(_text(a), _text(b - 1)) for a, b in _without(spans, seen)])
        seen = _merged([*seen, *spans])
    return found


def haversine(distance: float) -> float:
    """sin² of half the angle of a distance in metres: for comparisons without the inverse."""
    return math.sin(min(math.pi, distance / EARTH_RADIUS_M) / 2) ** 2


def _bounds(latitude: float, radius_m: float) -> tuple[float, float, float]:
    """(south, north, half width) in degrees of the box around a circle; 180 over a pole.

    At least a metre, so that what a border of cells runs through is covered from both sides.
    """
    angle = max(radius_m, 1.0) / EARTH_RADIUS_M
    south, north = latitude - math.degrees(angle), latitude + math.degrees(angle)
    if south <= -90 or north >= 90:
        return max(south, -90.0), min(north, 90.0), 180.0
    half_width = math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(latitude))))
    return south, north, math.degrees(half_width)


def _cells(latitude: float, longitude: float, radius_m: float) -> Iterator[tuple[int, int]]:
    """(precision, number) of each cell of the covering."""
    south, north, half_width = _bounds(latitude, radius_m)
    first_row = max(0, math.floor((south + 90) / 180 * _ROWS))
    last_row = min(_ROWS - 1, math.floor((north + 90) / 180 * _ROWS))
    west = math.floor((longitude - half_width + 180) / 360 * _COLUMNS)
    east = math.floor((longitude + half_width + 180) / 360 * _COLUMNS)
    for precision in range(PRECISION, 0, -1):
        column_bits = (5 * precision + 1) // 2
        row_bits = 5 * precision // 2
        first, last = (x >> (_LONGITUDE_BITS - column_bits) for x in (west, east))
        low, high = (y >> (_LATITUDE_BITS - row_bits) for y in (first_row, last_row))
        columns = min(last - first + 1, 1 << column_bits)
        if columns * (high - low + 1) <= MAX_CELLS:
            break
    for row in range(low, high + 1):
        for column in range(first, first + columns):
            around = column % (1 << column_bits)  # beyond ±180° it goes on at the other end
            yield precision, _interleaved_cell(around, row, precision)


def _interleaved_cell(column: int, row: int, precision: int) -> int:
    # The last bit is one of longitude where the number of bits is odd, of latitude where even.
    if 5 * precision % 2:
        return _spread(column) | (_spread(row) << 1)
    return (_spread(column) << 1) | _spread(row)


def _interleave(column: int, row: int) -> int:
    return _spread(column) | (_spread(row) << 1)


def _spread(bits: int) -> int:
    """The low 32 bits of a number at its even bits (Hacker's Delight, 7-2)."""
    bits = (bits | (bits << 16)) & 0x0000FFFF0000FFFF
    bits = (bits | (bits << 8)) & 0x00FF00FF00FF00FF
    bits = (bits | (bits << 4)) & 0x0F0F0F0F0F0F0F0F
    bits = (bits | (bits << 2)) & 0x3333333333333333
    return (bits | (bits << 1)) & 0x5555555555555555


def _text(bits: int) -> str:
    return "".join(_DIGITS[(bits >> shift) & 31] for shift in range(_BITS - 5, -1, -5))


def _merged(spans) -> list[tuple[int, int]]:
    """Half-open spans in order, those that touch made one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _without(
    spans: list[tuple[int, int]], seen: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """What is left of merged spans where merged `seen` is taken out."""
    for start, end in spans:
        at = start
        for taken_from, taken_to in seen:
            if taken_to <= at or taken_from >= end:
                continue
            if taken_from > at:
                yield at, taken_from
            at = max(at, taken_to)
        if at < end:
            yield at, end
