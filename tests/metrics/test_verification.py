import json
import math

import numpy as np
import pytest

from fastface.metrics.curve import area, curve, equal_error
from fastface.metrics.folds import stratified_folds
from fastface.metrics.verification import (
    METRIC_DIRECTION,
    calibrate,
    fold_accuracy,
    metric_direction,
    rates,
    verification,
)
from tests.metrics.golden_pairs import golden_pairs
from tests.metrics.scored import scored

FOLDS_OF_INSIGHTFACE = [0.99, 0.995, 0.996667, 0.998333, 0.995, 0.993333, 0.993333, 0.991667, 1.0, 0.993333]


def test_golden_pairs_give_the_published_figures() -> None:
    first, second, same = golden_pairs()
    scores = 1 - np.square(first - second).sum(axis=1) / 2
    found = verification(scores, same)
    assert found.metrics["acc"] == pytest.approx(0.993667, abs=5e-7)
    assert found.metrics["auc"] == pytest.approx(0.99983078, abs=5e-9)
    assert found.metrics["eer"] == pytest.approx(0.005667, abs=5e-7)
    points = calibrate(scores, same, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5))
    assert [round(p.tar, 6) for p in points] == [1.0, 0.997333, 0.981333, 0.888667, 0.888667]
    assert [round(p.threshold, 8) for p in points[:3]] == [0.34465570, 0.57800977, 0.68665797]
    assert [p.errors for p in points] == [300, 30, 3, 0, 0]
    assert [p.supported for p in points] == [True, True, False, False, False]
    assert (found.metrics["tar_1e-2"], found.metrics["tar_1e-3"]) == (points[1].tar, points[2].tar)


def test_golden_pairs_give_insightfaces_figures_under_compat() -> None:
    first, second, same = golden_pairs()
    distances = np.square(first - second).sum(axis=1)
    found = verification(1 - distances / 2, same, compat="insightface", distances=distances)
    assert found.metrics["acc"] == pytest.approx(0.994667, abs=5e-7)
    assert found.metrics["acc_std"] == pytest.approx(0.002867, abs=5e-7)
    assert found.metrics["acc_se"] == pytest.approx(0.000956, abs=5e-7)
    assert np.round(found.details["compat"]["folds"], 6).tolist() == FOLDS_OF_INSIGHTFACE
    assert found.details["accuracy"]["mean"] == pytest.approx(0.993667, abs=5e-7)


@pytest.mark.parametrize("seed", range(6))
def test_auc_is_the_share_of_couples_in_order(seed: int) -> None:
    scores, same = scored(seed)
    wins = [(u > v) + 0.5 * (u == v) for u in scores[same] for v in scores[~same]]
    assert area(curve(scores, same)) == pytest.approx(np.mean(wins), abs=1e-15)


@pytest.mark.parametrize("seed", range(6))
def test_eer_is_where_the_rates_are_closest(seed: int) -> None:
    scores, same = scored(seed)
    best = (math.inf, 0.0, 0.0)
    for threshold in sorted({*scores, scores.max() + 1}, reverse=True):
        missed = sum(s < threshold for s in scores[same]) / same.sum()
        wrong = sum(s >= threshold for s in scores[~same]) / (~same).sum()
        if abs(missed - wrong) < best[0] - 1e-12:
            best = abs(missed - wrong), (missed + wrong) / 2, threshold
    eer, threshold = equal_error(curve(scores, same))
    assert eer == pytest.approx(best[1], abs=1e-15)
    if threshold <= scores.max():
        assert threshold == best[2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("target", [0.5, 0.29, 0.1, 0.04, 1e-3])
def test_calibration_finds_the_smallest_threshold_that_keeps_the_target(seed: int, target: float, dtype: type) -> None:
    scores, same = scored(seed, dtype=dtype)
    point = calibrate(scores, same, (target,))[0]

    def fmr(threshold: float) -> float:
        return sum(float(v) >= threshold for v in scores[~same]) / (~same).sum()

    assert fmr(point.threshold) <= target
    assert point.fmr == fmr(point.threshold)
    below = float(np.nextafter(dtype(point.threshold), dtype(-np.inf)))
    assert fmr(below) > target, "a smaller threshold would do as well"
    assert dtype(point.threshold) == point.threshold, "the threshold exists in the precision of the scores"
    assert point.tar == sum(float(u) >= point.threshold for u in scores[same]) / same.sum()


def test_a_rate_of_whole_errors_is_not_lost_to_rounding() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point, and 29 errors in 100 are a rate of 0.29."""
    scores = np.append(np.arange(100) / 100, 2.0)
    same = np.append(np.zeros(100, dtype=bool), True)
    assert [p.errors for p in calibrate(scores, same, (0.29, 0.07, 0.57))] == [29, 7, 57]


def test_thirty_expected_errors_support_a_rate() -> None:
    for num, supported in ((3000, True), (2999, False)):
        scores = np.append(np.arange(num) / num, 2.0)
        same = np.append(np.zeros(num, dtype=bool), True)
        assert calibrate(scores, same, (1e-2,))[0].supported is supported


def test_a_row_of_scores_for_each_fold_is_used_as_that_fold_sees_it() -> None:
    scores, same = scored(3)
    folds = stratified_folds(same, 4)
    rows = np.stack([scores + 0.1 * k for k in range(4)])
    plain, shifted = fold_accuracy(scores, same, folds), fold_accuracy(rows, same, folds)
    assert shifted.folds == plain.folds
    assert shifted.thresholds == pytest.approx([t + 0.1 * k for k, t in enumerate(plain.thresholds)])
    pooled = np.array([rows[f, i] for i, f in enumerate(folds)])
    assert verification(rows, same, folds).metrics["auc"] == area(curve(pooled, same))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_failure_is_a_false_non_match_and_never_a_false_match(bad: float) -> None:
    scores, same = scored(1, levels=1000)
    genuine, impostors = np.flatnonzero(same), np.flatnonzero(~same)
    scores[[genuine[0], genuine[1], impostors[0]]] = bad
    found = verification(scores, same)
    assert all(math.isfinite(value) for value in found.metrics.values())
    assert found.details["failures"] == {"genuine": 2, "impostors": 1}
    worst = np.where(np.isfinite(scores), scores, -1e9)
    assert found.metrics["auc"] == pytest.approx(area(curve(worst, same)), abs=1e-15)
    for threshold in (-10.0, 0.0, 0.5):
        at = rates(scores, same, threshold)
        assert at.false_non_matches == sum(not s >= threshold for s in worst[same])
        assert at.false_matches == sum(s >= threshold for s in worst[~same])
    loosest = calibrate(scores, same, (0.999,))[0]
    assert loosest.errors == len(impostors) - 1
    assert loosest.tar == (len(genuine) - 2) / len(genuine)
    json.dumps(found.details, allow_nan=False)


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, 0.2], [True, True], "all 2 pairs are genuine"),
        ([0.1, 0.2], [False, False], "all 2 pairs are impostor"),
        ([], [], "there are no pairs"),
        ([0.1, 0.2, 0.3], [True, False], "equal length"),
        ([np.nan, np.nan], [True, False], "No pair has a finite score"),
    ],
)
def test_what_cannot_be_measured_is_refused(scores: list[float], same: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(np.array(scores), np.array(same, dtype=bool))
    with pytest.raises(ValueError, match=message):
        curve(np.array(scores), np.array(same, dtype=bool))


@pytest.mark.parametrize("kind", [True, False])
def test_pairs_of_one_kind_get_their_accuracy_where_admitted(kind: bool) -> None:
    scores, same = np.random.default_rng(0).random(20), np.full(20, kind)
    with pytest.raises(ValueError, match="needs genuine and impostor pairs"):
        verification(scores, same)
    found = verification(scores, same, one_kind=True, compat="insightface")
    assert set(found.metrics) == {"acc", "acc_std", "acc_se"}
    lows = [min(np.delete(scores, [i, i + 1])) for i in range(0, 20, 2)]
    if kind:
        exact = [np.mean(scores[2 * k : 2 * k + 2] >= low) for k, low in enumerate(lows)]
    else:
        highs = [max(np.delete(scores, [i, i + 1])) for i in range(0, 20, 2)]
        exact = [np.mean(scores[2 * k : 2 * k + 2] <= high) for k, high in enumerate(highs)]
    assert found.details["accuracy"]["folds"] == pytest.approx(exact)
    assert min(exact) < 1
    assert found.details["accuracy_optimistic"]["acc_best"] == 1.0
    assert found.details["compat"]["val_1e-3"] is None
    json.dumps(found.details, allow_nan=False)


def test_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="One pair is too few"):
        verification(np.array([0.5]), np.array([True]), one_kind=True)


def test_two_pairs_are_enough() -> None:
    found = verification(np.array([0.9, 0.1]), np.array([True, False]))
    assert (found.metrics["auc"], found.metrics["eer"]) == (1.0, 0.0)
    assert found.details["accuracy"]["sizes"] == [1, 1]


@pytest.mark.parametrize("folds", [[0, 0, 0, 0], [0, 1, 3, 3], [1, 1, 2, 2], [0, 1]])
def test_folds_with_gaps_are_refused(folds: list[int]) -> None:
    with pytest.raises(ValueError, match="folds"):
        verification(np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False] * 2), np.array(folds))


def test_details_are_json_and_metrics_have_the_shared_keys() -> None:
    scores, same = scored(0, num=200)
    found = verification(scores.astype(np.float32), same, compat="insightface")
    assert set(found.metrics) == {"acc", "acc_std", "acc_se", "auc", "eer", "tar_1e-2", "tar_1e-3", "loss"}
    assert found.metrics.keys() <= METRIC_DIRECTION.keys()
    assert all(type(value) is float for value in found.metrics.values())
    json.dumps(found.details, allow_nan=False)


def test_metrics_are_known_with_their_direction() -> None:
    assert metric_direction("acc") == metric_direction("lfw/tar_1e-2") == 1
    assert metric_direction("val/eer") == metric_direction("loss") == -1
    with pytest.raises(ValueError, match=r"'lfw/tar_1e2', perhaps you meant 'tar_1e-2'"):
        metric_direction("lfw/tar_1e2")
    with pytest.raises(ValueError, match="Known: acc, acc_std"):
        metric_direction("xyz")


def test_unknown_compat_is_refused() -> None:
    with pytest.raises(ValueError, match="known: 'insightface'"):
        verification(np.array([0.1, 0.9]), np.array([False, True]), compat="facenet")
