"""6,000 pairs of embeddings out of integer arithmetic, so that every implementation sees the same numbers."""

import numpy as np

NUM_PAIRS, DIM = 6000, 16
_MULTIPLIERS = (2246822519, 3266489917)  # of xxHash32, as are the shifts


def _uniform(count: int, stream: int) -> np.ndarray:
    """Hash count consecutive integers of a stream to [0, 1); all products stay below 2^64."""
    mask = np.uint64(0xFFFFFFFF)
    word = (np.arange(count, dtype=np.uint64) + np.uint64(1000003 * stream)) * np.uint64(2654435761)
    word = (word + np.uint64(974711)) & mask
    for shift, multiplier in zip((15, 13), _MULTIPLIERS, strict=True):
        word = ((word ^ (word >> np.uint64(shift))) * np.uint64(multiplier)) & mask
    return (word ^ (word >> np.uint64(16))) / 2.0**32


def _gaussian(stream: int) -> np.ndarray:
    """Turn two streams into normal numbers by Box and Muller's transform: float64 [NUM_PAIRS, DIM]."""
    radius, angle = (_uniform(NUM_PAIRS * DIM, stream + k) for k in (0, 1))
    values = np.sqrt(-2 * np.log(np.maximum(radius, 1e-12))) * np.cos(2 * np.pi * angle)
    return values.reshape(NUM_PAIRS, DIM)


def golden_pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit embeddings of both sides, float64 [6000, 16], and same: ten folds of 300 + 300."""
    same = np.arange(NUM_PAIRS) % 600 < 300
    first = _gaussian(1)
    second = _gaussian(21)
    second[same] = first[same] + 0.55 * _gaussian(11)[same]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (first, second)]
    return sides[0], sides[1], same
