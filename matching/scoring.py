"""How likely it is that two items belong together, and why. Pure: no database, no clock.

Each component looks at one thing (words, title, meaning, distance …) and says 0…1, or nothing where
either item lacks it. The score is the mean of what was said, weighted by the pair's weights, put
through a logistic curve that was fit on labelled pairs: 0.5 means "as likely as not". A missing
component leaves the mean, so it counts neither for nor against.
"""

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from matching import geo
from matching.features import agreement
from matching.kinds import Kind, Pair, pair_of
from matching.text import split_terms, tokens

COMPONENTS = {
    "words": "BM25 of the words of one in title and description of the other",
    "title": "words that the titles share, rare ones more, spelling apart",
    "meaning": "cosine of the two texts' vectors",
    "distance": "how near the places are",
    "date": "how near the dates are",
    "attributes": "attributes that both have and that agree",
    "category": "whether the categories agree",
    "place": "whether city and country agree, where a place on the map is missing",
}
_INDEX = {name: column for column, name in enumerate(COMPONENTS)}

# Wanted ↔ offered: fit on the train splits of the labelled sets (`python -m bench.match_quality`),
# but for date, category and place, of which those sets say nothing. The others by hand, until
# `tune_weights` has what people confirmed and dismissed: a stranger describes a find in other words
# than its owner, and a resume meets a job in its long text.
DEFAULT_WEIGHTS: dict[Pair, dict[str, float]] = {
    Pair.LOST_FOUND: {
        "words": 0.12, "title": 0.24, "meaning": 0.14, "distance": 0.18, "date": 0.1,
        "attributes": 0.12, "category": 0.06, "place": 0.04,
    },
    Pair.WANTED_OFFERED: {
        "words": 0.0143, "title": 0.4512, "meaning": 0.0512, "distance": 0.3658, "date": 0.02,
        "attributes": 0.0476, "category": 0.03, "place": 0.02,
    },
    Pair.RESUME_JOB: {
        "words": 0.42, "title": 0.1, "meaning": 0.2, "distance": 0.06, "date": 0.02,
        "attributes": 0.1, "category": 0.06, "place": 0.04,
    },
}  # fmt: skip

# Slope and middle of the logistic curve over the weighted mean, by pair: where half of what was
# retrieved with such a mean belonged together. Wanted ↔ offered is fit, as its weights are, over
# all sets alike: places that match lie above it, products without a place below (their titles share
# fewer words), so that a low score says less about them.
CALIBRATION: dict[Pair, tuple[float, float]] = {
    Pair.LOST_FOUND: (10.0, 0.6),
    Pair.WANTED_OFFERED: (11.5, 0.69),
    Pair.RESUME_JOB: (10.0, 0.35),
}

# At which distance half of the agreement is left. Wanted ↔ offered: two records of one place lie a
# median 40 to 60 m apart, 95 % within 400 m. What is lost is carried on; people commute.
HALF_DISTANCE_M: dict[Pair, float] = {
    Pair.LOST_FOUND: 1_000.0,
    Pair.WANTED_OFFERED: 200.0,
    Pair.RESUME_JOB: 20_000.0,
}
HALF_DAYS: dict[Pair, float] = {
    Pair.LOST_FOUND: 14.0,
    Pair.WANTED_OFFERED: 30.0,
    Pair.RESUME_JOB: 60.0,
}

# BM25 as Robertson and Zaragoza recommend it (2009).
K1 = 1.2
B = 0.75
# Words of the seeking side that BM25 looks for: the rarest, as Lucene's MoreLikeThis does.
QUERY_WORDS = 32

# Two words count as one, spelt differently, from this likeness (Dice, of trigrams) on.
SPELLING = 0.4
MODEL_LENGTH = 4  # words with a digit that are shorter are numbers, alike only if equal
JOINED_LENGTH = 5  # `south side` is `southside`, but `a b` is not `ab`

WEIGHTS_CACHED_SECONDS = 30.0


_DIGIT = re.compile(r"\d")

_weights: dict[Pair, tuple[float, dict[str, float]]] = {}  # when they were read, and what


@dataclass(frozen=True)
class Subject:
    """What an item, or a description that is no item, says. "" or None where it says nothing.

    `description` is only embedded. `terms` as `matching.text.terms` makes them, `features` as
    `matching.features.normalise` does.
    """

    kind: str
    title: str = ""
    description: str = ""
    terms: str = ""
    features: Mapping = field(default_factory=dict)
    category: str = ""
    country: str = ""
    city: str = ""
    latitude: float | None = None
    longitude: float | None = None
    happened_on: date | None = None


@dataclass(frozen=True)
class Candidate:
    """An item that may match. `cosine` of its vector and the subject's, None without vectors."""

    item_id: int
    subject: Subject
    cosine: float | None = None


@dataclass(frozen=True)
class Statistics:
    """What BM25 knows of the candidates' kind: live items, in how many of them a word occurs, and
    the mean number of words in a title and in a body.

    `frequency` needs the words of `vocabulary`; one that it lacks counts as the rarest.
    """

    items: int
    frequency: Mapping[str, int]
    title_words: float
    body_words: float


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a score: what was seen (`raw`, 0…1), its share of the weights that had a say, and
    its contribution. The contributions add up to the score.
    """

    name: str
    raw: float
    weight: float
    contribution: float

    def as_dict(self) -> dict:
        """What `matches.components` stores."""
        return {
            "name": self.name,
            "raw": round(self.raw, 4),
            "weight": round(self.weight, 4),
            "contribution": round(self.contribution, 4),
        }


@dataclass(frozen=True)
class Scored:
    """A candidate with its score, 0…1. `said`: what each of COMPONENTS said, NaN for nothing;
    `weights`: theirs."""

    item_id: int
    score: float
    said: Sequence[float] = ()
    weights: Sequence[float] = ()

    @cached_property
    def components(self) -> list[Component]:
        """Why: the largest contribution first. Made when asked for, as most candidates are not."""
        return _components(self.said, self.weights, self.score)


def score(
    subject: Subject,
    candidates: Sequence[Candidate],
    statistics: Statistics,
    weights: Mapping[str, float],
    limit: int | None = None,
) -> list[Scored]:
    """The `limit` best candidates with their scores, best first; of one score the newest first."""
    if not candidates:
        return []
    pair = pair_of(subject.kind)
    table = evidence(subject, candidates, statistics)
    row = weight_row(weights)
    means = weighted_means(table, row)
    scores = calibrated(pair, means)
    ranked = sorted(
        zip(scores.tolist(), (each.item_id for each in candidates), table.tolist(), strict=True),
        key=lambda each: (-each[0], -each[1]),
    )
    plain = row.tolist()
    return [Scored(item_id, total, line, plain) for total, item_id, line in ranked[:limit]]


def weights_for(pair: str) -> dict[str, float]:
    """The weights of a pair of kinds: those in the database, else the defaults.

    A component that the row does not name has its default. Kept in the process for
    WEIGHTS_CACHED_SECONDS: after an edit, every worker has the new ones by then.
    """
    from matching.models import PairWeights

    pair = Pair(pair)
    now = time.monotonic()
    known = _weights.get(pair)
    if known is None or now - known[0] > WEIGHTS_CACHED_SECONDS:
        row = PairWeights.objects.filter(pair=pair).first()
        known = _weights[pair] = (now, DEFAULT_WEIGHTS[pair] | (row.weights if row else {}))
    return dict(known[1])


def forget_weights() -> None:
    """Have this process read the weights again, after it has written them."""
    _weights.clear()


def evidence(
    subject: Subject, candidates: Sequence[Candidate], statistics: Statistics
) -> np.ndarray:
    """What each component says of each candidate: [candidates, COMPONENTS], NaN for nothing."""
    table = np.full((len(candidates), len(COMPONENTS)), np.nan)
    if not candidates:
        return table
    subjects = [candidate.subject for candidate in candidates]
    words = [split_terms(each.terms) for each in subjects]
    pair = pair_of(subject.kind)
    rarity = _Rarity(statistics)
    query_title, query_body = split_terms(subject.terms)
    columns = {
        "words": _bm25(query_title + query_body, words, statistics, rarity),
        "title": _title(query_title, [title for title, _ in words], rarity),
        "meaning": [
            None if each.cosine is None else min(1.0, max(0.0, each.cosine)) for each in candidates
        ],
        "date": [_date(subject, each, HALF_DAYS[pair]) for each in subjects],
        "attributes": [
            agreement(subject.features, each.features)
            if subject.features and each.features
            else None
            for each in subjects
        ],
        "category": _category(subject, subjects),
    }
    for name, values in columns.items():
        table[:, _INDEX[name]] = np.array(values, dtype=float)
    table[:, _INDEX["distance"]] = distance = _distance(subject, subjects, HALF_DISTANCE_M[pair])
    table[:, _INDEX["place"]] = [
        _place(subject, each) if math.isnan(metres) else math.nan
        for each, metres in zip(subjects, distance, strict=True)
    ]
    return table


def vocabulary(subject: Subject, candidates: Iterable[Candidate]) -> set[str]:
    """The words whose frequency a score depends on: the subject's and the candidates' titles'."""
    title, body = split_terms(subject.terms)
    words = {*title, *body}
    for candidate in candidates:
        words.update(split_terms(candidate.subject.terms)[0])
    return words


def weight_row(weights: Mapping[str, float]) -> np.ndarray:
    """Weights in the order of COMPONENTS; what is missing, negative or not finite counts as 0."""
    values = [float(weights.get(name, 0.0)) for name in COMPONENTS]
    return np.array([value if math.isfinite(value) and value > 0 else 0.0 for value in values])


def weighted_means(table: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The mean of what each line of `table` says, weighted; 0 where nothing with a weight does."""
    said = ~np.isnan(table)
    total = said @ row
    return np.where(total > 0, np.nan_to_num(table) @ row / np.where(total > 0, total, 1.0), 0.0)


def calibrated(pair: Pair, means: np.ndarray) -> np.ndarray:
    """Weighted means as probabilities, by the pair's logistic curve."""
    slope, middle = CALIBRATION[pair]
    return 1.0 / (1.0 + np.exp(-slope * (means - middle)))


def _components(line: Sequence[float], row: Sequence[float], total: float) -> list[Component]:
    """The parts of a score; plain numbers, because numpy is slow on eight at a time."""
    said = [
        (name, raw, weight)
        for name, raw, weight in zip(COMPONENTS, line, row, strict=False)
        if weight > 0 and raw == raw  # noqa: PLR0124 -- not NaN
    ]
    weights = sum(weight for _, _, weight in said)
    agreed = sum(raw * weight for _, raw, weight in said)
    components = [
        # Where every component that spoke said 0, each has its share of the little that is left.
        Component(
            name,
            raw,
            weight / weights,
            total * (raw * weight / agreed if agreed else weight / weights),
        )
        for name, raw, weight in said
    ]
    components.sort(key=lambda component: -component.contribution)
    return components


class _Rarity(dict):
    """The inverse document frequency of words, as BM25 has it; filled as words are met."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        self._items = max(statistics.items, 0)
        self._frequency = statistics.frequency

    def __missing__(self, word: str) -> float:
        # A read model may lag behind the items: never more items with a word than items.
        frequency = min(self._frequency.get(word, 0), self._items)
        rarity = self[word] = math.log1p((self._items - frequency + 0.5) / (frequency + 0.5))
        return rarity


def _bm25(
    query: list[str],
    documents: list[tuple[list[str], list[str]]],
    statistics: Statistics,
    rarity: _Rarity,
) -> list[float | None]:
    """BM25 of the query's rarest words, as a share of what a document of mean length that holds
    each of them once would get, at most 1.
    """
    wanted = list(dict.fromkeys(query))
    if len(wanted) > QUERY_WORDS:
        # What no item has cannot be met: a long text has many such words, typos and names.
        met = [word for word in wanted if statistics.frequency.get(word)]
        wanted = sorted(met or wanted, key=rarity.__getitem__, reverse=True)[:QUERY_WORDS]
    reachable = sum(rarity[word] for word in wanted)
    if not reachable:
        return [None] * len(documents)
    sought = set(wanted)
    mean_length = max(1.0, statistics.title_words + statistics.body_words)
    values: list[float | None] = []
    for title, body in documents:
        length = len(title) + len(body)
        if not length:
            values.append(None)
            continue
        norm = K1 * (1 - B + B * length / mean_length)
        total = 0.0
        for word in sought.intersection(title).union(sought.intersection(body)):
            count = title.count(word) + body.count(word)
            total += rarity[word] * count * (K1 + 1) / (count + norm)
        values.append(min(1.0, total / reachable))
    return values


def _title(query: list[str], titles: list[list[str]], rarity: _Rarity) -> list[float | None]:
    """Soft TF-IDF (Cohen, Ravikumar, Fienberg 2003) of the titles, the mean of both directions.

    Each word counts by its rarity squared, times its likeness to the nearest word of the other.
    """
    if not query:
        return [None] * len(titles)
    spelling = _Spelling(query)
    weights = [rarity[word] ** 2 for word in spelling.words]
    query_weight = sum(weights)
    values: list[float | None] = []
    for title in titles:
        if not title:
            values.append(None)
            continue
        covered, joined = spelling.joins(title)
        title_weight = backward = 0.0
        for word in set(title):
            weight = rarity[word] ** 2
            title_weight += weight
            alike = spelling[word]
            for at, likeness in alike:
                if likeness > covered.get(at, 0.0):
                    covered[at] = likeness
            if word in joined:
                backward += weight
            elif alike:
                backward += weight * max(likeness for _, likeness in alike)
        forward = sum(weights[at] * likeness for at, likeness in covered.items())
        values.append((forward / query_weight + backward / title_weight) / 2)
    return values


class _Spelling(dict):
    """Which words of a query another word is like, and how much: [(position, 0…1)].

    Filled as words are met. Words with a digit name a model, where one other character is another
    product: they are alike only if one holds the other (`lds4821` and `lds4821ww`).
    """

    def __init__(self, query: list[str]) -> None:
        super().__init__()
        index = {word: at for at, word in enumerate(dict.fromkeys(query))}
        self.words = list(index)
        self._index = index
        self._joined = {
            left + right: (index[left], index[right])
            for left, right in pairwise(query)
            if len(left + right) >= JOINED_LENGTH
        }
        models = [word for word in index if len(word) >= MODEL_LENGTH and _names_model(word)]
        self._models = [(index[word], word) for word in models]
        # Most words hold no model and are in none: both are known without a look at each.
        self._all_models = " ".join(models)
        self._any_model = re.compile("|".join(map(re.escape, models)) or "(?!)")
        self._grams: dict[str, list[int]] = {}
        self._sizes: list[int] = []
        for word, at in index.items():
            grams = _trigrams(word)
            self._sizes.append(len(grams))
            if not _names_model(word):
                for gram in grams:
                    self._grams.setdefault(gram, []).append(at)

    def joins(self, title: list[str]) -> tuple[dict[int, float], set[str]]:
        """Neighbours in a title that are one word of the query: its positions, their words."""
        covered: dict[int, float] = {}
        joined: set[str] = set()
        for left, right in pairwise(title):
            word = left + right
            if word in self._index and len(word) >= JOINED_LENGTH:
                covered[self._index[word]] = 1.0
                joined |= {left, right}
        return covered, joined

    def __missing__(self, word: str) -> list[tuple[int, float]]:
        found = [(at, 1.0) for at in self._joined.get(word, ())]
        if word in self._index:
            found.append((self._index[word], 1.0))
        if _names_model(word):
            found += self._like_model(word)
        else:
            found += self._like_word(word)
        self[word] = found
        return found

    def _like_model(self, word: str) -> list[tuple[int, float]]:
        if len(word) < MODEL_LENGTH or not (
            word in self._all_models or self._any_model.search(word)
        ):
            return []
        found = []
        for at, model in self._models:
            if word in model or model in word:
                likeness = min(len(word), len(model)) / max(len(word), len(model))
                if likeness >= SPELLING:
                    found.append((at, likeness))
        return found

    def _like_word(self, word: str) -> list[tuple[int, float]]:
        grams = _trigrams(word)
        shared: dict[int, int] = {}
        for gram in grams.intersection(self._grams):
            for at in self._grams[gram]:
                shared[at] = shared.get(at, 0) + 1
        if not shared:
            return []
        size = len(grams)
        return [
            (at, likeness)
            for at, count in shared.items()
            if (likeness := 2 * count / (size + self._sizes[at])) >= SPELLING
        ]


def _names_model(word: str) -> bool:
    return _DIGIT.search(word) is not None


@lru_cache(maxsize=32_768)
def _trigrams(word: str) -> frozenset[str]:
    padded = f" {word} "
    return frozenset(padded[at : at + 3] for at in range(len(padded) - 2))


def _distance(subject: Subject, others: Sequence[Subject], half: float) -> np.ndarray:
    """1 at the same place, 0.5 at `half` metres, hyperbolic; NaN where either has no place."""
    if subject.latitude is None or subject.longitude is None:
        return np.full(len(others), np.nan)
    places = np.array(
        [
            (math.nan, math.nan)
            if each.latitude is None or each.longitude is None
            else (each.latitude, each.longitude)
            for each in others
        ]
    )
    here = np.radians([subject.latitude, subject.longitude])
    there = np.radians(places)
    square = (
        np.sin((there[:, 0] - here[0]) / 2) ** 2
        + np.cos(here[0]) * np.cos(there[:, 0]) * np.sin((there[:, 1] - here[1]) / 2) ** 2
    )
    metres = 2 * geo.EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(square, 0, 1)))
    return 1 / (1 + metres / half)


def _date(subject: Subject, other: Subject, half: float) -> float | None:
    """1 on the same day, 0.5 after `half` days. Nothing is found before it is lost: 0, but for a
    day, since people and time zones differ.
    """
    if subject.happened_on is None or other.happened_on is None:
        return None
    lost, found = (subject, other) if subject.kind == Kind.LOST else (other, subject)
    days = (found.happened_on - lost.happened_on).days
    if lost.kind == Kind.LOST and found.kind == Kind.FOUND and days < -1:
        return 0.0
    return 1 / (1 + abs(days) / half)


def _category(subject: Subject, others: Sequence[Subject]) -> list[float | None]:
    mine = set(tokens(subject.category)) if subject.category else set()
    if not mine:
        return [None] * len(others)
    known: dict[str, float | None] = {}
    for category in {each.category for each in others}:
        theirs = set(tokens(category))
        # The overlap coefficient: "Cameras" agrees with "Digital Cameras".
        known[category] = len(mine & theirs) / min(len(mine), len(theirs)) if theirs else None
    return [known[each.category] for each in others]


def _place(subject: Subject, other: Subject) -> float:
    """1 in the same city, 0.5 where only the country is known and the same; NaN for nothing."""
    if subject.country and other.country and subject.country != other.country:
        return 0.0
    if subject.city and other.city:
        return float(tokens(subject.city) == tokens(other.city))
    return 0.5 if subject.country and other.country else math.nan
