"""Vector searches inside a process of the project: `python -m bench.vector_probes NAME '{…}'`."""

import random
import time

import django
import numpy as np

from bench import load, vector_data
from bench.harness import answer_probe, percentile

django.setup()

from matching import embedding, vectors  # noqa: E402 -- these need the settings

LIMIT = 10


def _cases() -> dict[str, dict]:
    """Filters by name: all, then each share independent of the vectors and correlated with them."""
    cases = {"all": {"share": 1.0}}
    for share, country in vector_data.COUNTRIES.items():
        cases[f"independent {share:g}"] = {"share": share, "country": country}
        cases[f"correlated {share:g}"] = {"share": share, "category": vector_data.CATEGORIES[share]}
    return cases


def recall(*, items: int, samples: int, keep_every: int = 1) -> dict:
    """`vectors.nearest` in every case against the exact answer: {case: recalls, rows that lacked,
    seconds, routes}. `keep_every`: only items whose id it divides are left."""
    shape = vector_data.Shape(items)
    found = {}
    for name, case in _cases().items():
        share = case["share"] if "category" in case else None
        asked = vector_data.searches(shape, samples, share=share)
        where = {key: case[key] for key in ("category", "country") if key in case}
        truth = _truth(shape, asked, where, keep_every)
        for vector in asked:  # warm
            vectors.nearest(vector, kinds=["found"], limit=LIMIT, **where)
        recalls, seconds, routes, lacking = [], [], {}, 0
        for vector, expected in zip(asked, truth, strict=True):
            started = time.perf_counter()
            got = vectors.nearest(vector, kinds=["found"], limit=LIMIT, **where)
            seconds.append(time.perf_counter() - started)
            routes[got.route] = routes.get(got.route, 0) + 1
            ids = {item for item, _ in got.hits}
            lacking += max(0, len(expected) - len(ids))
            recalls.append(len(ids & expected) / max(1, len(expected)))
        found[name] = {
            "share": case["share"],
            "recall": float(np.mean(recalls)),
            "worst": min(recalls),
            "lacking": lacking,
            "p50": percentile(seconds, 0.5),
            "p95": percentile(seconds, 0.95),
            "routes": routes,
        }
    return found


def _truth(shape, asked: np.ndarray, where: dict, keep_every: int) -> list[set[int]]:
    """The ids of the nearest items of each vector, by comparing all as they are stored."""
    asked = np.round(asked, 5).astype(np.float16).astype(np.float32)
    best = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(asked)
    for chunk in vector_data.chunks(shape):
        ids = np.arange(chunk.first_id, chunk.first_id + len(chunk.vectors))
        passing = ids % keep_every == 0
        if "category" in where:
            passing &= chunk.categories == where["category"]
        if "country" in where:
            passing &= chunk.countries == where["country"]
        stored = chunk.vectors[passing].astype(np.float32)
        stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        cosines = asked @ stored.T
        for row, before in enumerate(best):
            scores = np.append(before[0], cosines[row])
            top = np.argsort(-scores)[:LIMIT]
            best[row] = scores[top], np.append(before[1], ids[passing])[top]
    return [set(known.tolist()) for _, known in best]


def crowd(*, items: int, threads: int, seconds: float) -> dict:
    """`threads` searchers at once, every case in turn: how many were answered, and how fast."""
    shape = vector_data.Shape(items)
    work = []
    for case in _cases().values():
        share = case["share"] if "category" in case else None
        where = {key: case[key] for key in ("category", "country") if key in case}
        work += [(vector, where) for vector in vector_data.searches(shape, 50, share=share)]

    def search(chance: random.Random) -> None:
        vector, where = chance.choice(work)
        vectors.nearest(vector, kinds=["found"], limit=LIMIT, **where)

    return load.searchers(search, threads=threads, seconds=seconds)


def drain() -> dict:
    """`embedding.drain` of what waits."""
    waiting = embedding.queue_depth()
    started = time.perf_counter()
    written = embedding.drain()
    return {"waiting": waiting, "written": written, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    answer_probe(recall, crowd, drain)
