"""Reads of the catalog: plain data out of the read models. No writes, no HTTP.

Prices are Decimals without trailing zeros, times are aware. What PostgreSQL has rendered as JSON
text already (points, outliers) stays text: one product can have thousands of points.
"""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

from django.db import connection
from psycopg import sql

from catalog.slugs import SLUG_LENGTH, fold, slug
from config.sqlfiles import dicts, queries

AVAILABILITIES = {
    "all": "true",
    "available": "is_available",
    "preorder": "is_preorder",
    "unavailable": "NOT is_available AND NOT is_preorder",
}
TOTAL_CAP = 10_000  # totals are exact up to here
POINTS_CAP = 750  # of each line in one answer
LINES_CAP = 200  # lines (seller and currency) of one product in one answer
CATEGORIES_CAP = 1_000
WORDS_CAP = 12  # of a search text; the rest is ignored
RAW_SPAN = timedelta(days=3)  # `auto` shows every observation of a range up to this

_PRICE = "(offers -> %(currency)s ->> 'price')::numeric"
_DISCOUNT = "(offers -> %(currency)s ->> 'discount')::numeric"
_HAS_WORDS = "array_to_tsvector(string_to_array(slug, '-')) @@ %(words)s::tsquery"
_DAWN = datetime(1900, 1, 1, tzinfo=UTC)
_DUSK = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sort:
    """An order of cards: by `key` (SQL), then by slug, which makes it total.

    `kind` is the key's type in Python, None where the slug is the only key.
    """

    key: str
    kind: type | None
    descending: bool = False

    @property
    def order(self) -> str:
        """The ORDER BY list."""
        direction = " DESC" if self.descending else ""
        return f"slug{direction}" if self.kind is None else f"{self.key}{direction}, slug"

    @property
    def after(self) -> str:
        """The condition for rows behind the position (after_key, after_slug)."""
        if self.kind is None:
            return f"slug {'<' if self.descending else '>'} %(after_slug)s"
        if not self.descending:
            return f"({self.key}, slug) > (%(after_key)s, %(after_slug)s)"
        # The first half is implied by the second; it is what an index can use.
        return (
            f"{self.key} <= %(after_key)s AND ({self.key} < %(after_key)s OR slug > %(after_slug)s)"
        )


# No price in the asked currency comes last either way: prices lie between 0 and 10¹⁰. The slug is
# the folded name, so that order by name knows no accents and no letter case.
SORTS = {
    "name": Sort("NULL", None),
    "-name": Sort("NULL", None, descending=True),
    "price": Sort(f"coalesce({_PRICE}, 1e12)", Decimal),
    "-price": Sort(f"coalesce({_PRICE}, -1)", Decimal, descending=True),
    "-discount": Sort(f"coalesce({_DISCOUNT}, -1)", Decimal, descending=True),
    "-updated": Sort("last_at", datetime, descending=True),
    "relevance": Sort(
        "CASE WHEN starts_with(slug, %(whole)s) THEN 1000 ELSE 0 END"
        " + CASE WHEN string_to_array(slug, '-') @> %(asked)s::text[] THEN 500 ELSE 0 END"
        " - length(slug)",
        int,
        descending=True,
    ),
}


@dataclass(frozen=True)
class Filters:
    """Which cards. Prices, their bounds and discounts are those in `currency`."""

    currency: str
    availability: str = "all"
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    categories: tuple[str, ...] = ()
    q: str = ""

    @cached_property
    def condition(self) -> tuple[str, dict[str, Any]]:
        """What matches, as SQL with its parameters. Looks a search text up, once."""
        conditions, parameters = _conditions(self)
        return _all_of(conditions), parameters


@dataclass(frozen=True)
class CardPage:
    """Cards in order; `after` is the sort position of the last one where more follow it."""

    cards: list[dict[str, Any]]
    after: tuple[Any, str] | None


@dataclass(frozen=True)
class Total:
    """`exact` is None beyond TOTAL_CAP; `estimate` is the planner's guess there."""

    exact: int | None
    estimate: int


@dataclass(frozen=True)
class Product:
    """One product: its card, and its lines with their histories from `start` to before `end`.

    A line's `outliers` and `points` are JSON text. `moved_to`: the slug under which all its
    sellers list it now, or None.
    """

    card: dict[str, Any]
    lines: list[dict[str, Any]]
    resolution: str
    moved_to: str | None


def catalog_page(
    *,
    filters: Filters,
    sort: str,
    limit: int,
    offset: int = 0,
    after: tuple[Any, str] | None = None,
) -> CardPage:
    """A page of cards: `offset` rows in, or behind the position `after`."""
    order = SORTS[sort]
    where, parameters = filters.condition
    parameters = parameters | {"limit": limit + 1, "offset": offset}
    if after is not None:
        where = _all_of([where, order.after])
        parameters |= {"after_key": after[0], "after_slug": after[1]}
    statement = _composed("catalog_page", where=where, key=order.key, order=order.order)
    rows = dicts(statement, parameters)
    more, rows = len(rows) > limit, rows[:limit]
    return CardPage(
        cards=[_card(row, filters.currency) for row in rows],
        after=(rows[-1]["sort_key"], rows[-1]["slug"]) if more else None,
    )


def catalog_total(*, filters: Filters) -> Total:
    """How many cards match."""
    where, parameters = filters.condition
    counted = parameters | {"at_most": TOTAL_CAP + 1}
    [row] = dicts(_composed("catalog_count", where=where), counted)
    if row["count"] <= TOTAL_CAP:
        return Total(row["count"], row["count"])
    return Total(None, max(TOTAL_CAP + 1, _estimate(where, parameters)))


def suggest(*, q: str, availability: str = "all", limit: int = 10) -> list[dict[str, Any]]:
    """Products for a search text as it is typed; each says how it matched.

    `prefix` (the name starts so) comes before `words` (words of it start so), and `similar`
    (with one typo a word, or a little more in long words) only where neither gave anything.
    """
    words = search_words(q)
    if not words:
        return []
    where = AVAILABILITIES[availability]
    rows = dicts(
        _composed("suggest_by_prefix", where=where),
        {"prefix": "-".join(words), "limit": limit},
    )
    found = _suggestions(rows, "prefix")
    # One or two letters begin too many words to be worth it where something was found.
    if len(found) < limit and not (found and len(min(words, key=len)) < 3):
        found += _by_words(words, where, found, limit)
    return found


def _by_words(words, where, found, limit) -> list[dict[str, Any]]:
    statement = _composed("suggest_by_words", where=where)
    known = [each["slug"] for each in found]
    query, guessed = _search_query(words, similar=False)
    if found and guessed:
        return []
    rest = {"known": known, "limit": limit - len(found)}
    rows = dicts(statement, rest | {"query": query})
    if rows or found or guessed:
        return _suggestions(rows, "similar" if guessed else "words")
    # Every word exists, but no product has them all: one of them may be another's misspelling.
    query, _ = _search_query(words, similar=True)
    return _suggestions(dicts(statement, rest | {"query": query}), "similar")


def search_words(q: str) -> list[str]:
    """The words of a search text as slugs have them, in order; at most WORDS_CAP.

    A text without letters or digits (an emoji) is the one word that its slug is made of.
    """
    words = fold(q).split() or [part for part in slug(q).split("-") if part]
    return [word[:SLUG_LENGTH] for word in words[:WORDS_CAP]]


def product(
    *,
    slug: str,
    resolution: str = "auto",
    start: datetime | None = None,
    end: datetime | None = None,
) -> Product | None:
    """A product with its histories, or None for a slug that no card has.

    `resolution`: raw, day, week, or auto, which takes what shows the range in POINTS_CAP points.
    """
    cards = dicts(queries("catalog")["product_card"], {"slug": slug})
    if not cards:
        return None
    card = cards[0]
    if resolution == "auto":
        resolution = _resolution(card["first_at"], card["last_at"], start, end)
    start, end = start or _DAWN, end or _DUSK
    rows = dicts(
        _lines_statement(resolution),
        {
            "slug": slug,
            "start": start,
            "end": end,
            "first_day": _day(start),
            "last_day": _day(end - timedelta(microseconds=1)),
            "cap": POINTS_CAP,
            "lines": LINES_CAP,
        },
    )
    targets = [row.pop("moved_to") for row in rows]
    moved = Counter(targets).most_common(1)[0][0] if rows and all(targets) else None
    return Product(_detailed(slug, card), [_line(row) for row in rows], resolution, moved)


def discount(price: Decimal | None, prior_low: Decimal | None) -> Decimal:
    """Percent that a price lies below its prior low, 0 where it does not."""
    if price is None or not prior_low or price >= prior_low:
        return Decimal(0)
    return round(100 * (prior_low - price) / prior_low, 2)


def categories() -> list[dict[str, Any]]:
    """Categories with their numbers of products, the largest first; CATEGORIES_CAP at most."""
    return dicts(queries("catalog")["categories"], {"limit": CATEGORIES_CAP})


def recent_snapshots(*, limit: int) -> list[dict[str, Any]]:
    """The newest snapshots of all sellers."""
    rows = dicts(queries("catalog")["recent_snapshots"], {"limit": limit})
    for row in rows:
        row["price"] = _trimmed(row["price"])
    return rows


def _composed(name: str, **parts: str) -> sql.Composed:
    """The statement with SQL of this module in its places; values go as parameters."""
    return sql.SQL(queries("catalog")[name]).format(
        **{place: sql.SQL(text) for place, text in parts.items()}
    )


def _lines_statement(resolution: str) -> sql.Composed:
    points = {"raw": "points_raw", "day": "points_by_day", "week": "points_by_week"}[resolution]
    part = sql.SQL(queries("catalog")[points]).format()
    return sql.SQL(queries("catalog")["product_lines"]).format(points=part)


def _all_of(conditions: list[str]) -> str:
    return " AND ".join(f"({condition})" for condition in conditions)


def _conditions(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    conditions = [AVAILABILITIES[filters.availability]]
    parameters: dict[str, Any] = {"currency": filters.currency}
    if filters.min_price is not None:
        conditions.append(f"{_PRICE} >= %(min_price)s")
        parameters["min_price"] = filters.min_price
    if filters.max_price is not None:
        conditions.append(f"{_PRICE} <= %(max_price)s")
        parameters["max_price"] = filters.max_price
    if filters.categories:
        conditions.append("category_tags && %(categories)s::text[]")
        parameters["categories"] = list(filters.categories)
    if filters.q:
        condition, values = _search_condition(filters.q)
        conditions.append(condition)
        parameters |= values
    return conditions, parameters


def _search_condition(q: str) -> tuple[str, dict[str, Any]]:
    """Cards that have the words, or exactly this product code at some seller."""
    words = search_words(q)
    values: dict[str, Any] = {"whole": "-".join(words), "asked": words}
    coded = [row["slug"] for row in dicts(queries("catalog")["slugs_of_code"], {"code": q.strip()})]
    query, guessed = _search_query(words, similar=False) if words else (None, True)
    conditions = []
    if query and not (coded and guessed):
        conditions.append(_HAS_WORDS)
        values["words"] = query
    if coded:
        conditions.append("slug = ANY (%(coded)s)")
        values["coded"] = coded
    return " OR ".join(conditions) or "false", values


def _search_query(words: list[str], *, similar: bool) -> tuple[str, bool]:
    """The words as a tsquery, and whether some had to be guessed."""
    with connection.cursor() as cursor:
        cursor.execute(queries("catalog")["search_query"], {"words": words, "similar": similar})
        return cursor.fetchone()


def _estimate(where: str, parameters: dict[str, Any]) -> int:
    [row] = dicts(_composed("catalog_estimate", where=where), parameters)
    plan = row["QUERY PLAN"]
    if isinstance(plan, str):
        plan = json.loads(plan)
    return int(plan[0]["Plan"]["Plan Rows"])


def _resolution(first_at, last_at, start, end) -> str:
    if start and end and end - start <= RAW_SPAN:
        return "raw"
    span = min(end or last_at, last_at) - max(start or first_at, first_at)
    return "day" if span.days < POINTS_CAP else "week"


def _day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def _card(row: dict[str, Any], currency: str) -> dict[str, Any]:
    offers = _offers(row["offers"])
    offer = offers.get(currency, {})
    return {
        "slug": row["slug"],
        "name": row["name"],
        "hero_image_url": row["hero_image_url"],
        "category_tags": row["category_tags"],
        "sellers": row["sellers"],
        "currency": currency,
        "price": offer.get("price"),
        "prior_low": offer.get("prior_low"),
        "discount": offer.get("discount"),
        "offers": offers,
        "is_available": row["is_available"],
        "is_preorder": row["is_preorder"],
        "updated_at": row["last_at"],
    }


def _detailed(slug: str, card: dict[str, Any]) -> dict[str, Any]:
    return {
        "slug": slug,
        "name": card["name"],
        "hero_image_url": card["hero_image_url"],
        "description": card["description"],
        "category_tags": card["category_tags"],
        "sellers": card["sellers"],
        "offers": _offers(card["offers"]),
        "is_available": card["is_available"],
        "is_preorder": card["is_preorder"],
        "first_seen": card["first_at"],
        "updated_at": card["last_at"],
    }


def _line(row: dict[str, Any]) -> dict[str, Any]:
    price, low = row["last_price"], row["prior_low"]
    return {
        "seller": row["seller"],
        "currency": row["currency"],
        "name": row["name"],
        "product_code": row["product_code"],
        "is_available": bool(row["is_available"]),
        "is_preorder": bool(row["is_preorder"]),
        "price": _trimmed(price),
        "price_at": row["last_price_at"],
        "price_since": row["price_since"],
        "previous_price": _trimmed(row["previous_price"]),
        "prior_low": _trimmed(low),
        "discount": _trimmed(discount(price, low)),
        "lowest": _trimmed(row["lowest"]),
        "highest": _trimmed(row["highest"]),
        "first_seen": row["first_at"],
        "last_seen": row["last_at"],
        "observations": row["observations"],
        "outliers": row["found"] or "[]",
        "points": row["series"],
        "truncated": row["truncated"],
    }


def _suggestions(rows: list[dict[str, Any]], match: str) -> list[dict[str, Any]]:
    return [row | {"offers": _offers(row["offers"]), "match": match} for row in rows]


def _offers(text: str) -> dict[str, dict[str, Any]]:
    """{currency: {price, seller, prior_low, discount}} out of jsonb, no digit lost."""
    offers = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    for offer in offers.values():
        for name in ("price", "prior_low", "discount"):
            offer[name] = _trimmed(offer[name])
    return offers


def _trimmed(number: Decimal | None) -> Decimal | None:
    """Without trailing zeros, and never with an exponent: 1.2500 → 1.25, 1E+2 → 100."""
    if number is None:
        return None
    short = number.normalize()
    return short.quantize(Decimal(1)) if short.as_tuple().exponent > 0 else short
