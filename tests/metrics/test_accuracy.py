import itertools
import math

import numpy as np
import pytest

from fastface.metrics.accuracy import best_threshold, fold_accuracy, fold_loss, precision_recall
from fastface.metrics.folds import stratified_folds
from fastface.metrics.verification import verification
from tests.metrics.scored import scored


@pytest.mark.parametrize("seed", range(8))
def test_fold_accuracy_tries_every_threshold(seed: int) -> None:
    scores, same = scored(seed)
    folds = np.random.default_rng(seed).permutation(np.arange(60) % 5).astype(np.int16)
    accuracies, thresholds = [], []
    for k in range(5):
        train, levels = folds != k, sorted(set(scores[folds != k]))
        middles = [(a + b) / 2 for a, b in itertools.pairwise(levels)]
        tries = sorted([levels[0], *middles, np.nextafter(levels[-1], np.inf)], reverse=True)
        right = [sum((scores[train] >= t) == same[train]) for t in tries]
        best = tries[right.index(max(right))]
        thresholds.append(best)
        accuracies.append(np.mean((scores[~train] >= best) == same[~train]))
    found = fold_accuracy(scores, same, folds)
    assert found.folds == pytest.approx(accuracies, abs=1e-15)
    assert found.thresholds == pytest.approx(thresholds, abs=1e-15)
    assert found.mean == pytest.approx(np.mean(accuracies), abs=1e-15)
    assert found.std == pytest.approx(math.sqrt(sum((a - found.mean) ** 2 for a in accuracies) / 5))
    assert found.se == pytest.approx(math.sqrt(sum((a - found.mean) ** 2 for a in accuracies) / 4 / 5))
    assert found.sizes == [12] * 5


def test_a_threshold_between_neighbouring_numbers_keeps_them_apart() -> None:
    low, high = 0.5, float(np.nextafter(0.5, 1))
    threshold = best_threshold(np.array([low, high]), np.array([False, True]))
    assert low < threshold <= high


def test_the_threshold_is_chosen_without_the_fold_it_judges() -> None:
    """Fold 1 contradicts fold 0, so each is judged by a threshold that gets all of it wrong."""
    scores = np.array([0.1, 0.9, 0.1, 0.9])
    same = np.array([False, True, True, False])
    found = fold_accuracy(scores, same, np.array([0, 0, 1, 1], dtype=np.int16))
    assert found.folds[1] == 0.0
    assert verification(scores, same, np.array([0, 0, 1, 1])).details["accuracy_optimistic"]["acc_best"] == 0.5


def test_loss_is_ln_2_without_information_and_falls_with_it() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(4000) % 4 == 0
    folds = stratified_folds(same)
    losses = [fold_loss(rng.normal(size=4000) + gap * same, same, folds) for gap in (0.0, 1.0, 2.0, 4.0)]
    assert losses[0] == pytest.approx(math.log(2), abs=0.01)
    assert losses == sorted(losses, reverse=True)
    # Two unit normals a distance g apart have the log odds g * s - g * g / 2: their own log loss is the target.
    s, w = np.linspace(-12, 16, 20001), 28 / 20000
    own = np.sum(np.exp(-s * s / 2) / math.sqrt(2 * math.pi) * np.logaddexp(0, 2 * s - 2)) * w
    assert losses[2] == pytest.approx(own, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_precision_recall_and_f1_are_counted(seed: int) -> None:
    accepted, same = np.random.default_rng(seed).random((2, 50)) < 0.4
    hits = sum(a and s for a, s in zip(accepted, same, strict=True))
    found = precision_recall(accepted, same)
    assert found["precision"] == hits / sum(accepted)
    assert found["recall"] == hits / sum(same)
    assert found["f1"] == pytest.approx(2 / (sum(accepted) / hits + sum(same) / hits))
    assert found["true_accepts"] + found["false_accepts"] + found["false_rejects"] + found["true_rejects"] == 50


def test_nothing_accepted_has_no_precision() -> None:
    found = precision_recall(np.zeros(4, dtype=bool), np.array([True, True, False, False]))
    assert (found["precision"], found["recall"], found["f1"]) == (None, 0.0, 0.0)
