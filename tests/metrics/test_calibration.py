"""Calibration is what slow loops say: fits by Newton's steps and by pooling, costs and curves pair by pair."""

import math
import warnings

import numpy as np
import pytest

from fastface.metrics.calibration import (
    calibration_curve,
    cllr,
    ece,
    fit_isotonic,
    fit_platt,
    held_out_llrs,
    min_cllr,
)


def scored(genuine: int, impostors: int, seed: int = 0, *, spread: float = 0.15, digits: int = 9):
    """Draw Gaussian scores around 0.5 and 0, whose true LLR is (s - 0.25) * 0.5 / spread ** 2."""
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0.5, spread, genuine), rng.normal(0, spread, impostors)]).round(digits)
    same = np.arange(genuine + impostors) < genuine
    order = rng.permutation(len(same))
    return scores[order], same[order]


def slow_logistic(scores: list[float], targets: list[float], weights: list[float]) -> tuple[float, float]:
    """Minimise the weighted cross entropy of sigmoid(a s + b) by Newton's method."""
    a = b = 0.0
    for _ in range(50):
        ga = gb = haa = hab = hbb = 0.0
        for s, t, w in zip(scores, targets, weights, strict=True):
            p = 1 / (1 + math.exp(-(a * s + b)))
            ga, gb = ga + w * (p - t) * s, gb + w * (p - t)
            haa, hab, hbb = haa + w * p * (1 - p) * s * s, hab + w * p * (1 - p) * s, hbb + w * p * (1 - p)
        det = haa * hbb - hab * hab
        a, b = a - (hbb * ga - hab * gb) / det, b - (haa * gb - hab * ga) / det
    return a, b


def slow_pools(scores: np.ndarray, same: np.ndarray) -> list[float]:
    """Pool adjacent violators; the LLR of each pair."""
    genuine, impostors = int(same.sum()), int((~same).sum())
    blocks: list[tuple[float, float, set[float]]] = []  # weight of genuine, of impostors, scores
    for value in sorted(set(scores.tolist())):
        g = sum(1 / genuine for s, k in zip(scores.tolist(), same.tolist(), strict=True) if s == value and k)
        i = sum(1 / impostors for s, k in zip(scores.tolist(), same.tolist(), strict=True) if s == value and not k)
        blocks.append((g, i, {value}))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            (g1, i1, v1), (g2, i2, v2) = blocks[-2:]
            blocks[-2:] = [(g1 + g2, i1 + i2, v1 | v2)]
    llr = {v: -math.inf if not g else math.inf if not i else math.log(g / i) for g, i, values in blocks for v in values}
    return [llr[s] for s in scores.tolist()]


def slow_cllr(llrs: list[float], same: list[bool]) -> float:
    def cost(x: float) -> float:
        return math.inf if x == math.inf else 0.0 if x == -math.inf else math.log2(1 + math.exp(x))

    g = [cost(-x) for x, k in zip(llrs, same, strict=True) if k]
    i = [cost(x) for x, k in zip(llrs, same, strict=True) if not k]
    return (sum(g) / len(g) + sum(i) / len(i)) / 2


@pytest.mark.parametrize(("genuine", "impostors"), [(40, 40), (20, 90), (70, 15)])
def test_platts_fit(genuine: int, impostors: int) -> None:
    scores, same = scored(genuine, impostors, 1)
    found = fit_platt(scores, same)
    weights = [0.5 / genuine if k else 0.5 / impostors for k in same.tolist()]
    a, b = slow_logistic(scores.tolist(), [float(k) for k in same.tolist()], weights)
    assert (found.a, found.b) == (pytest.approx(a, rel=1e-5), pytest.approx(b, rel=1e-5))
    assert (found.genuine, found.impostors) == (genuine, impostors)
    np.testing.assert_allclose(found.llr(scores), [found.a * s + found.b for s in scores.tolist()])


def test_separated_scores_have_platts_targets() -> None:
    scores, same = np.array([0.1, 0.2, 0.7, 0.9, 0.8]), np.array([False, False, True, True, True])
    found = fit_platt(scores, same)
    targets = [4 / 5 if k else 1 / 4 for k in same.tolist()]
    a, b = slow_logistic(scores.tolist(), targets, [1 / 6 if k else 1 / 4 for k in same.tolist()])
    assert (found.a, found.b) == (pytest.approx(a, rel=1e-5), pytest.approx(b, rel=1e-5))


def test_the_mix_of_the_pairs_leaves_no_trace() -> None:
    scores, same = scored(20_000, 20_000, 2)
    keep = ~same | (np.cumsum(same) % 20 == 0)
    whole, thinned = fit_platt(scores, same), fit_platt(scores[keep], same[keep])
    true = 0.5 / 0.15**2
    assert whole.a == pytest.approx(true, rel=0.03)
    assert thinned.a == pytest.approx(true, rel=0.15)
    assert whole.b == pytest.approx(-0.25 * true, rel=0.03)
    assert thinned.b == pytest.approx(-0.25 * true, rel=0.15)


@pytest.mark.parametrize("digits", [9, 1])  # without and with equal scores
def test_the_least_cost_of_an_order(digits: int) -> None:
    scores, same = scored(30, 50, 3, spread=0.3, digits=digits)
    expected = slow_cllr(slow_pools(scores, same), same.tolist())
    assert min_cllr(scores, same) == pytest.approx(expected, rel=1e-9)
    fit = fit_platt(scores, same)
    assert expected < cllr(fit.llr(scores), same) < 1


def test_isotonic_pools_and_stays_finite() -> None:
    scores, same = scored(40, 60, 4, spread=0.3)
    with pytest.warns(UserWarning, match="isotonic calibration on 40 genuine pairs"):
        found = fit_isotonic(scores, same)
    low, high = scores.min(), scores.max()
    more = np.append(scores, [low, low, high, high]), np.append(same, [True, False, True, False])
    expected = slow_pools(*more)[: len(scores)]
    np.testing.assert_allclose(found.llr(scores), expected, rtol=1e-9)
    beyond = found.llr(np.array([low - 1, high + 1]))
    assert np.isfinite(beyond).all()
    assert beyond[0] < 0 < beyond[1]
    assert (np.diff(found.llrs) >= 0).all()


def test_isotonic_does_not_warn_where_there_is_enough() -> None:
    scores, same = scored(10_000, 10_000, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_isotonic(scores, same)
    new, kinds = scored(5_000, 5_000, 6)
    assert cllr(found.llr(new), kinds) == pytest.approx(cllr(fit_platt(scores, same).llr(new), kinds), abs=0.01)


def test_costs() -> None:
    scores, same = scored(20, 30, 7)
    llrs = 9 * scores - 2
    assert cllr(llrs, same) == pytest.approx(slow_cllr(llrs.tolist(), same.tolist()), rel=1e-12)
    assert cllr(np.zeros(50), same) == pytest.approx(1)
    assert cllr(np.where(same, 50.0, -50.0), same) == pytest.approx(0, abs=1e-12)
    assert cllr(np.where(same, np.nan, -1.0), same) == math.inf
    assert cllr(np.where(same, 1.0, np.nan), same) < 0.5  # a failed impostor is rejected


@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_the_curve(prior: float) -> None:
    scores, same = scored(60, 90, 8)
    llrs = 14 * scores - 3.5
    stated = [1 / (1 + math.exp(-(x + math.log(prior / (1 - prior))))) for x in llrs.tolist()]
    weight = [prior / 60 if k else (1 - prior) / 90 for k in same.tolist()]
    expected, error = [], 0.0
    for n in range(15):
        rows = [r for r, p in enumerate(stated) if n / 15 <= p < (n + 1) / 15]
        if rows:
            total = sum(weight[r] for r in rows)
            mean = sum(weight[r] * stated[r] for r in rows) / total
            share = sum(weight[r] for r in rows if same[r]) / total
            expected.append((mean, share, total, len(rows)))
            error += total * abs(mean - share)
    found = calibration_curve(llrs, same, prior=prior)
    assert [tuple(b) for b in found] == [pytest.approx(e) for e in expected]
    assert ece(llrs, same, prior=prior) == pytest.approx(error)
    assert sum(b.weight for b in found) == pytest.approx(1)


def test_what_is_calibrated_has_a_small_error() -> None:
    scores, same = scored(20_000, 20_000, 9)
    good = fit_platt(scores, same).llr(scores)
    assert ece(good, same) < 0.01 < ece(3 * good, same)


def test_folds_are_judged_by_the_others() -> None:
    scores, same = scored(40, 40, 10)
    folds = np.arange(80) % 4
    scores[5] = np.nan
    found = held_out_llrs(scores, same, folds)
    for fold in range(4):
        fit = fit_platt(scores[folds != fold], same[folds != fold])
        np.testing.assert_allclose(found[folds == fold], fit.llr(scores[folds == fold]))
    assert np.isnan(found[5])
    assert np.isfinite(np.delete(found, 5)).all()


def test_folds_take_any_fit() -> None:
    scores, same = scored(40, 40, 10)
    folds = np.arange(80) % 2
    with pytest.warns(UserWarning, match="isotonic calibration on"):
        found = held_out_llrs(scores, same, folds, fit_isotonic)
    with pytest.warns(UserWarning, match="isotonic calibration on"):
        other = fit_isotonic(scores[folds == 1], same[folds == 1])
    np.testing.assert_allclose(found[folds == 0], other.llr(scores[folds == 0]))


def test_failures_take_no_part() -> None:
    scores, same = scored(30, 30, 11)
    more, kinds = np.append(scores, [np.nan, -np.inf, np.nan]), np.append(same, [True, True, False])
    assert fit_platt(more, kinds) == fit_platt(scores, same)


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, 0.2], [True, True], "both kinds"),
        ([0.1, np.nan], [True, False], "one kind has none"),
        ([0.1, 0.1], [True, False], "nothing can be calibrated"),
        ([[0.1]], [True], "one list each"),
    ],
)
def test_what_cannot_be_calibrated(scores: list, same: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_platt(np.array(scores), np.array(same))


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_a_prior_is_a_share(prior: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration_curve(np.array([0.0, 1.0]), np.array([False, True]), prior=prior)
