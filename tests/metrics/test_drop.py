from math import comb

import numpy as np
import pytest

from fastface.metrics.accuracy import best_threshold
from fastface.metrics.drop import Changed, change, drops, held_out


def two_models(seed: int, num: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Make scores of two models that mostly agree; some failures in each."""
    rng = np.random.default_rng(seed)
    same = rng.random(num) < 0.5
    before = (same + rng.normal(0, 0.6, num)).astype(np.float32)
    after = (before + rng.normal(0, 0.3, num)).astype(np.float32)
    before[rng.integers(0, num, 2)] = np.nan
    after[rng.integers(0, num, 4)] = np.nan
    return before, after, same, (np.arange(num) % 5).astype(np.int16)


def right(score: float, same: bool, threshold: float) -> bool:
    return (score >= threshold) == same  # NaN: rejected


@pytest.mark.parametrize("seed", range(4))
def test_drops_are_those_of_a_slow_loop(seed: int) -> None:
    before, after, same, folds = two_models(seed)
    accuracy, *tars = drops(before, after, same, folds, targets=(0.3, 0.01))
    lost = gained = 0
    for k in range(5):
        held = folds == k
        cuts = [
            best_threshold(np.nan_to_num(s[~held], nan=-np.inf).astype(float), same[~held]) for s in (before, after)
        ]
        for i in np.flatnonzero(held):
            old, new = right(before[i], same[i], cuts[0]), right(after[i], same[i], cuts[1])
            lost += old and not new
            gained += new and not old
    assert (accuracy.figure, accuracy.changed) == ("accuracy", (240, lost, gained))
    for target, found in zip((0.3, 0.01), tars, strict=True):
        accepted = []
        for scores in (before, after):
            candidates = sorted(s for s in scores.tolist() if s == s)
            impostors = scores[~same]
            for threshold in candidates:  # the smallest score that keeps the rate accepts the same genuine pairs
                if sum(v >= threshold for v in impostors) / len(impostors) <= target:
                    accepted.append([bool(u >= threshold) for u in scores[same]])
                    break
        assert found.before == pytest.approx(np.mean(accepted[0]))
        assert found.after == pytest.approx(np.mean(accepted[1]))
        assert found.changed == change(np.array(accepted[0]), np.array(accepted[1]))
        assert found.changed.drop == pytest.approx(found.before - found.after)
        assert found.supported == (target == 0.3)


def test_held_out_decisions_give_the_accuracy() -> None:
    before, after, same, folds = two_models(7)
    found = drops(before, after, same, folds)[0]
    assert found.before == held_out(before, same, folds).mean()
    assert found.after == held_out(after, same, folds).mean()


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 1), (3, 3), (2, 9)])
def test_mcnemar_counts_every_split_at_least_as_uneven(lost: int, gained: int) -> None:
    n = lost + gained
    uneven = [k for k in range(n + 1) if comb(n, k) <= comb(n, lost)]
    assert Changed(100, lost, gained).p_value == pytest.approx(sum(comb(n, k) for k in uneven) / 2**n)


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.06, 0.01), (0.01, 0.04)])
def test_the_interval_holds_the_true_fall_in_19_of_20_samples(lost: float, gained: float) -> None:
    counts = np.random.default_rng(0).multinomial(400, [lost, gained, 1 - lost - gained], 1500)
    found = [Changed(400, int(row[0]), int(row[1])).interval for row in counts]
    covered = np.mean([low <= lost - gained <= high for low, high in found])
    assert 0.93 <= covered <= 0.99
    assert all(-1 <= low < high <= 1 for low, high in found)


def test_without_any_change_the_interval_still_has_a_width() -> None:
    few, many = Changed(50, 0, 0).interval, Changed(5000, 0, 0).interval
    assert few[0] == -few[1]
    assert 0.0 < many[1] < few[1] < 0.1
