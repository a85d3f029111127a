"""The narrow ways to candidates: by place, by words, by title, by newness. Vectors: see `vectors`.

Each route returns ids of items, best first, by one statement that takes an index path and reads a
bounded number of rows, whatever is asked for. They find; what is a good match is settled by
`scoring`.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from typing import Any

from config import generations, prepared
from config.sqlfiles import queries
from matching import geo
from matching.models import Item
from matching.scoring import Statistics

# Around a place, until there are enough: each ring has 16 times the area of the one before.
RADII_M = (100, 400, 1_600, 6_400, 25_000, 100_000)
RING_ROWS = 2_000  # read of one place at most, however many items lie there

SINGLE_WORDS = 16  # words that are looked up each by itself, the rarest
COMMON_WORDS = 4  # words too common for that: looked up in pairs, and all together
UNKNOWN_WORDS = 8
MISSPELT_WORDS = 3
SPELLINGS = 3  # words of items that are tried for each misspelt one
NEWEST_ROWS = 5_000  # of a side, read one by one where a word is in every twentieth
_COMMONPLACE = 0.05

TERMS = "item_terms"  # the read model
FREQUENCIES = 100_000  # remembered in a process
# Three rows a kind in item_terms that count no word.
_ITEMS, _TITLE_WORDS, _BODY_WORDS = "", " title", " body"


@dataclass(frozen=True)
class Filters:
    """What hits must have; empty or None where all will do.

    `status`: open ones are found by all routes, others by words alone. `radius_m` needs `latitude`
    and `longitude`, in degrees, and lets through the cells of six characters that it touches: of a
    place nothing finer can be found out. `date_from` and `date_to`, both included, are compared
    with when it happened, or was posted where nobody said.
    """

    category: str = ""
    status: str = Item.Status.OPEN
    country: str = ""
    city: str = ""
    latitude: float | None = None
    longitude: float | None = None
    radius_m: float | None = None
    date_from: date | None = None
    date_to: date | None = None

    def tags(self) -> list[str]:
        """Category and place as they stand in `items.search`, without the kind."""
        tags = [f"#{self.category[:100]}"] if self.category else []
        if self.country:
            city = f"/{self.city[:100]}" if self.city else ""
            tags.append(f"@{self.country[:100]}{city}")
        return tags

    @property
    def around(self) -> bool:
        """Whether hits must lie within a radius."""
        return bool(self.radius_m) and None not in (self.latitude, self.longitude)

    @property
    def reach_m(self) -> float | None:
        """How far routes look: what lies in a cell that the circle touches passes the filter."""
        return self.radius_m + geo.CELL_DIAGONAL_M if self.radius_m else None

    @property
    def after_the_fact(self) -> bool:
        """Whether something is filtered that the word index does not know: routes bring more."""
        nameless = self.city and not self.country
        return bool(self.radius_m or self.date_from or self.date_to or nameless)


@dataclass(frozen=True)
class Scope:
    """Among which items a route looks: kinds, filters, none of this owner's, none of these."""

    kinds: tuple[str, ...]
    filters: Filters = Filters()
    owner_id: int | None = None
    exclude: Collection[int] = ()

    def parameters(self) -> dict[str, Any]:
        return {
            "kinds": list(self.kinds),
            "status": self.filters.status,
            "owner": self.owner_id,
            "exclude": prepared.array(self.exclude),
        }


@dataclass(frozen=True)
class Query:
    """One look into the word index: a tsquery, what meeting it is worth, how many ids at most."""

    text: str
    weight: float
    at_most: int


def place(
    latitude: float,
    longitude: float,
    *,
    scope: Scope,
    limit: int,
    category: str = "",
    radius_m: float | None = None,
) -> list[int]:
    """Items around a place, nearest first: rings of growing cells until there are `limit`.

    Within `radius_m` where it is given, else up to 100 km. `category`: of this one only. In a crowd
    nearer ones may be missing: rings are read by whole cells, which reach up to 2.5 times as far
    to one side, and of the last one at most RING_ROWS items.
    """
    reach = radius_m or RADII_M[-1]
    around = _rings(latitude, longitude, reach) | {"category": category or None}
    most = {"wanted": limit, "most": max(RING_ROWS, limit), "limit": limit}
    return _ids("route_place", scope.parameters() | around | most)


def _rings(latitude: float, longitude: float, reach_m: float) -> dict[str, Any]:
    """What `matching_around` asks for: the rings of cells up to a radius."""
    radii = [radius for radius in RADII_M if radius < reach_m] + [reach_m]
    rings = geo.rings(latitude, longitude, radii)
    ranges = [span for ring in rings for span in ring]
    return {
        "lows": [low for low, _ in ranges],
        "highs": [high for _, high in ranges],
        "ends": [sum(map(len, rings[: at + 1])) for at in range(len(rings))],
        "latitude": latitude,
        "longitude": longitude,
        "haversine": geo.haversine(reach_m),
    }


def words(
    title: Sequence[str],
    body: Sequence[str] = (),
    *,
    scope: Scope,
    statistics: Statistics,
    postings: int,
    limit: int,
) -> list[int]:
    """Items that share words, by the sum of their idf; rare words first, `postings` read in all.

    What is too common to be read whole is asked for together (`black` and `wallet`), and where a
    single word is in every twentieth item, among the newest. A word that no item has stands for
    those that are spelt alike.
    """
    asked = list(dict.fromkeys(title)), list(dict.fromkeys(body))
    looked_up = plan(*asked, scope=scope, statistics=statistics, postings=postings, limit=limit)
    looked_up += _respelt(asked[0], scope, statistics, limit)
    found = _holding(looked_up, scope, limit) if looked_up else []
    if len(found) >= limit // 2:
        return found
    common = [word for word in asked[0] or asked[1] if _share(word, statistics) > 0]
    if common:
        rarest = min(common, key=lambda word: statistics.frequency[word])
        known = set(found)
        more = _newest_holding(rarest, scope, statistics, limit)
        found += [each for each in more if each not in known]
    return found[:limit]


def plan(
    title: Sequence[str],
    body: Sequence[str],
    *,
    scope: Scope,
    statistics: Statistics,
    postings: int,
    limit: int,
) -> list[Query]:
    """Which looks into the word index to take, for distinct words; none reads over `postings`."""
    frequency = statistics.frequency
    narrowed = min([frequency.get(tag, 0) for tag in scope.filters.tags()], default=None)
    each_word = dict.fromkeys([*title, *body])
    known = sorted((w for w in each_word if frequency.get(w)), key=lambda w: frequency[w])
    unknown = [w for w in each_word if not frequency.get(w)][:UNKNOWN_WORDS]
    # Not in the statistics yet, as what was posted a moment ago: a look costs next to nothing.
    looked_up = [Query(_conjunction([w], scope), _idf(0, statistics), limit) for w in unknown]
    spent, single = 0, []
    for word in known[:SINGLE_WORDS]:
        cost = frequency[word] if not narrowed else min(frequency[word], narrowed)
        if spent + cost > postings:
            break
        spent += cost
        single.append(word)
        looked_up.append(
            Query(_conjunction([word], scope), _idf(frequency[word], statistics), cost + limit)
        )
    title_words = set(title or body)
    common = [word for word in known[len(single) :] if word in title_words][:COMMON_WORDS]
    return looked_up + _together(common, scope, statistics, limit, enough=spent >= limit)


def too_common(
    title: Sequence[str],
    body: Sequence[str],
    *,
    scope: Scope,
    statistics: Statistics,
    postings: int,
) -> bool:
    """Whether `words` cannot read all items that hold one of these words."""
    frequency = statistics.frequency
    return sum(frequency.get(word, 0) for word in {*title, *body}) > postings


def words_near(
    title: Sequence[str],
    body: Sequence[str],
    *,
    scope: Scope,
    statistics: Statistics,
    postings: int,
    limit: int,
) -> list[int]:
    """Items within the filters' radius that share words, by the sum of their idf: for words that
    are too common to be read whole, in a place that is not. Of the place, the RING_ROWS nearest.
    """
    frequency, filters = statistics.frequency, scope.filters
    known = [word for word in dict.fromkeys([*title, *body]) if frequency.get(word)]
    rarest = sorted(known, key=lambda word: frequency[word])[:SINGLE_WORDS]
    around = _rings(filters.latitude, filters.longitude, filters.reach_m)
    return _ids(
        "route_words_near",
        scope.parameters()
        | around
        | {
            "category": filters.category or None,
            "queries": [_conjunction([word], scope) for word in rarest],
            "weights": [_idf(frequency[word], statistics) for word in rarest],
            "most": RING_ROWS,
            "limit": limit,
        },
    )


def titles(title: str, *, scope: Scope, limit: int) -> list[int]:
    """Items whose title is spelt like this one, by trigram similarity.

    Reads the postings of every trigram of the title: the caller sees to it that there are few
    items (`Statistics.items`).
    """
    return _ids("route_titles", scope.parameters() | {"title": title.lower(), "limit": limit})


def newest(*, scope: Scope, limit: int) -> list[int]:
    """The newest items that the filters let through, by the index that fits them."""
    filters = scope.filters
    if filters.category:
        name = "route_newest_of_category"
    elif filters.city and filters.country:
        name = "route_newest_of_city"
    else:
        name = "route_newest"
    return _ids(
        name,
        scope.parameters()
        | {
            "category": filters.category,
            "country": filters.country,
            "city": filters.city,
            "window": NEWEST_ROWS,
            "limit": limit,
        },
    )


def statistics(kinds: Sequence[str], terms: Iterable[str]) -> Statistics:
    """How many live items of these kinds there are, hold each term, and how long their texts are.

    As of the last refresh of item_terms; remembered in this process until the next.
    """
    counts = _frequencies.of(tuple(kinds), [_ITEMS, _TITLE_WORDS, _BODY_WORDS, *terms])
    items = counts.pop(_ITEMS)
    title, body = counts.pop(_TITLE_WORDS), counts.pop(_BODY_WORDS)
    return Statistics(
        items=items,
        frequency=counts,
        title_words=title / items if items else 0.0,
        body_words=body / items if items else 0.0,
    )


class _Frequencies:
    """What item_terms says, remembered while its generation stands. Bounded."""

    def __init__(self) -> None:
        self._stand: tuple = ()
        self._counts: dict[tuple[str, ...], dict[str, int]] = {}
        self._size = 0

    def of(self, kinds: tuple[str, ...], terms: Iterable[str]) -> dict[str, int]:
        """How many live items of the kinds hold each term."""
        # A process that forgot everything has other generations, of the same numbers perhaps.
        stand = generations.known, generations.of((TERMS,))
        if stand != self._stand or self._size > FREQUENCIES:
            self._stand, self._counts, self._size = stand, {}, 0
        known = self._counts.setdefault(kinds, {})
        found, missing = {}, []
        for term in terms:
            if term in known:
                found[term] = known[term]
            else:
                missing.append(term)
        if missing:
            read = dict.fromkeys(missing, 0) | _read_frequencies(kinds, missing)
            known.update(read)
            self._size += len(read)
            found |= read
        return found


_frequencies = _Frequencies()


def _read_frequencies(kinds: Sequence[str], terms: list[str]) -> dict[str, int]:
    asked = {"kinds": list(kinds), "terms": terms}
    return dict(prepared.fetch(queries("matching")["term_statistics"], asked))


def _together(
    common: list[str], scope: Scope, statistics: Statistics, limit: int, *, enough: bool
) -> list[Query]:
    """Looks for common words that stand together; only for all of them where others bring enough.

    An item with all of n words meets each word in n - 1 pairs: weighed so, it gets the sum of
    their idf once more than a pair of them does.
    """
    if not common or (len(common) == 1 and not scope.filters.tags()):
        return []
    idf = {word: _idf(statistics.frequency[word], statistics) for word in common}
    looked_up = [Query(_conjunction(common, scope), sum(idf.values()), 2 * limit)]
    if len(common) > 2 and not enough:
        share = 1 / (len(common) - 1)
        looked_up += [
            Query(_conjunction(pair, scope), share * sum(idf[word] for word in pair), limit)
            for pair in combinations(common, 2)
        ]
    return looked_up


def _respelt(title: Sequence[str], scope: Scope, statistics: Statistics, limit: int) -> list[Query]:
    """Looks for the words that unknown words of a title may have meant."""
    unknown = [
        word
        for word in title
        if len(word) >= 4 and not statistics.frequency.get(word) and word.isalpha()
    ][:MISSPELT_WORDS]
    if not unknown or not statistics.items:
        return []
    rows = prepared.fetch(
        queries("matching")["similar_terms"],
        {"kinds": list(scope.kinds), "words": unknown, "limit": SPELLINGS},
    )
    return [
        Query(_conjunction([term], scope), alike * _idf(items, statistics), limit)
        for term, items, alike in rows
    ]


def _holding(looked_up: list[Query], scope: Scope, limit: int) -> list[int]:
    return _ids(
        "route_words",
        scope.parameters()
        | {
            "queries": [query.text for query in looked_up],
            "weights": [query.weight for query in looked_up],
            "at_most": [query.at_most for query in looked_up],
            "limit": limit,
        },
    )


def _newest_holding(word: str, scope: Scope, statistics: Statistics, limit: int) -> list[int]:
    """The newest items that hold a word, where it is in so many; else any of those that do."""
    query, found = _conjunction([word], scope), []
    if not scope.filters.tags() and _share(word, statistics) >= _COMMONPLACE:
        parameters = {"query": query, "window": NEWEST_ROWS, "limit": limit}
        found = _ids("route_newest_holding", scope.parameters() | parameters)
    return found if len(found) == limit else _holding([Query(query, 1.0, limit)], scope, limit)


def _share(word: str, statistics: Statistics) -> float:
    return statistics.frequency.get(word, 0) / statistics.items if statistics.items else 0.0


def _idf(items: float, statistics: Statistics) -> float:
    """Inverse document frequency as in BM25 (Robertson and Zaragoza 2009, as Lucene has it)."""
    return math.log1p((max(statistics.items, items) - items + 0.5) / (items + 0.5))


def _conjunction(words: Iterable[str], scope: Scope) -> str:
    """The tsquery of items of any of the kinds that hold these words and what is filtered by."""
    lexemes = [*(f":{word}" for word in words), *scope.filters.tags()]
    sides = (" & ".join(_quoted(kind[0] + lexeme) for lexeme in lexemes) for kind in scope.kinds)
    return " | ".join(f"({side})" for side in sides)


def _quoted(lexeme: str) -> str:
    doubled = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


def _ids(name: str, parameters: Mapping[str, Any]) -> list[int]:
    return [item_id for (item_id,) in prepared.fetch(queries("matching")[name], parameters)]
