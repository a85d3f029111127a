"""What the price chart of one product shows: plain data for the admin's page.

Five queries by primary key, whatever the length of the history. Prices become floats here: they
are drawn, not counted.
"""

from datetime import date, timedelta
from itertools import groupby

from django.conf import settings
from django.utils import timezone

from catalog.models import Outlier, PricePoint, SellerActivity, SellerPriority, SellerSummary
from catalog.queries import discount

EPOCH = date(1970, 1, 1)
YEARS = 10  # how far back the chart goes
MAX_LINES = 24  # more cannot be told apart; staff's order decides which
MAX_OUTLIERS = 200  # the newest
# A listing holds its price for as long as it counts as current: see catalog_cards_of.
HOLDS_DAYS = 7


def product_lines(slug: str) -> list[SellerSummary]:
    """Every line of a product: by currency, staff's order of sellers, then freshest, then by name.

    A listing that its seller no longer shows is neither available nor on preorder, as on the cards.
    """
    ranks = dict(SellerPriority.objects.values_list("seller", "rank"))
    lines = list(SellerSummary.objects.filter(slug=slug).defer("description", "category_tags"))
    newest = SellerActivity.objects.in_bulk({line.seller for line in lines})
    for line in lines:
        if line.last_at < newest[line.seller].newest - timedelta(days=HOLDS_DAYS):
            line.is_available = line.is_preorder = False
    last = max(ranks.values(), default=0) + 1
    lines.sort(
        key=lambda line: (
            line.currency != settings.CATALOG_DEFAULT_CURRENCY,
            line.currency,
            ranks.get(line.seller, last),
            -line.last_at.timestamp(),
            line.seller,
        )
    )
    return lines


def product_outliers(slug: str) -> list[Outlier]:
    """The newest outliers of a product, newest first."""
    return list(Outlier.objects.filter(slug=slug).order_by("-scraped_at")[:MAX_OUTLIERS])


def price_chart(*, slug: str, lines: list[SellerSummary], outliers: list[Outlier]) -> dict:
    """What `price-chart.js` draws: {"currencies": [{"code", "lines": [...]}]}, [] without prices.

    A line has its state now and parallel arrays `days` (since 1970-01-01, UTC), `prices` (the
    day's last), `lows`, `highs`, thinned to where something changes; `gaps` are the indexes of the
    days before which no price was seen for more than seven days.
    """
    points = _points(slug)
    colours = {seller: at for at, seller in enumerate(dict.fromkeys(line.seller for line in lines))}
    currencies: dict[str, list[dict]] = {}
    for line in lines:
        days = points.get((line.seller, line.currency))
        drawn = currencies.setdefault(line.currency, [])
        if days and len(drawn) < MAX_LINES:
            own = [o for o in outliers if (o.seller, o.currency) == (line.seller, line.currency)]
            drawn.append(_line(line, days, own, colours[line.seller]))
    shown = [{"code": code, "lines": drawn} for code, drawn in currencies.items() if drawn]
    shown.sort(key=lambda one: (one["code"] != settings.CATALOG_DEFAULT_CURRENCY, one["code"]))
    return {"currencies": shown}


def is_current(line: SellerSummary) -> bool:
    """Whether the line can be had now."""
    return (line.is_available or line.is_preorder) and line.last_price is not None


def _points(slug: str) -> dict[tuple[str, str], list[tuple]]:
    """(day, last, low, high) by (seller, currency), in order of days."""
    rows = (
        PricePoint.objects.filter(
            slug=slug, day__gte=timezone.now().date() - timedelta(days=YEARS * 366)
        )
        .order_by("slug", "seller", "currency", "day")
        .values_list("seller", "currency", "day", "last_price", "low", "high")
    )
    return {
        key: [
            ((day - EPOCH).days, float(last), float(low), float(high))
            for *_, day, last, low, high in group
        ]
        for key, group in groupby(rows, key=lambda row: row[:2])
    }


def _line(line: SellerSummary, days: list[tuple], outliers: list[Outlier], colour: int) -> dict:
    kept, gaps = _thin(days)
    return {
        "seller": line.seller,
        "colour": colour,
        "current": is_current(line),
        "price": float(line.last_price),
        "since": _day(line.price_since),
        "priorLow": None if line.prior_low is None else float(line.prior_low),
        "discount": float(discount(line.last_price, line.prior_low)),
        "days": [day for day, *_ in kept],
        "prices": [last for _, last, _, _ in kept],
        "lows": [low for *_, low, _ in kept],
        "highs": [high for *_, high in kept],
        "gaps": gaps,
        "outliers": [
            {"day": _day(o.scraped_at), "price": float(o.price), "state": o.state} for o in outliers
        ],
    }


def _thin(days: list[tuple]) -> tuple[list[tuple], list[int]]:
    """Leave out each day that repeats both its neighbours; returns the rest and its gaps."""
    kept, gaps = [], []
    for at, point in enumerate(days):
        before = days[at - 1] if at else None
        after = days[at + 1] if at + 1 < len(days) else None
        gap = before is not None and point[0] - before[0] > HOLDS_DAYS
        repeats = before and after and before[1:] == point[1:] == after[1:]
        if repeats and not gap and after[0] - point[0] <= HOLDS_DAYS:
            continue
        if gap:
            gaps.append(len(kept))
        kept.append(point)
    return kept, gaps


def _day(moment) -> int | None:
    return None if moment is None else (moment.date() - EPOCH).days
