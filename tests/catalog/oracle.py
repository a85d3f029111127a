"""The catalog's read models computed the slow, obvious way, from nothing but the rules.

Shares no code with the project: what the tests compare it with may be as clever as it likes.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal


@dataclass(frozen=True)
class Row:
    """One snapshot."""

    slug: str
    seller: str
    currency: str
    code: str
    at: datetime
    price: Decimal | None
    available: bool = True
    preorder: bool = False
    name: str = "N"
    tags: tuple[str, ...] = ()
    description: str = ""


def lines_of(rows: list[Row]) -> dict[tuple, list[Row]]:
    lines = defaultdict(list)
    for row in rows:
        lines[row.slug, row.seller, row.currency].append(row)
    return lines


def lowest_by_time(rows: list[Row]) -> list[tuple[datetime, Decimal]]:
    """A line's price at a moment is the lowest that its product codes had then."""
    prices = defaultdict(list)
    for row in rows:
        if row.price is not None:
            prices[row.at].append(row.price)
    return [(at, min(prices[at])) for at in sorted(prices)]


def verdicts(rows: list[Row]) -> dict[datetime, str]:
    """Beyond x3 or /3 of the median of the 30 rows before, given 3; confirmed by a neighbour."""
    moments = lowest_by_time(rows)
    deviates = []
    for at, price in moments:
        before = sorted(
            ((row.at, row.price) for row in rows if row.price is not None and row.at < at),
            key=lambda pair: (-pair[0].timestamp(), pair[1]),
        )[:30]
        known = sorted(price for _, price in before)
        median = known[(len(known) + 1) // 2 - 1] if known else None
        deviates.append(len(known) >= 3 and (price > 3 * median or 3 * price < median))
    found = {}
    for i, (at, price) in enumerate(moments):
        if deviates[i]:
            earlier = i > 0 and deviates[i - 1] and _near(price, moments[i - 1][1])
            later = i + 1 < len(moments) and deviates[i + 1] and _near(moments[i + 1][1], price)
            found[at] = "confirmed" if earlier or later else "suspect"
    return found


def _near(price: Decimal, other: Decimal) -> bool:
    return abs(price / other - 1) <= Decimal("0.1")


def summary(rows: list[Row]) -> dict:
    """What catalog_slug_seller_summary must say of one line."""
    judged = verdicts(rows)
    seen = lowest_by_time(rows)
    good = [(at, price) for at, price in seen if judged.get(at) != "suspect"]
    last_at = max(row.at for row in rows)
    last = [row for row in rows if row.at == last_at]
    expected = {
        "first_at": min(row.at for row in rows),
        "last_at": last_at,
        "is_available": any(row.available for row in last),
        "is_preorder": any(row.preorder for row in last),
        "product_code": min((row.code, row.name) for row in last)[0],
        "name": min((row.code, row.name) for row in last)[1],
        "observations": len(rows),
        "lowest": min((price for _, price in good), default=None),
        "highest": max((price for _, price in good), default=None),
        "seen_low": min((price for _, price in seen), default=None),
        "seen_high": max((price for _, price in seen), default=None),
        "last_price": good[-1][1] if good else None,
        "last_price_at": good[-1][0] if good else None,
        "price_since": None,
        "previous_price": None,
        "prior_low": None,
        "prior_low_until": None,
    }
    if good:
        start = len(good) - 1
        while start > 0 and good[start - 1][1] == good[-1][1]:
            start -= 1
        expected["price_since"] = good[start][0]
        if start > 0:
            expected["previous_price"] = good[start - 1][1]
            expected["prior_low"], expected["prior_low_until"] = prior_low(
                good[:start], good[start][0]
            )
    return expected


def prior_low(before: list[tuple[datetime, Decimal]], since: datetime) -> tuple[Decimal, date]:
    """The lowest price of the 30 days before, with the one in force when they begin; and the last
    day on which it was in force, be it until another price came."""
    opens = since.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=30)
    inside = [price for at, price in before if at >= opens]
    in_force = [price for at, price in before if at < opens][-1:]
    low = min(inside + in_force)
    ends = [at for at, _ in before[1:]] + [since]
    last = len(before) - len(inside) - len(in_force)
    return low, max(
        end.date()
        for (_, price), end in list(zip(before, ends, strict=True))[last:]
        if price == low
    )


def points(rows: list[Row]) -> dict:
    """What catalog_price_points must say of one line, by day."""
    judged = verdicts(rows)
    days = defaultdict(list)
    for at, price in lowest_by_time(rows):
        if judged.get(at) != "suspect":
            days[at.date()].append(price)
    return {
        day: (prices[0], prices[-1], min(prices), max(prices), len(prices))
        for day, prices in days.items()
    }
