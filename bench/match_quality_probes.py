"""Match quality inside a process of the project: `python -m bench.match_quality_probes NAME '{…}'`.

The items stand in the database and their vectors are drained. What is asked is `engine.match` of an
item, as a match job asks it.
"""

import json
import math
import time
from collections import Counter, defaultdict
from pathlib import Path

import django
import numpy as np

from bench.harness import answer_probe

django.setup()

from matching import embedding, engine  # noqa: E402 -- these need the settings
from matching.kinds import COUNTERPARTS, Pair  # noqa: E402
from matching.models import Item, ItemEmbedding  # noqa: E402
from matching.scoring import COMPONENTS, DEFAULT_WEIGHTS, Scored  # noqa: E402
from matching.text import split_terms  # noqa: E402
from matching.tuning import Judged, calibrate, fit  # noqa: E402

DEPTH = 300
RRF_K = 60  # Cormack, Clarke, Büttcher 2009


def drain() -> dict:
    """Make the vectors of all items."""
    return {"embedded": embedding.drain()}


def ranks(*, path: str, same_records: bool) -> dict:
    """By method, for each query of the JSON file at `path` the ranks of its relevant items, best
    first; 0 for one that was not found. And what a match took: seconds.
    """
    queries = json.loads(Path(path).read_text(encoding="utf-8"))
    offers = _Offers()
    found: dict[str, list[list[int]]] = defaultdict(list)
    seconds = []
    for item, relevant, own in _asked(queries, offers, same_records):
        started = time.perf_counter()
        hits = _match(item, own)
        seconds.append(time.perf_counter() - started)
        words, vector = offers.bm25(item, own), offers.cosine(item, own)
        for method, ordered in (
            ("spyglass", [hit.item_id for hit in hits]),
            ("bm25", words),
            ("vector", vector),
            ("rrf", _rrf([words[:DEPTH], vector[:DEPTH]])),
        ):
            at = {item_id: rank for rank, item_id in enumerate(ordered[:DEPTH], 1)}
            found[method].append(sorted((at.get(each, 0) for each in relevant), key=_last_if_0))
    return {"ranks": found, "seconds": seconds}


def judge(*, path: str, same_records: bool, to: str) -> dict:
    """Write what each component says of the candidates of each query to the NPZ file `to`."""
    queries = json.loads(Path(path).read_text(encoding="utf-8"))
    tables, marks, sizes = [], [], []
    for item, relevant, own in _asked(queries, _Offers(), same_records):
        hits = _match(item, own)
        tables.append([_line(hit) for hit in hits])
        marks += [hit.item_id in relevant for hit in hits]
        sizes.append(len(hits))
    np.savez(to, table=np.concatenate(tables), relevant=np.array(marks), sizes=np.array(sizes))
    return {"lists": len(sizes)}


def fit_weights(*, paths: list[str]) -> dict:
    """Weights of wanted ↔ offered that suit the sets of `judge`, and their logistic curve."""
    sets = [_judged(path) for path in paths]
    weights = fit(sets, DEFAULT_WEIGHTS[Pair.WANTED_OFFERED])
    slope, middle = calibrate(sets, weights)
    return {"weights": weights, "slope": round(slope, 2), "middle": round(middle, 3)}


def _judged(path: str) -> list[Judged]:
    with np.load(path) as stored:
        ends = np.cumsum(stored["sizes"])[:-1]
        tables, marks = np.split(stored["table"], ends), np.split(stored["relevant"], ends)
    return [Judged(table, mark) for table, mark in zip(tables, marks, strict=True)]


def _asked(queries: list, offers: "_Offers", same_records: bool):
    """For each query its item, the ids of what is relevant, and what it must not find: itself."""
    wanted = {
        item.external_id: item
        for item in Item.objects.filter(kind="wanted", external_id__in=[one for one, _ in queries])
    }
    for key, relevant in queries:
        own = [offers.ids[key]] if same_records else []
        yield wanted[key], {offers.ids[each] for each in relevant}, own


def _match(item: Item, own: list[int]) -> list[Scored]:
    found = engine.match(
        engine.subject_of(item),
        kinds=[COUNTERPARTS[item.kind]],
        owner_id=item.owner_id,
        exclude=own,
        limit=DEPTH,
    )
    assert not found.degraded, found.degraded
    return found.hits


def _line(hit: Scored) -> list[float]:
    raw = {component.name: component.raw for component in hit.components}
    return [raw.get(name, math.nan) for name in COMPONENTS]


def _last_if_0(rank: int) -> float:
    return rank or math.inf


def _rrf(orders: list[list[int]]) -> list[int]:
    """Reciprocal rank fusion of several orders."""
    fused: Counter[int] = Counter()
    for order in orders:
        for rank, item_id in enumerate(order, 1):
            fused[item_id] += 1 / (RRF_K + rank)
    return sorted(fused, key=lambda item_id: -fused[item_id])


class _Offers:
    """Every offered item, compared one by one: what a single signal finds at its best."""

    def __init__(self) -> None:
        items = list(Item.objects.filter(kind="offered").order_by("pk"))
        self.ids = {item.external_id: item.pk for item in items}
        self._order = np.array([item.pk for item in items])
        stored = dict(ItemEmbedding.objects.values_list("item_id", "text_embedding"))
        self._vectors = np.array([stored[item.pk] for item in items], np.float32)
        self._stored = stored
        titles = [split_terms(item.terms)[0] for item in items]
        lengths = np.array([len(title) for title in titles])
        self._norm = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
        postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for at, title in enumerate(titles):
            for word, count in Counter(title).items():
                postings[word].append((at, count))
        self._postings = {word: np.array(found) for word, found in postings.items()}

    def bm25(self, item: Item, own: list[int]) -> list[int]:
        """Ids by BM25 of the titles, those that share a word."""
        scores = np.zeros(len(self._order))
        for word in set(split_terms(item.terms)[0]):
            if word in self._postings:
                at, count = self._postings[word].T
                rarity = math.log1p((len(scores) - len(at) + 0.5) / (len(at) + 0.5))
                scores[at] += rarity * count * 2.2 / (count + self._norm[at])
        return self._best(scores, own, above=0.0)

    def cosine(self, item: Item, own: list[int]) -> list[int]:
        """Ids by the cosine of the vectors, exactly."""
        vector = np.array(self._stored[item.pk], np.float32)
        return self._best(self._vectors @ vector, own, above=-math.inf)

    def _best(self, scores: np.ndarray, own: list[int], *, above: float) -> list[int]:
        order = np.argsort(-scores, kind="stable")[: DEPTH + len(own)]
        ids = self._order[order[scores[order] > above]].tolist()
        return [item_id for item_id in ids if item_id not in own]


if __name__ == "__main__":
    answer_probe(drain, ranks, judge, fit_weights)
