"""Fits the weights of a pair of kinds to what people said of its matches.

A list is one pair that belongs together among others that do not; the fit makes the former win
(listwise softmax: Cao and others, "Learning to Rank", 2007). The same fit made the default weights
out of labelled sets, see `bench/match_quality.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple

import numpy as np
import orjson
from django.db import connection, transaction

from config.sqlfiles import queries
from matching import scoring
from matching.kinds import Pair
from matching.models import AuditLog, PairWeights
from matching.scoring import COMPONENTS, weight_row, weighted_means

ROUNDS = 200
LEARNING_RATE = 0.05
PRIOR = 0.002  # how strongly a weight is held at its start: what few lists say moves it little
SMALLEST = 1e-3  # a weight never falls to 0 by a fit, or no later fit could raise it
MISSING_WEIGHT = 0.01  # where a fit starts from, for a component that had no weight

VERDICTS = 20_000  # a fit looks at the newest, of each sort
OTHERS = 20  # dismissed pairs that a confirmed one is held against
HELD_BACK = 4  # every 4th seeker's pairs are kept from the fit, to measure the gain on
LEAST_VERDICTS = 20  # confirmed and dismissed pairs, each, in either part


@dataclass(frozen=True)
class Judged:
    """Candidates of one subject: what the components say (`matching.scoring.evidence`: one line a
    candidate, NaN for nothing), and which of them belong to it.
    """

    table: np.ndarray
    relevant: np.ndarray


def fit(sets: Sequence[Sequence[Judged]], start: Mapping[str, float]) -> dict[str, float]:
    """Weights, adding up to 1, under which relevant candidates win; each set counts the same.

    A component that no list speaks of keeps its share. Lists without a relevant or without another
    candidate say nothing. Raises ValueError where no list is left.
    """
    lists = _Lists.of(sets)
    row = weight_row(start)
    share = row / row.sum() if row.any() else row
    origin = np.log(np.where(share > SMALLEST, share, MISSING_WEIGHT))
    heard = lists.said.any(axis=0)
    parameters = np.append(origin.copy(), math.log(15.0))  # the last one: how sharp the softmax is
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    for step in range(1, ROUNDS + 1):
        gradient = lists.gradient(parameters)
        gradient[:-1] = np.where(heard, gradient[:-1] + PRIOR * (parameters[:-1] - origin), 0)
        first = 0.9 * first + 0.1 * gradient  # Adam (Kingma, Ba 2015)
        second = 0.99 * second + 0.01 * gradient**2
        parameters -= (
            LEARNING_RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        )
        np.maximum(parameters[:-1], math.log(SMALLEST), out=parameters[:-1])
    fitted = np.exp(parameters[:-1])
    # Those that were heard share what they had together: the others' shares stay.
    fitted[heard] *= np.exp(origin)[heard].sum() / fitted[heard].sum()
    fitted /= fitted.sum()
    return {name: round(float(weight), 4) for name, weight in zip(COMPONENTS, fitted, strict=True)}


def calibrate(
    sets: Sequence[Sequence[Judged]], weights: Mapping[str, float]
) -> tuple[float, float]:
    """Slope and middle of the logistic curve that turns weighted means into probabilities.

    Logistic regression by Newton's method; each set counts the same. Raises ValueError without a
    relevant and another candidate.
    """
    row = weight_row(weights)
    means, hits, counts = [], [], []
    for judged in sets:
        lines = sum(len(each.relevant) for each in judged)
        for each in judged:
            means.append(weighted_means(each.table, row))
            hits.append(each.relevant)
            counts.append(np.full(len(each.relevant), 1 / lines))
    x, y, count = np.concatenate(means), np.concatenate(hits).astype(float), np.concatenate(counts)
    if not 0 < y.mean() < 1:
        raise ValueError("a curve needs candidates that are relevant and others")
    design = np.column_stack([x, np.ones_like(x)])
    beta = np.array([10.0, -7.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        gradient = design.T @ (count * (p - y)) + 1e-6 * beta
        hessian = (design * (count * p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        beta -= np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-6:
            break
    return float(beta[0]), float(-beta[1] / beta[0])


class TooFewVerdicts(ValueError):
    """People have not confirmed and dismissed enough pairs to fit weights to."""


@dataclass(frozen=True)
class Tuned:
    """What a fit found. `before` and `after`: mean reciprocal rank of a confirmed pair among
    dismissed ones, on the part that the fit has not seen.
    """

    pair: Pair
    confirmed: int
    dismissed: int
    held_back: int
    current: dict[str, float]
    fitted: dict[str, float]
    before: float
    after: float

    @property
    def gain(self) -> float:
        return self.after - self.before


def tune(pair: Pair) -> Tuned:
    """Fit the weights of a pair of kinds to the newest confirmed and dismissed matches.

    It works on the components as they were stored with each match: one that had no weight then is
    not among them, and keeps its weight. Changes nothing. Raises TooFewVerdicts.
    """
    verdicts = _verdicts(pair)
    seen, held = [], []
    for verdict in verdicts:
        (held if _is_held_back(verdict.seeker_id) else seen).append(verdict)
    for part in (seen, held):
        confirmed = sum(verdict.confirmed for verdict in part)
        if min(confirmed, len(part) - confirmed) < LEAST_VERDICTS:
            raise TooFewVerdicts(
                f"{Pair(pair).label}: a fit needs {LEAST_VERDICTS} confirmed and as many dismissed"
                f" matches to learn from, and again to measure the gain on; there are"
                f" {_counted(seen)}, and {_counted(held)}"
            )
    current = scoring.weights_for(pair)
    fitted = fit([_lists(seen)], current)
    measured = _lists(held)
    return Tuned(
        pair=Pair(pair),
        confirmed=sum(verdict.confirmed for verdict in verdicts),
        dismissed=sum(not verdict.confirmed for verdict in verdicts),
        held_back=len(measured),
        current=current,
        fitted=fitted,
        before=mean_reciprocal_rank(measured, current),
        after=mean_reciprocal_rank(measured, fitted),
    )


def apply_weights(*, pair: Pair, weights: Mapping[str, float], by: Any = None) -> None:
    """Score a pair of kinds by these weights from now on; every worker does within 30 s.

    A component that is not named has its default. `by`: the user, or None for a command. Raises
    ValueError for an unknown component, or a weight that is negative or not finite.
    """
    cleaned = {name: float(weight) for name, weight in weights.items()}
    for name, weight in cleaned.items():
        if name not in COMPONENTS:
            raise ValueError(f"no component {name!r}: there are {', '.join(COMPONENTS)}")
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"the weight of {name} must be 0 or more, not {weight}")
    with transaction.atomic():
        before = PairWeights.objects.select_for_update().filter(pair=pair).first()
        PairWeights.objects.update_or_create(
            pair=pair,
            defaults={
                "weights": cleaned,
                "updated_by": by.get_username() if by else "tune_weights",
            },
        )
        AuditLog.objects.create(
            actor_id=by.pk if by else None,
            action="weigh",
            entity="weights",
            entity_id=0,
            detail={
                "pair": str(pair),
                "before": before.weights if before else {},
                "after": cleaned,
            },
        )
        transaction.on_commit(scoring.forget_weights)


def mean_reciprocal_rank(judged: Sequence[Judged], weights: Mapping[str, float]) -> float:
    """Of the first relevant candidate of each list, 0…1; equal scores count as the worse rank."""
    row = weight_row(weights)
    total = 0.0
    for each in judged:
        means = weighted_means(each.table, row)
        best = means[each.relevant].max()
        total += 1 / (1 + np.count_nonzero(means[~each.relevant] >= best))
    return total / len(judged)


class _Verdict(NamedTuple):
    seeker_id: int
    offer_id: int
    confirmed: bool
    line: list[float]  # what each component said, NaN for nothing


def _verdicts(pair: str) -> list[_Verdict]:
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["verdicts"], {"pair": str(pair), "limit": VERDICTS})
        return [
            _Verdict(seeker_id, offer_id, confirmed, _line(components))
            for seeker_id, offer_id, confirmed, components in cursor.fetchall()
        ]


def _line(components: str | list) -> list[float]:
    stored = orjson.loads(components) if isinstance(components, str) else components
    raw = {each["name"]: each["raw"] for each in stored}
    return [raw.get(name, math.nan) for name in COMPONENTS]


def _is_held_back(seeker_id: int) -> bool:
    return blake2b(str(seeker_id).encode(), digest_size=1).digest()[0] % HELD_BACK == 0


def _counted(verdicts: Sequence[_Verdict]) -> str:
    confirmed = sum(verdict.confirmed for verdict in verdicts)
    return f"{confirmed:,} confirmed and {len(verdicts) - confirmed:,} dismissed"


def _lists(verdicts: Sequence[_Verdict]) -> list[Judged]:
    """Each confirmed pair among dismissed ones: those of its own items, then any."""
    dismissed = [verdict for verdict in verdicts if not verdict.confirmed]
    of_item: dict[tuple[str, int], list[_Verdict]] = {}
    for verdict in dismissed:
        of_item.setdefault(("seeker", verdict.seeker_id), []).append(verdict)
        of_item.setdefault(("offer", verdict.offer_id), []).append(verdict)
    chance = Random(7)  # noqa: S311 -- the same fit each time, no secret
    lists = []
    for verdict in verdicts:
        if not verdict.confirmed:
            continue
        own = of_item.get(("seeker", verdict.seeker_id), []) + of_item.get(
            ("offer", verdict.offer_id), []
        )
        others = own[:OTHERS] + chance.choices(dismissed, k=max(0, OTHERS - len(own)))
        lists.append(
            Judged(
                np.array([verdict.line, *(other.line for other in others)], float),
                np.arange(1 + len(others)) == 0,
            )
        )
    return lists


@dataclass(frozen=True)
class _Lists:
    """All lists in one table, for numpy: their lines one after the other."""

    values: np.ndarray  # [lines, COMPONENTS], 0 for nothing
    said: np.ndarray  # the same, 1 where a component spoke
    relevant: np.ndarray  # [lines]
    starts: np.ndarray  # [lists], where each begins
    of_line: np.ndarray  # [lines], which list it is of
    share: np.ndarray  # [lists], how much it counts

    @classmethod
    def of(cls, sets: Sequence[Sequence[Judged]]) -> "_Lists":
        useful = [[each for each in judged if 0 < each.relevant.mean() < 1] for judged in sets]
        flat = [each for judged in useful for each in judged]
        if not flat:
            raise ValueError("a fit needs lists with a relevant and another candidate")
        share = np.array([1 / len(judged) for judged in useful for _ in judged])
        table = np.concatenate([each.table for each in flat])
        sizes = [len(each.relevant) for each in flat]
        return cls(
            values=np.nan_to_num(table),
            said=(~np.isnan(table)).astype(float),
            relevant=np.concatenate([each.relevant for each in flat]).astype(float),
            starts=np.concatenate([[0], np.cumsum(sizes)[:-1]]),
            of_line=np.repeat(np.arange(len(flat)), sizes),
            share=share / share.sum(),
        )

    def gradient(self, parameters: np.ndarray) -> np.ndarray:
        """Of the mean log loss, by the logarithms of the weights and of the sharpness."""
        weights, sharpness = np.exp(parameters[:-1]), math.exp(parameters[-1])
        total = self.said @ weights
        total = np.where(total > 0, total, 1.0)
        means = self.values @ weights / total
        scaled = sharpness * means
        powers = np.exp(scaled - np.maximum.reduceat(scaled, self.starts)[self.of_line])
        every = np.add.reduceat(powers, self.starts)
        good = np.maximum(np.add.reduceat(powers * self.relevant, self.starts), 1e-300)
        by_scaled = (
            powers / every[self.of_line] - powers * self.relevant / good[self.of_line]
        ) * self.share[self.of_line]
        by_total = sharpness * by_scaled / total
        by_weight = by_total @ self.values - (by_total * means) @ self.said
        return np.append(by_weight * weights, by_scaled @ scaled)
