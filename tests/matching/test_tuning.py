"""Weights out of what people said: the fit, the gain, and that nothing changes unasked."""

import io
import math

import numpy as np
import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from matching import scoring, tuning
from matching.kinds import Pair
from matching.models import AuditLog, Item, Match, PairWeights
from matching.scoring import COMPONENTS, DEFAULT_WEIGHTS, weight_row, weighted_means
from matching.tuning import Judged, TooFewVerdicts, calibrate, fit, mean_reciprocal_rank

NAMES = list(COMPONENTS)
START = DEFAULT_WEIGHTS[Pair.LOST_FOUND]


def lists(count: int, *, telling: str, misleading: str, seed: int = 5) -> list[Judged]:
    """Lists in which one component knows what belongs together, and one says the opposite."""
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        table = np.full((10, len(NAMES)), np.nan)
        relevant = np.arange(10) == chance.integers(10)
        table[:, NAMES.index("words")] = chance.random(10)
        table[:, NAMES.index(telling)] = np.where(relevant, 0.7, 0.4) + 0.2 * chance.random(10)
        table[:, NAMES.index(misleading)] = np.where(relevant, 0.1, 0.6) + 0.3 * chance.random(10)
        made.append(Judged(table, relevant))
    return made


def test_a_fit_trusts_what_tells_and_not_what_misleads():
    fitted = fit([lists(80, telling="date", misleading="title")], START)
    assert fitted["date"] > START["date"]
    assert fitted["title"] < START["title"] / 3
    unseen = lists(40, telling="date", misleading="title", seed=6)
    assert mean_reciprocal_rank(unseen, fitted) > mean_reciprocal_rank(unseen, START) + 0.3


def test_what_no_list_speaks_of_keeps_its_share():
    fitted = fit([lists(30, telling="date", misleading="title")], START)
    assert sum(fitted.values()) == pytest.approx(1, abs=0.001)
    for name in ("meaning", "distance", "attributes", "category", "place"):
        assert fitted[name] == pytest.approx(START[name], abs=0.001)


def test_each_set_counts_the_same_however_long():
    short = [
        lists(20, telling="date", misleading="title"),
        lists(20, telling="title", misleading="date"),
    ]
    long = [short[0] * 20, short[1]]
    assert fit(long, START) == pytest.approx(fit(short, START), abs=0.002)


def test_the_gradient_is_the_slope_of_the_loss():
    told = tuning._Lists.of([lists(5, telling="date", misleading="title")])
    parameters = np.append(np.log(weight_row(START)), math.log(9.0))

    def loss(at):
        means = (told.values @ np.exp(at[:-1])) / (told.said @ np.exp(at[:-1]))
        powers = np.exp(np.exp(at[-1]) * means)
        every = np.add.reduceat(powers, told.starts)
        return -(
            told.share * np.log(np.add.reduceat(powers * told.relevant, told.starts) / every)
        ).sum()

    for at in range(len(parameters)):
        step = np.zeros_like(parameters)
        step[at] = 1e-6
        slope = (loss(parameters + step) - loss(parameters - step)) / 2e-6
        assert told.gradient(parameters)[at] == pytest.approx(slope, abs=1e-6)


def test_nothing_to_learn_from_is_refused():
    all_relevant = [Judged(np.full((3, len(NAMES)), 0.5), np.ones(3, bool))]
    for sets in ([], [[]], [all_relevant]):
        with pytest.raises(ValueError, match="lists"):
            fit(sets, START)
    with pytest.raises(ValueError, match="curve"):
        calibrate([all_relevant], START)


def test_the_curve_says_a_half_where_half_belong_together():
    chance = np.random.default_rng(3)
    table = np.full((4_000, len(NAMES)), np.nan)
    table[:, 0] = chance.random(4_000)
    relevant = chance.random(4_000) < 1 / (1 + np.exp(-12 * (table[:, 0] - 0.6)))
    slope, middle = calibrate([[Judged(table, relevant)]], START)
    assert slope == pytest.approx(12, rel=0.15)
    assert middle == pytest.approx(0.6, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=len(NAMES), max_size=len(NAMES)))
def test_any_start_gives_weights(values):
    fitted = fit(
        [lists(4, telling="date", misleading="title")], dict(zip(NAMES, values, strict=True))
    )
    assert fitted.keys() == COMPONENTS.keys()
    assert all(weight >= 0 for weight in fitted.values())
    assert sum(fitted.values()) == pytest.approx(1, abs=0.001)


def test_equal_candidates_are_no_success():
    table = np.full((4, len(NAMES)), 0.5)
    assert mean_reciprocal_rank([Judged(table, np.arange(4) == 0)], START) == 0.25
    assert weighted_means(table, np.zeros(len(NAMES))).tolist() == [0, 0, 0, 0]


def said(name: str, raw: float) -> dict:
    return {"name": name, "raw": raw, "weight": 0.5, "contribution": 0.2}


@pytest.fixture
def verdicts(db):
    """People who confirm what agrees on the date, whatever the titles say."""
    user = get_user_model().objects.create_user("ann")
    items = Item.objects.bulk_create(
        # The ids settle which pairs are held back: they are the same each time.
        [
            Item(id=first + number, owner=user, kind=kind, title="x")
            for kind, first in (("lost", 10_000), ("found", 20_000))
            for number in range(300)
        ]
    )
    seekers, offers = items[:300], items[300:]
    Match.objects.bulk_create(
        [
            Match(
                pair=Pair.LOST_FOUND,
                seeker=seeker,
                offer=offer,
                score=0.5,
                state="confirmed" if number % 2 else "dismissed",
                components=[
                    said("date", 0.9 if number % 2 else 0.5),
                    said("title", 0.3 if number % 2 else 0.6),
                ],
            )
            for number, (seeker, offer) in enumerate(zip(seekers, offers, strict=True))
        ]
    )
    scoring.forget_weights()
    yield user
    scoring.forget_weights()


def tuned(*arguments: str) -> str:
    output = io.StringIO()
    call_command("tune_weights", *arguments, stdout=output)
    return output.getvalue()


def test_tune_weights_reports_the_gain_and_changes_nothing(verdicts):
    text = tuned("lost_found")
    assert "150 confirmed, 150 dismissed" in text
    found = tuning.tune(Pair.LOST_FOUND)
    assert found.gain > 0.5
    assert f"({found.gain:+.4f})" in text
    assert not PairWeights.objects.exists()
    assert not AuditLog.objects.filter(entity="weights").exists()


def test_tune_weights_applies_when_asked(verdicts, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        assert "applied" in tuned("lost_found", "--apply")
    row = PairWeights.objects.get(pair="lost_found")
    assert row.updated_by == "tune_weights"
    assert row.weights["title"] < row.weights["date"]
    assert scoring.weights_for("lost_found") == row.weights
    entry = AuditLog.objects.get(entity="weights")
    assert entry.detail == {"pair": "lost_found", "before": {}, "after": row.weights}
    assert "not applied: there is no gain" in tuned(
        "lost_found", "--apply"
    )  # it is as good as it gets


def test_one_owner_who_confirmed_is_a_verdict_and_an_open_suggestion_is_none(verdicts):
    Match.objects.filter(state="confirmed").update(state="suggested")
    with pytest.raises(TooFewVerdicts, match="0 confirmed and"):
        tuning.tune(Pair.LOST_FOUND)
    Match.objects.filter(state="suggested").update(offer_confirmed_at="2026-05-01T00:00Z")
    assert tuning.tune(Pair.LOST_FOUND).confirmed == 150


def test_too_few_verdicts_are_refused_by_name_and_passed_over_otherwise(verdicts):
    with pytest.raises(CommandError, match="resume ↔ job: a fit needs 20 confirmed"):
        tuned("resume_job")
    with pytest.raises(CommandError, match="no pair 'lost'"):
        tuned("lost")
    text = tuned()
    assert "wanted ↔ offered: a fit needs" in text
    assert "lost ↔ found: 150 confirmed" in text


def test_staff_set_weights_and_it_is_on_record(verdicts):
    tuning.apply_weights(pair=Pair.LOST_FOUND, weights={"title": 2}, by=verdicts)
    tuning.apply_weights(pair=Pair.LOST_FOUND, weights={"date": 1}, by=verdicts)
    row = PairWeights.objects.get(pair="lost_found")
    assert (row.weights, row.updated_by) == ({"date": 1.0}, "ann")
    last = AuditLog.objects.filter(entity="weights").latest("pk")
    assert last.actor_id == verdicts.pk
    assert last.detail["before"] == {"title": 2.0}


@pytest.mark.parametrize(
    "weights", [{"charm": 1}, {"title": -0.1}, {"title": math.nan}, {"title": math.inf}]
)
def test_weights_that_make_no_sense_are_refused(db, weights):
    with pytest.raises(ValueError, match=r"component|weight"):
        tuning.apply_weights(pair=Pair.LOST_FOUND, weights=weights)
    assert not PairWeights.objects.exists()
