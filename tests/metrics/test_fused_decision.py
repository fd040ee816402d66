import math

import numpy as np
import pytest

from fastface.metrics.calibration import Platt
from fastface.metrics.full_system import Limits, best_and, gather_attempts, rates_of
from fastface.metrics.fused_decision import (
    FUSIONS,
    LlrFusion,
    evidence,
    fit_llr,
    fit_sum,
    fused_scores,
    match_alone,
    person_folds,
    trade_off,
)
from tests.metrics.attempts import drawn


def test_the_ratio_is_that_of_bayes() -> None:
    """p(genuine | both) from the two ratios, at prior 1/2 and attacks as likely as impostors."""
    attempts = drawn(0, failures=4)
    fusion = LlrFusion(Platt(2.0, -3.0, 1, 1), Platt(1.5, 0.5, 1, 1))
    for match, live, found in zip(
        attempts.match.tolist(), attempts.live.tolist(), fusion.scores(attempts).tolist(), strict=True
    ):
        if not (math.isfinite(match) and math.isfinite(live)):
            assert math.isnan(found)
            continue
        other = math.exp(-(2 * match - 3))  # p(impostor's score) / p(genuine's)
        fake = math.exp(-(1.5 * math.log(live / (1 - live)) + 0.5))
        assert found == pytest.approx(math.log(1 / (0.5 * other + 0.5 * fake)), abs=1e-4)


def test_a_perfect_match_never_makes_up_for_a_mask() -> None:
    fusion = fit_llr(drawn(1, num=900))
    made = gather_attempts(np.array([50.0, 3, 3]), np.array([0.01, 0.9, 0.01]), ["attack", "genuine", "impostor"])
    scores = fusion.scores(made)
    assert scores[0] == pytest.approx(scores[2], abs=0.2)
    assert scores[0] < scores[1]
    summed = fit_sum(drawn(1, num=900)).scores(made)
    assert summed[0] > summed[1]  # which the weighted sum lets it


def test_the_sum_has_the_gradient_of_a_logistic_regression() -> None:
    """At the optimum, weights times (probability - truth) sum to what the ridge asks for, by central differences."""
    attempts = drawn(2, num=400)
    fusion = fit_sum(attempts)
    x = np.stack([attempts.match, evidence(attempts.live)], axis=1)
    group = np.minimum(attempts.kind, 2)
    weight = np.array([0.5, 0.25, 0.25])[group] / np.bincount(group)[group] * len(group)
    spread = x.std(axis=0)

    def loss(match: float, live: float, offset: float) -> float:
        total = 0.0
        for (a, b), kind, w in zip(x.tolist(), group.tolist(), weight.tolist(), strict=True):
            z = match * a + live * b + offset
            total += w * math.log1p(math.exp(-z if kind == 0 else z))
        return total + ((match * spread[0]) ** 2 + (live * spread[1]) ** 2) / 200

    at = (fusion.match, fusion.live, fusion.offset)
    for k in range(3):
        steps = [tuple(v + sign * 1e-3 * (j == k) for j, v in enumerate(at)) for sign in (1, -1)]
        assert min(loss(*step) for step in steps) > loss(*at)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_nobody_is_judged_by_a_fit_that_saw_him(fusion: str) -> None:
    attempts = drawn(3, num=500, persons=20, failures=5)
    folds = person_folds(attempts)
    assert attempts.persons is not None
    for one in range(20):
        assert len(set(folds[attempts.persons[1] == one].tolist())) <= 1
    scores = fused_scores(attempts, fusion, None)
    chosen = folds == 4
    expected = FUSIONS[fusion](attempts.take(~chosen)).scores(attempts.take(chosen))
    np.testing.assert_array_equal(scores[chosen], expected)
    other = drawn(9, num=500)
    np.testing.assert_array_equal(fused_scores(attempts, fusion, other), FUSIONS[fusion](other).scores(attempts))


def test_folds_without_persons_hold_every_kind() -> None:
    attempts = drawn(5, num=300)
    folds = person_folds(attempts)
    for fold in range(10):
        assert set(attempts.kind[folds == fold].tolist()) == {0, 1, 2, 3}


def test_too_few_persons_are_refused() -> None:
    made = gather_attempts(
        np.arange(6.0), np.linspace(0, 1, 6), ["genuine", "impostor", "attack"] * 2, None, np.zeros((1, 6), int)
    )
    with pytest.raises(ValueError, match="give a development set"):
        fused_scores(made, "llr", None)


def test_trade_off_keeps_its_limits_and_falls() -> None:
    attempts = drawn(6, num=800)
    fused = {name: fused_scores(attempts, name, None) for name in FUSIONS}
    lines = trade_off(attempts, 0.02, fused)
    assert list(lines) == ["and", "and, match fixed", *FUSIONS]
    for name, points in lines.items():
        assert all(point.far <= 0.02 for point in points), name
        frrs = [point.frr for point in points]
        assert frrs == sorted(frrs, reverse=True), name
    for free, fixed in zip(lines["and"], lines["and, match fixed"], strict=True):
        assert free.frr <= fixed.frr + 0.02  # but for the steps of the match thresholds tried
    assert lines["and"][-1] == best_and(attempts, Limits(0.02, 1.0)).rates
    alone = match_alone(attempts, 0.02)
    assert alone.rates == rates_of(attempts, attempts.match >= alone.match_threshold)
    assert alone.rates.iapar > 0.5
    assert min(point.riapar for point in lines["llr"]) < alone.rates.riapar
