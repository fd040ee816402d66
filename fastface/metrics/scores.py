"""Embeddings and pairs -> scores: cosines and distances, in float64."""

import numpy as np

from fastface.data.embeddings import usable

CHUNK = 1_024  # pairs at a time: 1,024 x 512 float64 take 4 MB a side


def pair_scores(rows: np.ndarray, first: np.ndarray, second: np.ndarray, mean: np.ndarray | None = None) -> np.ndarray:
    """Return the cosine of each pair of rows, float64 rounded to float32; NaN for rows without direction."""
    scores = np.empty(len(first), np.float32)
    for part in _chunks(len(first)):
        a, b = unit(rows[first[part]], mean), unit(rows[second[part]], mean)
        scores[part] = np.einsum("ij,ij->i", a, b)
    return scores


def pair_distances(rows: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the squared L2 distance of unit embeddings, float64 [P]; NaN where a row has no direction."""
    distances = np.empty(len(first))
    for part in _chunks(len(first)):
        distances[part] = np.square(unit(rows[first[part]]) - unit(rows[second[part]])).sum(axis=1)
    return distances


def centred_scores(rows: np.ndarray, first: np.ndarray, second: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Score all pairs once for each fold, minus the mean embedding of the other folds' pairs; float32 [K, P].

    The mean runs over both sides of the pairs, so a picture counts as often as it is used.
    """
    num = int(folds.max()) + 1
    good = usable(rows)
    kept = np.where(good[:, None], rows, 0).astype(np.float64)
    by_fold = []
    for k in range(num):
        ends = np.concatenate([first[folds != k], second[folds != k]])
        uses = np.bincount(ends, minlength=len(rows)) * good
        by_fold.append(pair_scores(rows, first, second, uses @ kept / max(1, int(uses.sum()))))
    return np.stack(by_fold)


def unit(rows: np.ndarray, mean: np.ndarray | None = None) -> np.ndarray:
    """Scale rows to length 1 in float64, after subtracting `mean`; NaN for a zero or not finite row."""
    rows = rows.astype(np.float64)
    if mean is not None:
        rows = rows - mean
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(np.isfinite(length) & (length > 0), length, np.nan)


def _chunks(total: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, total, CHUNK)]
