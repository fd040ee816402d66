"""Scored pairs with ties, for tests."""

import numpy as np


def scored(seed: int, num: int = 60, *, levels: int = 12, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs whose scores fall on few levels, so that ties abound."""
    rng = np.random.default_rng(seed)
    same = rng.random(num) < 0.5
    same[:2] = True, False
    scores = np.round((rng.normal(size=num) + 1.2 * same) * levels / 6) / levels
    return scores.astype(dtype), same
