"""Matching: candidates from several narrow routes, united, then reranked by one score.

Every route is bounded, and so is what is reranked: the time of a match does not grow with what was
posted (the postings of words hold what was closed, too, until it is pruned). Where the embedder or
the vector path fails, words and place go on alone and the outcome says so. `match` serves jobs,
`search` people who wait; both are this one engine.
"""

import logging
import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import orjson
from django.db import DatabaseError, connection, transaction

from config import prepared
from config.breakers import Breaker
from config.embeddings import EmbedderError
from config.sqlfiles import queries
from matching import embedding, geo, routes, vectors
from matching.kinds import COUNTERPARTS, Kind, pair_of
from matching.models import Item
from matching.routes import Filters, Scope
from matching.scoring import (
    Candidate,
    Scored,
    Subject,
    score,
    vocabulary,
    weights_for,
)
from matching.text import embedded_text, split_terms, terms

__all__ = ["Filters", "Outcome", "Page", "match", "search", "subject_of"]

logger = logging.getLogger("spyglass.matching")

CANDIDATES = 200  # reranked by a match
SEARCHED = 60  # reranked by a search with a text, and so how deep its pages go
BROWSED = 200  # the newest or nearest of a search without one
OWN_ITEMS = 200  # of the owner, kept out of the nearest vectors
NO_VECTORS = "vectors"  # the value of `degraded`
# The search by vectors, whatever its statements die of; the embedder has a breaker of its own.
_vector_breaker = Breaker("the search by vectors", failures=5, seconds=30)


@dataclass(frozen=True)
class Effort:
    """How much one run may read: candidates reranked, of each route, postings of single words.

    `titles`: up to how many items of these kinds the title route is taken; its cost grows with
    their number, and misspelt words are met by the word route too.
    """

    candidates: int
    of_place: int
    of_words: int
    of_vectors: int
    postings: int
    titles: int


_MATCH = Effort(CANDIDATES, 60, 100, 60, postings=3_000, titles=10_000)
_SEARCH = Effort(SEARCHED, 30, 50, 30, postings=600, titles=2_000)
_BROWSE = Effort(BROWSED, BROWSED, 0, 0, postings=0, titles=0)


@dataclass(frozen=True)
class Outcome:
    """What was found, best first. `routes`: how many ids each route brought, the vector route by
    the plan that it took; `degraded`: what had to be left out, "" for nothing; milliseconds.
    `versions`: when what was scored had changed last, by item."""

    hits: list[Scored]
    versions: dict[int, datetime]
    routes: dict[str, int]
    degraded: str
    took_ms: float


@dataclass(frozen=True)
class Page:
    """Some hits of a search, best first; `after`: (score, item id) of the last if more follow."""

    hits: list[Scored]
    after: tuple[float, int] | None
    routes: dict[str, int]
    degraded: str
    took_ms: float


@dataclass(frozen=True)
class _Found:
    """Ids by route, best first, and what had to be left out."""

    ids: dict[str, Sequence[int]]
    degraded: str
    versions: dict[int, datetime] = field(default_factory=dict)


def match(
    subject: Subject,
    *,
    kinds: Iterable[str],
    owner_id: int | None = None,
    exclude: Collection[int] = (),
    also: Sequence[int] = (),
    coarse: bool = False,
    limit: int = 20,
) -> Outcome:
    """The live items of `kinds` that match a subject best, at most `limit`, best first.

    Not those of `owner_id`, and none of `exclude` (dismissed pairs). `also`: ids that are
    candidates whether a route brings them or not. `coarse`: of their places the score shall tell no
    more than the cell. At most 200 candidates are scored.
    """
    started = time.perf_counter()
    scope = Scope(tuple(kinds), Filters(), owner_id, exclude)
    hits, found = _run(subject, scope, _MATCH, limit=limit, also=also, coarse=coarse)
    return Outcome(hits, found.versions, _counts(found), found.degraded, _since(started))


def search(
    text: str,
    *,
    kinds: Iterable[str] = Kind.values,
    filters: Filters = Filters(),  # noqa: B008 -- frozen
    limit: int = 20,
    after: tuple[float, int] | None = None,
) -> Page:
    """Items that fit a text and pass the filters, by score and id, both descending.

    Without a text the newest come first, or those nearest to the filters' place, by their cells.
    `after`: the position (score, item id) to go on behind. Pages end after the 60 candidates that
    are scored, or the 200 of a search without a text. Several kinds are scored with the weights of
    the first.
    """
    started = time.perf_counter()
    scope = Scope(tuple(kinds), filters)
    if not scope.kinds:  # where nothing is public
        return Page([], None, {}, "", _since(started))
    subject = Subject(
        kind=COUNTERPARTS[Kind(scope.kinds[0])],
        title=text,
        terms=terms(text),
        latitude=filters.latitude,
        longitude=filters.longitude,
    )
    effort = _SEARCH if subject.terms else _BROWSE
    most = limit + 1 if after is None else None
    hits, found = _run(subject, scope, effort, limit=most, coarse=True)
    if after is not None:
        hits = [hit for hit in hits if (hit.score, hit.item_id) < after]
    more, hits = len(hits) > limit, hits[:limit]
    position = (hits[-1].score, hits[-1].item_id) if more else None
    return Page(hits, position, _counts(found), found.degraded, _since(started))


def subject_of(item: Item) -> Subject:
    """What an item is compared by."""
    return Subject(
        kind=item.kind,
        title=item.title,
        description=item.description,
        terms=item.terms,
        features=item.features,
        category=item.category,
        country=item.country,
        city=item.city,
        latitude=item.latitude,
        longitude=item.longitude,
        happened_on=item.happened_on,
    )


def _run(
    subject: Subject,
    scope: Scope,
    effort: Effort,
    *,
    limit: int | None,
    coarse: bool,
    also: Sequence[int] = (),
) -> tuple[list[Scored], _Found]:
    """The best `limit` of the candidates of all routes, or all; ties by id, the newest first."""
    title, body = split_terms(subject.terms)
    vector, degraded = None, ""
    if title or body:
        vector, degraded = _embedded(
            embedded_text(subject.title, subject.description, subject.category)
        )
    found = _candidates(subject, scope, vector, effort)
    found = replace(found, degraded=degraded or found.degraded)
    found, candidates = _load(found, also, scope, vector, effort.candidates, coarse=coarse)
    if not (title or body) and set(found.ids) == {"newest"}:  # nothing to score by
        newest = sorted((each.item_id for each in candidates), reverse=True)
        return [Scored(item_id, 0.0) for item_id in newest[:limit]], found
    statistics = routes.statistics(scope.kinds, vocabulary(subject, candidates))
    weights = weights_for(pair_of(subject.kind))
    return score(subject, candidates, statistics, weights, limit), found


def _candidates(
    subject: Subject, scope: Scope, vector: np.ndarray | None, effort: Effort
) -> _Found:
    title, body = split_terms(subject.terms)
    # What no index filters by is filtered from what the routes bring: let them bring more.
    narrow = scope.filters.after_the_fact
    is_live = scope.filters.status == Item.Status.OPEN
    ids: dict[str, Sequence[int]] = {}
    if title or body:
        statistics = routes.statistics(scope.kinds, {*title, *body, *scope.filters.tags()})
        asked = {"scope": scope, "statistics": statistics, "postings": effort.postings}
        of_words = max(effort.of_words, effort.postings) if narrow else effort.of_words
        ids["words"] = routes.words(title, body, limit=of_words, **asked)
        if is_live and scope.filters.around and routes.too_common(title, body, **asked):
            ids["words_near"] = routes.words_near(title, body, limit=effort.of_words, **asked)
        if is_live and title and statistics.items <= effort.titles:
            ids["titles"] = routes.titles(subject.title, scope=scope, limit=effort.of_place)
    degraded = ""
    if is_live:
        ids |= _around(subject, scope, effort)
        alike, degraded = _alike(vector, scope, effort.of_vectors * (4 if narrow else 1))
        ids |= alike
    if not any(ids.values()) or not (title or body):
        # Where something lies near, they only follow it: they fill what is left.
        near = set(ids.get("place", ()))
        newest = routes.newest(scope=scope, limit=effort.candidates)
        others = [each for each in newest if each not in near]
        ids["newest"] = others[: max(0, effort.candidates - len(near))]
    return _Found(ids, degraded)


def _around(subject: Subject, scope: Scope, effort: Effort) -> dict[str, list[int]]:
    """The nearest items, and the nearest of the same category."""
    filters = scope.filters
    latitude, longitude = subject.latitude, subject.longitude
    if latitude is None or longitude is None:
        latitude, longitude = filters.latitude, filters.longitude
    if latitude is None or longitude is None:
        return {}

    def nearest(category: str) -> list[int]:
        return routes.place(
            latitude,
            longitude,
            scope=scope,
            limit=effort.of_place,
            category=category,
            radius_m=filters.reach_m,
        )

    if filters.category or not subject.category:
        return {"place": nearest(filters.category)}
    return {"category": nearest(subject.category), "place": nearest("")}


def _alike(vector: np.ndarray | None, scope: Scope, limit: int) -> tuple[dict[str, list[int]], str]:
    """The items whose vectors are nearest, if there is a vector; and what had to be left out."""
    if vector is None:
        return {}, ""
    if not _vector_breaker.allows():
        return {}, NO_VECTORS
    try:
        with _savepoint():
            neighbours = vectors.nearest(
                vector,
                kinds=scope.kinds,
                category=scope.filters.category or None,
                country=scope.filters.country or None,
                limit=limit,
                exclude=[*scope.exclude, *_own(scope)],
            )
    except DatabaseError as error:
        _vector_breaker.failed(error)
        logger.warning("matching goes on without vectors: %s", error)
        return {}, NO_VECTORS
    _vector_breaker.succeeded()
    return {f"vectors_{neighbours.route}": [item_id for item_id, _ in neighbours.hits]}, ""


def _own(scope: Scope) -> list[int]:
    """The newest live items that the owner has on the other side, which vectors do not know: they
    would take the places of what others have."""
    if scope.owner_id is None:
        return []
    asked = {"owner": scope.owner_id, "kinds": list(scope.kinds), "limit": OWN_ITEMS}
    return [each for (each,) in prepared.fetch(queries("matching")["own_live_items"], asked)]


def _embedded(text: str) -> tuple[np.ndarray | None, str]:
    """The vector of a text, if it has one; and what is left out because nobody can say."""
    if not embedding.available():
        return None, NO_VECTORS
    try:
        return embedding.embed_query(text), ""
    except EmbedderError as error:
        logger.warning("matching goes on without vectors: %s", error)
        return None, NO_VECTORS


def _load(
    found: _Found,
    also: Sequence[int],
    scope: Scope,
    vector: np.ndarray | None,
    limit: int,
    *,
    coarse: bool,
) -> tuple[_Found, list[Candidate]]:
    """The candidates, each route's best first, that still pass every filter; at most `limit`."""
    in_turn = chain.from_iterable(zip_longest(also, *found.ids.values()))
    ids = list(dict.fromkeys(each for each in in_turn if each is not None))
    if not ids:
        return found, []
    asked = {
        "coarse": coarse,
        "items": prepared.array(ids),
        "limit": limit,
        "vector": None if vector is None or found.degraded else vectors.literal(vector),
    }
    rows = prepared.fetch(queries("matching")["load_candidates"], _conditions(scope) | asked)
    versions = {item_id: updated_at for item_id, _, updated_at, *_ in rows}
    return replace(found, versions=versions), [_candidate(*row) for row in rows]


def _conditions(scope: Scope) -> dict[str, Any]:
    filters = scope.filters
    return scope.parameters() | {
        "category": filters.category,
        "country": filters.country,
        "city": filters.city,
        "date_from": filters.date_from,
        "date_to": filters.date_to,
        "latitude": filters.latitude,
        "longitude": filters.longitude,
        "haversine": geo.haversine(filters.radius_m) if filters.around else None,
    }


def _candidate(
    item_id: int, cosine: float | None, _updated_at: datetime, features: str, *columns: Any
) -> Candidate:
    kind, title, words, category, country, city, latitude, longitude, happened_on = columns
    return Candidate(
        item_id=item_id,
        subject=Subject(
            kind=kind,
            title=title,
            terms=words,
            features=orjson.loads(features),
            category=category,
            country=country,
            city=city,
            latitude=latitude,
            longitude=longitude,
            happened_on=happened_on,
        ),
        cosine=None if cosine is None or math.isnan(cosine) else cosine,  # of a vector of zeros
    )


@contextmanager
def _savepoint() -> Iterator[None]:
    """What fails in the block leaves a transaction around it usable."""
    if not connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        yield


def _counts(found: _Found) -> dict[str, int]:
    return {route: len(ids) for route, ids in found.ids.items()}


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
