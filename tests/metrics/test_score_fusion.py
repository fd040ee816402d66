"""Simple ways to fuse scores do what loops do, and weigh the better model more."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fastface.metrics.score_fusion import (
    average_embeddings,
    equal_weights,
    logistic_weights,
    separating_weights,
)


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    same = np.arange(600) % 2 == 0
    common = rng.normal(size=600)
    cosines = np.stack([0.3 * same + noise * (0.6 * common + 0.8 * rng.normal(size=600)) for noise in (0.1, 0.2, 0.4)])
    cosines[1, 7] = np.nan
    return cosines.astype(np.float32), same


def test_equal_weights_are_the_mean(scored: tuple[np.ndarray, np.ndarray]) -> None:
    cosines, _ = scored
    found = equal_weights(3)(cosines)
    assert np.isnan(found[7])
    for p in (0, 5, 99):
        assert found[p] == pytest.approx(sum(float(cosines[m, p]) for m in range(3)) / 3, rel=1e-6)


def test_separating_weights_are_fishers(scored: tuple[np.ndarray, np.ndarray]) -> None:
    cosines, same = scored
    expected = []
    for row in cosines:
        genuine = [float(v) for p, v in enumerate(row) if same[p] and p != 7]
        impostor = [float(v) for p, v in enumerate(row) if not same[p] and p != 7]
        expected.append((np.mean(genuine) - np.mean(impostor)) / ((np.var(genuine) + np.var(impostor)) / 2))
    np.testing.assert_allclose(separating_weights(*scored).weights, np.array(expected) / sum(expected), rtol=1e-6)


def test_logistic_weights_minimise_the_balanced_log_loss(scored: tuple[np.ndarray, np.ndarray]) -> None:
    cosines, same = scored
    whole = np.isfinite(cosines).all(0)
    x, y = cosines[:, whole].astype(np.float64), same[whole]

    def loss(w: np.ndarray) -> float:
        z = w[:3] @ x + w[3]
        return np.logaddexp(0, -z[y]).mean() + np.logaddexp(0, z[~y]).mean()

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    found = logistic_weights(*scored)
    assert loss(np.append(found.weights, found.bias)) == pytest.approx(best.fun, rel=1e-4)
    assert found.weights[0] > found.weights[2]


def test_the_average_is_of_unit_embeddings() -> None:
    rows = np.random.default_rng(1).normal(size=(4, 6)) * 5
    found = average_embeddings(rows, (3, 3))
    for row, average in zip(rows, found, strict=True):
        a, b = row[:3] / np.linalg.norm(row[:3]), row[3:] / np.linalg.norm(row[3:])
        np.testing.assert_allclose(average, (a + b) / 2)


@pytest.mark.parametrize("rule", [separating_weights, logistic_weights])
def test_one_kind_is_not_enough(rule) -> None:
    with pytest.raises(ValueError, match="one kind is missing"):
        rule(np.ones((2, 3)), np.ones(3, bool))


def test_models_that_know_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no model scores genuine pairs above"):
        separating_weights(np.array([[0.0, 1.0, 0.1, 1.1]]), np.array([True, False, True, False]))
