import numpy as np
import pytest

from fastface.metrics.insightface import grid_accuracy, grid_val
from tests.metrics.golden_pairs import golden_pairs


def distances() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    same = np.tile([True, True, False, False], 25)
    return np.clip(rng.normal(1.6 - 0.7 * same, 0.3), 0, 4), same


def test_accuracy_by_a_double_loop() -> None:
    dist, same = distances()
    grid = np.arange(0, 4, 0.01).tolist()
    accuracies = []
    for k in range(10):
        held = range(10 * k, 10 * k + 10)
        best, chosen = -1, 0.0
        for threshold in grid:
            right = 0
            for i, (d, genuine) in enumerate(zip(dist.tolist(), same.tolist(), strict=True)):
                right += i not in held and (d < threshold) == genuine
            if right > best:
                best, chosen = right, threshold
        accuracies.append(sum((dist[i] < chosen) == same[i] for i in held) / 10)
    found = grid_accuracy(dist, same)
    assert found.folds == pytest.approx(accuracies)
    assert found.std == pytest.approx(np.std(accuracies))


def test_a_distance_on_the_grid_is_not_accepted() -> None:
    """Strictly less: a genuine distance of 0.5 needs the next threshold."""
    dist = np.tile([0.5, 3.0], 10)
    assert grid_accuracy(dist, np.tile([True, False], 10)).thresholds == pytest.approx([0.51] * 10)


def test_val_interpolates_between_the_last_thresholds_of_each_far() -> None:
    dist, same = distances()
    values, fars = [], []
    for k in range(10):
        held = np.zeros(100, dtype=bool)
        held[10 * k : 10 * k + 10] = True
        strangers = dist[~held & ~same].tolist()
        last: dict[float, float] = {}
        for t in np.arange(0, 4, 0.001).tolist():
            last[sum(d < t for d in strangers) / len(strangers)] = t  # later ones overwrite
        levels = sorted(last)
        above = next(i for i, far in enumerate(levels) if far >= 0.05)
        x0, x1 = levels[above - 1], levels[above]
        threshold = last[x0] + (0.05 - x0) / (x1 - x0) * (last[x1] - last[x0])
        values.append(np.mean(dist[held & same] < threshold))
        fars.append(np.mean(dist[held & ~same] < threshold))
    found = grid_val(dist, same, 0.05)
    assert found is not None
    assert (found.mean, found.far) == pytest.approx((np.mean(values), np.mean(fars)))
    assert found.std == pytest.approx(np.std(values))


def test_val_accepts_nothing_where_no_threshold_reaches_the_target() -> None:
    dist = np.tile([0.5, 5.0], 20)
    found = grid_val(dist, np.tile([True, False], 20))
    assert found is not None
    assert (found.mean, found.far) == (0.0, 0.0)


def test_val_needs_both_kinds_in_each_tenth() -> None:
    assert grid_val(np.linspace(0.1, 3.0, 40), np.arange(40) < 20) is None


def test_golden_val_is_close_to_the_exact_rate() -> None:
    first, second, same = golden_pairs()
    found = grid_val(np.square(first - second).sum(axis=1), same)
    assert found is not None
    assert found.mean == pytest.approx(0.981333, abs=0.005)


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10 pairs"):
        grid_accuracy(np.ones(4), np.array([True, False, True, False]))
