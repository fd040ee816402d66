"""Scores -> whole numbers: the key of a float32, in its order, and the bin of a score that is known only roughly.

Keys are for counting exactly: neighbouring float32 numbers have neighbouring keys. Bins are 2^-15 wide, so that a
score times 32,768 is exact and its bin costs one multiplication, one addition and a truncation.
"""

import math

import numpy as np

PER_ONE = 32_768  # bins in a unit of score
MIDDLE = 40_960  # the bin that begins at score 0
BINS = 2 * MIDDLE  # from -1.25 up to 1.25: no rough score is further out, see products.py
BIN_ERROR = 2.0**-22
"""What the addition may move a score by: half a unit in the last place of 2^16 is 2^-8 bins; rounded up."""


def keys_of(scores: np.ndarray) -> np.ndarray:
    """Return the keys of float32 scores, int64 in the same shape; -0.0 counts as 0.0, as it equals it."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.int32).astype(np.int64)
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def key_of(score: float) -> int:
    """Return the key of one score."""
    return int(keys_of(np.array([score], np.float32))[0])


def score_of(key: int) -> float:
    """Return the score that has this key; the key after that of x is the key of nextafter(x, inf)."""
    return float(np.array([key if key >= 0 else key ^ 0x7FFFFFFF], np.int64).astype(np.int32).view(np.float32)[0])


def bin_of(score: float) -> int:
    """Return the bin that holds a score known exactly, the nearest where it lies outside."""
    return min(max(math.floor(score * PER_ONE) + MIDDLE, 0), BINS - 1)


def edge(number: int) -> float:
    """Return the score at which a bin begins."""
    return (number - MIDDLE) / PER_ONE


LOWEST, HIGHEST = key_of(-1.0), key_of(1.0)  # no score of unit embeddings has another key
