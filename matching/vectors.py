"""The nearest vectors of a side that pass a filter: never fewer than exist, whatever the filter.

Three routes, by the estimated number of rows that pass. `exact` compares them all, up to
EXACT_ROWS. `coded`, beyond that, scans their 4-bit codes by Hamming distance and compares the best
few thousand exactly. `graph` walks the HNSW index without the filter and filters what it brought:
if enough pass, those are the nearest, however filter and vectors hang together; else one of the
others follows. On a large side it reads some lists of an IVFFlat index as well (`lists.py`), for
each misses what the other finds: the graph leaves a few vectors and whole clusters out of reach,
lists what lies on the border between two.
(Letting the index filter while it walks, pgvector's iterative scan, finds 61-68 % where filter and
vectors correlate.)
"""

import json
import math
import time
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from django.conf import settings
from django.db import connection

from config import prepared
from config.sqlfiles import queries

# 0.35 to 0.45 µs each, so 58 ms at most. No code and no graph finds the nearest where all that
# passes the filter is far.
EXACT_ROWS = 130_000
GRAPH_ROWS = 5_000  # below, comparing all is as quick as the graph
GRAPH_SHARE = 0.25  # of a side, below which too few of the graph's neighbours would pass
LARGE_SIDE = 300_000  # rows from which the graph alone leaves too much out of reach
_PROBES = 12  # lists read of such a side, of about 1,000 rows each
_EFFORT = (200, 400)  # candidates that the walk keeps (ef_search): of a small side, of a large one
# Of so many codes as stand in a side, so many are compared exactly. In a group of near neighbours
# (a cluster) codes part only the far from the near, and groups grow with the side: with 5,000
# equally spread vectors in each, 500 give a recall of 0.89, 2,000 of 0.998, 3,000 of 1.
SHORTLIST = (500, 3_000)
SHORTLIST_SHARE = 1 / 330
_GRAPH_WANTED = 1_000  # of its neighbours at most: the largest ef_search
_ESTIMATE_SECONDS = 30
_ESTIMATES_KEPT = 2_000


class Neighbours(NamedTuple):
    """`hits`: (item id, cosine), nearest first. `route`: exact, coded or graph; several kinds may
    have several, joined by `+`."""

    hits: list[tuple[int, float]]
    route: str


class _Filter(NamedTuple):
    kind: str
    category: str | None
    country: str | None


def nearest(
    vector: np.ndarray,
    *,
    kinds: Sequence[str],
    category: str | None = None,
    country: str | None = None,
    limit: int,
    exclude: Sequence[int] = (),
) -> Neighbours:
    """The `limit` live items of `kinds` whose vectors have the largest cosine to `vector`.

    `vector`: [384] of any length but 0, of the model that serves (`embedding.embed_query`). Raises
    DatabaseError.
    """
    if settings.MATCHING_VECTOR == "exact":
        return nearest_exactly(
            vector, kinds=kinds, category=category, country=country, limit=limit, exclude=exclude
        )
    hits, routes = [], set()
    for kind in kinds:
        found = _nearest(vector, _Filter(kind, category, country), limit, exclude)
        hits += found.hits
        routes.add(found.route)
    hits.sort(key=lambda hit: (-hit[1], hit[0]))
    return Neighbours(hits[:limit], "+".join(sorted(routes)))


def nearest_exactly(
    vector: np.ndarray,
    *,
    kinds: Sequence[str],
    category: str | None = None,
    country: str | None = None,
    limit: int,
    exclude: Sequence[int] = (),
) -> Neighbours:
    """`nearest` by comparing every row, 0.45 µs each: the truth that recall is measured by."""
    hits = []
    for kind in kinds:
        hits += _run("exact", vector, _Filter(kind, category, country), limit, exclude)
    hits.sort(key=lambda hit: (-hit[1], hit[0]))
    return Neighbours(hits[:limit], "exact")


def literal(vector: np.ndarray) -> str:
    """A vector as pgvector reads it, to 5 places: a half-precision number has no more."""
    return _literal(vector.astype(np.float32, copy=False).tobytes())


@lru_cache(maxsize=64)  # a search says its vector to several statements
def _literal(numbers: bytes) -> str:
    values = np.frombuffer(numbers, np.float32).tolist()
    return f"[{','.join(['%.5f'] * len(values))}]" % tuple(values)


def forget_estimates() -> None:
    """Ask the planner again: for tests and benchmarks, which change all at once."""
    _estimates.clear()


def _nearest(vector, among: _Filter, limit: int, exclude: Sequence[int]) -> Neighbours:
    side = _estimate(_Filter(among.kind, None, None))
    rows = side if among[1:] == (None, None) else _estimate(among)
    share = rows / max(1, side)
    if rows > GRAPH_ROWS and share >= GRAPH_SHARE:
        neighbours = math.ceil(limit / share) * (1 if share == 1 else 3) + len(exclude)
        is_large = side >= LARGE_SIDE
        hits = _run(
            "graph",
            vector,
            among,
            limit,
            exclude,
            wanted=min(neighbours, _GRAPH_WANTED),
            effort=max(_EFFORT[is_large], min(neighbours, _GRAPH_WANTED)),
            probes=_PROBES if is_large else 0,
        )
        if len(hits) == limit:
            return Neighbours(hits, "graph")
    if rows <= EXACT_ROWS:
        return Neighbours(_run("exact", vector, among, limit, exclude), "exact")
    shortlist = max(2 * limit, SHORTLIST[0], min(SHORTLIST[1], int(side * SHORTLIST_SHARE)))
    hits = _run("coded", vector, among, limit, exclude, shortlist=shortlist)
    return Neighbours(hits, "coded")


_STATEMENTS = {"exact": "nearest_exact", "coded": "nearest_coded", "graph": "nearest_by_graph"}
_FILTERS = {
    "category": "AND category = %(category)s::text",
    "country": "AND country = %(country)s::text",
}


def _run(
    route: str, vector, among: _Filter, limit: int, exclude: Sequence[int], **more: int
) -> list[tuple[int, float]]:
    parameters = {
        "vector": literal(vector),
        "limit": limit,
        "exclude": prepared.array(exclude),
        **among._asdict(),
        **more,
    }
    asked = tuple(name for name in _FILTERS if parameters[name] is not None)
    return prepared.fetch(_statement(_STATEMENTS[route], asked), parameters)


@cache
def _statement(name: str, filters: tuple[str, ...]) -> str:
    conditions = " ".join(_FILTERS[one] for one in filters)
    return queries("matching")[name].replace("/* filters */", conditions)


_estimates: dict[_Filter, tuple[float, int]] = {}


def _estimate(among: _Filter) -> int:
    """About how many rows pass, from the planner's statistics; kept for 30 s in this process.

    A wrong guess costs time, not rows: every route but the graph's sees all rows that pass.
    """
    known = _estimates.get(among)
    now = time.monotonic()
    if known and now < known[0]:
        return known[1]
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["vector_estimate"], among._asdict())
        plan = cursor.fetchone()[0]
    rows = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"]
    if len(_estimates) >= _ESTIMATES_KEPT:
        _estimates.clear()
    _estimates[among] = (now + _ESTIMATE_SECONDS, rows)
    return rows
