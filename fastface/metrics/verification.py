"""Scores of pairs -> the figures of verification: 10-fold accuracy, AUC, EER, TAR at FAR, loss.

The score of a pair is a similarity; it is accepted iff score >= threshold.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastface.metrics.accuracy import (
    FoldAccuracy,
    accuracy_of,
    best_on_all,
    decide,
    fold_accuracy,
    fold_loss,
    precision_recall,
)
from fastface.metrics.curve import Threshold, calibrate, check_scores, curve, rates
from fastface.metrics.folds import NUM_FOLDS, check_folds, stratified_folds
from fastface.metrics.insightface import grid_accuracy, grid_val
from fastface.metrics.operating import FNMR_RULE, RULE, TARGETS, curve_figures, interval_facts
from fastface.spelling import nearest

__all__ = [
    "METRIC_DIRECTION",
    "TARGETS",
    "FoldAccuracy",
    "Threshold",
    "Verification",
    "calibrate",
    "curve",
    "fold_accuracy",
    "fold_loss",
    "metric_direction",
    "rates",
    "stratified_folds",
    "verification",
]

METRIC_DIRECTION = {  # +1: more is better
    "acc": +1,
    "acc_std": -1,
    "acc_se": -1,
    "auc": +1,
    "eer": -1,
    "tar_1e-2": +1,
    "tar_1e-3": +1,
    "loss": -1,
    # of attack detection, see `attacks`
    "acer": -1,
    "apcer": -1,
    "bpcer": -1,
    "hter": -1,
    "bpcer10": -1,
    "bpcer20": -1,
    "bpcer100": -1,
}


class Verification(NamedTuple):
    """Flat figures by the keys of METRIC_DIRECTION, and all that stands behind them, ready for JSON."""

    metrics: dict[str, float]
    details: dict[str, Any]


def metric_direction(key: str) -> int:
    """Return +1 where more of the metric is better, -1 where less is; the key may carry a set ("lfw/acc")."""
    name = key.rsplit("/", 1)[-1]
    if name not in METRIC_DIRECTION:
        known = ", ".join(METRIC_DIRECTION)
        raise ValueError(f"Unknown metric {key!r}{nearest(name, METRIC_DIRECTION)}. Known: {known}.")
    return METRIC_DIRECTION[name]


def verification(
    scores: np.ndarray,
    same: np.ndarray,
    folds: np.ndarray | None = None,
    *,
    targets: Sequence[float] = TARGETS,
    compat: str | None = None,
    distances: np.ndarray | None = None,
    one_kind: bool = False,
    persons: np.ndarray | None = None,
    intervals: bool = True,
) -> Verification:
    """Compute every figure of a list of scored pairs.

    scores [N], or [K, N] where row k holds all scores as they stand while fold k is held out (mean
    subtraction): then each pair's own row gives its score for AUC, EER and TAR. same [N] bool; folds [N] with
    values 0..K-1, by default `stratified_folds`. compat "insightface" puts their accuracy under acc, acc_std
    and acc_se and the exact one into the details; it uses the squared distances [N] where given, else 2 - 2 *
    score. Raises ValueError as `check_scores`; with `one_kind`, pairs that are all genuine or all impostor get
    their accuracy, and no figure that needs the other kind.

    persons int64 [2, N] numbers the persons of each pair from 0; with them, intervals allow for persons who recur
    (`dependence`, `bootstrap`), and without them they take pairs as independent. `intervals` False leaves out those
    that take time.
    """
    if compat not in (None, "insightface"):
        raise ValueError(f"Unknown compat {compat!r}; known: 'insightface'.")
    folds = stratified_folds(same) if folds is None else check_folds(folds, len(same))
    pooled = np.asarray(scores)
    if pooled.ndim == 2:
        pooled = np.take_along_axis(pooled, folds[None].astype(np.int64), axis=0)[0]
    pooled, same = check_scores(pooled, same, one_kind=one_kind)
    decisions = decide(scores, same, folds)
    accuracy = accuracy_of(decisions, same, folds, persons)
    metrics = {"acc": accuracy.mean, "acc_std": accuracy.std, "acc_se": accuracy.se}
    details = {
        **pair_counts(pooled, same),
        "accuracy": {"rule": "exact thresholds, chosen on the other folds", **accuracy._asdict()},
        "accuracy_optimistic": best_on_all(pooled, same),
        "decisions": precision_recall(decisions.accepted, same),
        "tar_at_far": {"rule": RULE, "fnmr_rule": FNMR_RULE, "points": []},
        "intervals": interval_facts(persons, 0),
    }
    if same.any() and not same.all():
        found, behind = curve_figures(pooled, same, targets, persons=persons, draw=intervals)
        metrics |= {"loss": fold_loss(scores, same, folds), **found}
        details |= behind
    if compat == "insightface":
        distances = 2 - 2 * pooled.astype(np.float64) if distances is None else distances
        details["compat"] = _insightface(distances, same)
        metrics |= {key: details["compat"][key] for key in ("acc", "acc_std", "acc_se")}
    return Verification(metrics, details)


def pair_counts(scores: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """Count pairs and failures by kind; scores as `check_scores` gives them."""
    failed = ~np.isfinite(scores)
    return {
        "num_pairs": len(same),
        "num_genuine": int(same.sum()),
        "num_impostors": int((~same).sum()),
        "failures": {"genuine": int((failed & same).sum()), "impostors": int((failed & ~same).sum())},
    }


def _insightface(distances: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    grid, val = grid_accuracy(distances, same, NUM_FOLDS), grid_val(distances, same)
    return {
        "rule": "insightface: accept iff squared distance < t, t on a grid of 0.01, folds in file order",
        "acc": grid.mean,
        "acc_std": grid.std,
        "acc_se": float(np.std(grid.folds, ddof=1) / np.sqrt(NUM_FOLDS)),
        "folds": grid.folds,
        "thresholds": grid.thresholds,
        "val_1e-3": None if val is None else {"rule": "interpolated on distinct FAR", **val._asdict()},
    }
