"""Scores of several models of the same pairs -> one score: the ways to fuse that need little or no learning.

Scores are cosines [M, P] of M models; the cosine of concatenated unit embeddings that are multiplied by w_m is
sum w_m^2 cos_m / sum w_m^2, so that weighing scores and weighing embeddings is one thing.
"""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from fastface.metrics.scores import unit


class ScoreWeights(NamedTuple):
    """A score is sum of weights * cosines + bias."""

    weights: np.ndarray  # float64 [M]
    bias: float

    def __call__(self, cosines: np.ndarray) -> np.ndarray:
        """Return fused scores, float32 [P]; NaN where a model failed."""
        return (self.weights @ cosines.astype(np.float64) + self.bias).astype(np.float32)


def equal_weights(models: int) -> ScoreWeights:
    """Return the weights of a plain concatenation."""
    return ScoreWeights(np.full(models, 1 / models), 0.0)


def separating_weights(cosines: np.ndarray, same: np.ndarray) -> ScoreWeights:
    """Weigh each model by how far it parts the kinds: (mean genuine - mean impostor) / (mean of their variances).

    Fisher's discriminant for scores that are independent of each other; scaled to sum 1, none below 0.
    """
    values, same = _whole(cosines, same)
    apart = values[:, same].mean(1) - values[:, ~same].mean(1)
    variance = (values[:, same].var(1) + values[:, ~same].var(1)) / 2
    weights = np.maximum(apart / np.maximum(variance, 1e-12), 0)
    if not weights.any():
        raise ValueError("no model scores genuine pairs above impostor ones on the pairs that weights are fitted on")
    return ScoreWeights(weights / weights.sum(), 0.0)


def logistic_weights(cosines: np.ndarray, same: np.ndarray) -> ScoreWeights:
    """Fit log-odds by logistic regression, genuine and impostor pairs weighing half each."""
    values, same = _whole(cosines, same)
    centre, spread = values.mean(1), np.maximum(values.std(1), 1e-12)
    fit = LogisticRegression(class_weight="balanced", C=1e3, tol=1e-8, max_iter=1000)
    fit.fit(((values - centre[:, None]) / spread[:, None]).T, same)
    weights = np.asarray(fit.coef_)[0] / spread
    return ScoreWeights(weights, float(np.asarray(fit.intercept_)[0] - weights @ centre))


def average_embeddings(rows: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Average the models' unit embeddings value by value: rows [B, sum of sizes] -> float64 [B, D]; sizes are equal."""
    assert len(set(sizes)) == 1, "embeddings of unlike sizes have no average"
    return np.mean([unit(part) for part in np.split(rows, len(sizes), axis=1)], axis=0)


def _whole(cosines: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave failures out; ValueError where a kind is missing then."""
    there = np.isfinite(cosines).all(0)
    values, same = cosines[:, there].astype(np.float64), np.asarray(same, bool)[there]
    if same.all() or not same.any():
        raise ValueError("weights of models are fitted on genuine and impostor pairs; one kind is missing")
    return values, same
