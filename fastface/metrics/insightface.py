"""Distances -> the figures InsightFace prints, its rule and its quirks kept.

Re-implemented after the rule of recognition/arcface_torch/eval/verification.py (deepinsight/insightface, read
2026-07) for comparison with published numbers. Distances are squared L2 between unit embeddings, in pair
order.
"""

from typing import NamedTuple

import numpy as np

ACCURACY_GRID = np.arange(0, 4, 0.01)
VAL_GRID = np.arange(0, 4, 0.001)


class GridAccuracy(NamedTuple):
    """Ten-fold accuracy on the grid; `thresholds` are squared distances."""

    mean: float
    std: float  # population standard deviation over folds (ddof 0)
    folds: list[float]
    thresholds: list[float]


class Val(NamedTuple):
    """Their VAL (true accepts) at a target FAR: means over folds, and the FAR met on the held-out folds."""

    mean: float
    std: float
    far: float


def grid_accuracy(distances: np.ndarray, same: np.ndarray, num_folds: int = 10) -> GridAccuracy:
    """Accept iff distance < t (strict), t from the grid of step 0.01 by the first best of the other folds."""
    distances, same = _check(distances, same, num_folds)
    correct = np.stack([(distances < t) == same for t in ACCURACY_GRID])  # [400, N]
    accuracies, thresholds = [], []
    for test in np.array_split(np.arange(len(same)), num_folds):  # as KFold(num_folds, shuffle=False)
        train = np.delete(np.arange(len(same)), test)
        best = int(np.argmax(correct[:, train].mean(axis=1)))
        accuracies.append(float(correct[best, test].mean()))
        thresholds.append(float(ACCURACY_GRID[best]))
    return GridAccuracy(float(np.mean(accuracies)), float(np.std(accuracies)), accuracies, thresholds)


def grid_val(distances: np.ndarray, same: np.ndarray, target: float = 1e-3, num_folds: int = 10) -> Val | None:
    """Read the threshold at FAR = target by linear interpolation on the other folds, step 0.001.

    The original stops with an error on SciPy >= 1.9, because many grid points share one FAR; here each FAR
    keeps the last (largest) of its thresholds. Where no threshold reaches the target, theirs is 0: nothing is
    accepted. Returns None where a tenth of the file lacks a kind of pair; theirs then divides by zero.
    """
    distances, same = _check(distances, same, num_folds)
    values, fars = [], []
    for test in np.array_split(np.arange(len(same)), num_folds):
        train = np.delete(np.arange(len(same)), test)
        impostors = np.sort(distances[train][~same[train]])
        genuine, strangers = distances[test][same[test]], distances[test][~same[test]]
        if not (len(impostors) and len(genuine) and len(strangers)):
            return None
        far_train = np.searchsorted(impostors, VAL_GRID, side="left") / len(impostors)  # strict: distance < t
        distinct = np.append(far_train[1:] != far_train[:-1], True)  # keeps the last of each FAR
        threshold = 0.0
        if far_train.max() >= target:
            threshold = float(np.interp(target, far_train[distinct], VAL_GRID[distinct]))
        values.append(float((genuine < threshold).mean()))
        fars.append(float((strangers < threshold).mean()))
    return Val(float(np.mean(values)), float(np.std(values)), float(np.mean(fars)))


def _check(distances: np.ndarray, same: np.ndarray, num_folds: int) -> tuple[np.ndarray, np.ndarray]:
    distances, same = np.asarray(distances, dtype=np.float64), np.asarray(same, dtype=bool)
    if distances.ndim != 1 or distances.shape != same.shape:
        raise ValueError(f"distances {distances.shape} and same {same.shape} must be lists of equal length.")
    if len(same) < num_folds or num_folds < 2:
        raise ValueError(f"compat insightface needs at least {num_folds} pairs for {num_folds} folds, not {len(same)}.")
    return np.where(np.isfinite(distances), distances, np.inf), same  # a failure is never accepted
