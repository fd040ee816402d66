"""Thresholds by a rule are those of trying all of them, and are judged on pairs that had no part in them."""

import numpy as np
import pytest

from fastface.metrics.tuning import RULES, at_fmr, equal_rates, highest_f1, most_accurate, tune


def scored(num: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(num) < 0.4
    return (rng.normal(size=num) + 1.5 * same).round(1), same


def counts(scores: list[float], same: list[bool], threshold: float) -> tuple[int, int, int, int]:
    accepted = [s >= threshold for s in scores]
    pairs = list(zip(accepted, same, strict=True))
    return tuple(pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False)))  # type: ignore[return-value]


def merit(rule: str, tp: int, fp: int, fn: int, tn: int) -> float:
    if rule == "accuracy":
        return tp + tn
    if rule == "F1":
        return 2 * tp / (2 * tp + fp + fn)
    return -abs(fp / (fp + tn) - fn / (tp + fn))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rule", "choose"), [("accuracy", most_accurate), ("F1", highest_f1), ("EER", equal_rates)])
def test_the_best_of_all_thresholds_the_highest_of_equals(rule: str, choose, seed: int) -> None:
    scores, same = scored(seed=seed)
    tried = [float("inf"), *sorted(set(scores.tolist()), reverse=True)]
    merits = [merit(rule, *counts(scores.tolist(), same.tolist(), t)) for t in tried]
    best = tried[max(range(len(tried)), key=lambda n: (round(merits[n], 12), -n))]
    found = choose(scores, same)
    assert found == (pytest.approx(best) if best != float("inf") else scores.max())


def test_held_out_decisions() -> None:
    scores, same = scored(80, 1)
    folds = np.arange(80) % 5
    found = tune(scores, same, folds)
    assert found.keys() == RULES.keys()
    for name, rule in {"F1": highest_f1, "FMR 1e-1": at_fmr(0.1)}.items():
        tp = fp = fn = tn = 0
        thresholds = []
        for fold in range(5):
            threshold = rule(scores[folds != fold], same[folds != fold])
            thresholds.append(threshold)
            more = counts(scores[folds == fold].tolist(), same[folds == fold].tolist(), threshold)
            tp, fp, fn, tn = tp + more[0], fp + more[1], fn + more[2], tn + more[3]
        t = found[name]
        assert (t.lowest, t.highest) == (min(thresholds), max(thresholds))
        assert t.accuracy == pytest.approx((tp + tn) / 80)
        assert t.precision == pytest.approx(tp / (tp + fp))
        assert t.recall == pytest.approx(tp / (tp + fn))
        assert t.f1 == pytest.approx(2 / (1 / t.precision + 1 / t.recall))
        assert t.fmr == pytest.approx(fp / (fp + tn))


def test_failures_are_rejected() -> None:
    scores, same = scored(40, 2)
    folds = np.arange(40) % 2
    scores[same.nonzero()[0][:3]] = np.nan
    worst = scores.copy()
    worst[np.isnan(worst)] = -np.inf
    assert tune(scores, same, folds) == tune(worst, same, folds)
    assert tune(scores, same, folds)["accuracy"].recall <= (same.sum() - 3) / same.sum()


def test_nothing_accepted_has_no_precision() -> None:
    scores, same, folds = np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False] * 2), np.array([0, 0, 1, 1])
    found = tune(scores, same, folds, {"none": lambda scores, same: 9.0})["none"]
    assert np.isnan(found.precision)
    assert (found.recall, found.f1, found.accuracy) == (0, 0, 0.5)
