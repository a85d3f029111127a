"""Attributes in a form that can be compared, and how far two items' attributes agree.

People and shops write one fact in many ways: `64 GB` and `65536 MB`, `1.299,00 €` and 1299,
`Lothian Street, 41` and `41 Lothian St`. `normalise` settles that once, when an item is written;
`agreement` compares what is left, for the attributes that both items have.
"""

import math
import re
from collections.abc import Mapping

from matching.text import tokens

ATTRIBUTES = 50
WORDS = 16
NAME_LENGTH = 60

Feature = bool | float | list[str]

# Factors to the unit that a quantity is kept in: metre, kilogram, watt, hertz, byte, litre.
_UNITS = {
    "mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3, "in": 0.0254, "inch": 0.0254, "inches": 0.0254,
    "ft": 0.3048, "feet": 0.3048, "mi": 1609.344, "miles": 1609.344,
    "mg": 1e-6, "g": 1e-3, "kg": 1.0, "oz": 0.028349523, "lb": 0.45359237, "lbs": 0.45359237,
    "w": 1.0, "kw": 1e3, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9,
    "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "ml": 1e-3, "cl": 1e-2, "l": 1.0,
}  # fmt: skip

_QUANTITY = re.compile(
    r"(?:eur|usd|gbp|[$£€¥])?\s*([+-]?[0-9][0-9.,]{0,20})\s*(?:eur|usd|gbp|[$£€¥]|([a-z]{1,6}))?\.?"
)


def normalise(attributes: Mapping) -> dict[str, Feature]:
    """What `items.features` stores: names folded, values as a number, words or a boolean.

    Numbers with a unit are brought to metres, kilograms, watts, hertz, bytes or litres. Digits
    alone in a text (`15213`) stay words: they may be a post code. What is empty, nested or not
    finite is left out. At most ATTRIBUTES names and WORDS words a value.
    """
    features: dict[str, Feature] = {}
    for name, value in attributes.items():
        key = "_".join(tokens(str(name)[: NAME_LENGTH * 2]))[:NAME_LENGTH]
        feature = _feature(value)
        if key and feature is not None:
            features.setdefault(key, feature)
        if len(features) >= ATTRIBUTES:
            break
    return features


def agreement(left: Mapping[str, Feature], right: Mapping[str, Feature]) -> float | None:
    """How far two items' features agree, 0…1: the mean over the names that both have.

    None where they share no name: what one of them does not say is neither for nor against.
    """
    shared = left.keys() & right.keys()
    if not shared:
        return None
    return sum(_likeness(left[name], right[name]) for name in shared) / len(shared)


def _feature(value: object) -> Feature | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, str):
        return _of_text(value)
    return None


def _number(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _of_text(text: str) -> Feature | None:
    match = _QUANTITY.fullmatch(text[:60].strip().lower())
    if match is None or match[0].isdigit():
        return _words(text)
    unit = match[2]
    if unit and unit not in _UNITS:
        return _words(text)
    number = _decimal(match[1])
    return _words(text) if number is None else number * _UNITS.get(unit or "", 1.0)


def _decimal(digits: str) -> float | None:
    """A number as people write it: `1,299.00`, `1.299,00`, `12,5`, `2.0`."""
    point = max(digits.rfind("."), digits.rfind(","))
    mark = digits[point] if point >= 0 else ""
    if mark and digits.count(mark) == 1 and (mark == "." or len(digits) - point != 4):
        whole, fraction = digits[:point], digits[point + 1 :]
    else:  # 1,299 and 1.299.000: the mark sets thousands apart
        whole, fraction = digits, ""
    groups = re.split("[.,]", whole)
    if any(len(group) != 3 for group in groups[1:]):
        return None  # a version (`1.2.3`), a list, a date
    try:
        return float(f"{''.join(groups)}.{fraction or 0}")
    except ValueError:
        return None


def _words(text: str) -> list[str] | None:
    return list(dict.fromkeys(tokens(text[:1000])))[:WORDS] or None


def _likeness(left: Feature, right: Feature) -> float:
    if isinstance(left, bool) or isinstance(right, bool):
        return float(left is right)
    left_number, right_number = _as_number(left, right), _as_number(right, left)
    if left_number is not None and right_number is not None:
        return _closeness(left_number, right_number)
    if isinstance(left, list) and isinstance(right, list):
        # The overlap coefficient: an address with the floor is no worse than one without.
        return len({*left} & {*right}) / min(len({*left}), len({*right}))
    return 0.0


def _as_number(value: Feature, other: Feature) -> float | None:
    """`value` as a number; digits in words count as one where the `other` is a number."""
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(other, (int, float)) and len(value) == 1:
        return _decimal(value[0])
    return None


def _closeness(left: float, right: float) -> float:
    """The smaller's share of the larger, 0 where the signs differ."""
    if left == right:
        return 1.0
    if left * right <= 0:
        return 0.0
    return min(abs(left), abs(right)) / max(abs(left), abs(right))
