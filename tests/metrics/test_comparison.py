import json
import math

import numpy as np
import pytest

from benchmarks.interval_coverage import Population, simulate
from fastface.metrics.bootstrap import bootstrap
from fastface.metrics.comparison import compare, format_comparison, mcnemar
from fastface.metrics.curve import area, calibrate, curve


def two_models(gain: float, num_persons: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Score pairs twice with noise of their own; the first model separates by `gain` more."""
    rng = np.random.default_rng(0)
    base, same, persons = simulate(Population(gap=2.0), num_persons, 4, rng)
    scores = np.stack([base + gain * same, base]) + rng.normal(0, 0.3, (2, len(same)))
    return scores, scores > 1.5, same, persons


def test_differences_are_those_of_the_figures() -> None:
    scores, accepted, same, persons = two_models(1.0)
    found = compare(scores, accepted, same, persons=persons, targets=(0.1,))
    right = [[a == s for a, s in zip(row, same, strict=True)] for row in accepted]
    assert found["figures"]["acc"]["difference"] == pytest.approx(np.mean(right[0]) - np.mean(right[1]))
    assert found["figures"]["auc"]["difference"] == area(curve(scores[0], same)) - area(curve(scores[1], same))
    tars = [calibrate(row, same, (0.1,))[0].tar for row in scores]
    assert found["figures"]["tar_1e-1"]["difference"] == tars[0] - tars[1]
    for figure in found["figures"].values():
        low, high = figure["interval"]
        assert low < figure["difference"] < high
        assert figure["significant"] is (low > 0 or high < 0)
    assert found["figures"]["auc"]["significant"] is True
    json.dumps(found, allow_nan=False)
    assert "new minus old" in format_comparison("new", "old", found)


@pytest.mark.parametrize("known", [True, False])
def test_a_model_is_not_told_apart_from_itself(known: bool) -> None:
    scores, accepted, same, persons = two_models(0.0, 12)
    twice, decided = np.stack([scores[0]] * 2), np.stack([accepted[0]] * 2)
    found = compare(twice, decided, same, persons=persons if known else None)
    assert all(figure["interval"] == [0.0, 0.0] for figure in found["figures"].values())
    assert not any(figure["significant"] for figure in found["figures"].values())
    assert found["mcnemar"]["p_value"] == 1.0
    assert ("persons" in found["method"]) is known
    assert "not told apart" in format_comparison("a", "b", found)


def test_common_difficulty_cancels() -> None:
    """The AUC of either model is far less certain than their difference."""
    scores, accepted, same, persons = two_models(0.3)
    low, high = compare(scores, accepted, same, persons=persons)["figures"]["auc"]["interval"]
    alone = bootstrap(scores[0], same, persons, lambda c: [area(c[0])])
    assert alone is not None
    assert high - low < 0.5 * (alone[0, 1] - alone[0, 0])


def test_decisions_that_accept_nothing_have_the_accuracy_of_rejecting() -> None:
    scores, _, same, persons = two_models(1.0, 12)
    accepted = np.stack([np.zeros(len(same), dtype=bool), same])
    found = compare(scores, accepted, same, persons=persons)["figures"]["acc"]
    assert found["difference"] == pytest.approx(-same.mean())


@pytest.mark.parametrize(("a", "b"), [(0, 0), (5, 0), (7, 2), (3, 3)])
def test_mcnemar_is_the_exact_binomial(a: int, b: int) -> None:
    first = np.array([True] * a + [False] * b + [True] * 9)
    second = np.array([False] * a + [True] * b + [True] * 9)
    n, most = a + b, max(a, b)
    tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
    assert mcnemar(first, second) == {"only_first": a, "only_second": b, "p_value": pytest.approx(min(1.0, 2 * tail))}
