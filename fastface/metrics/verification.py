"""Scores of pairs -> the figures of verification: 10-fold accuracy, AUC, EER, TAR at FAR, loss.

The score of a pair is a similarity; it is accepted iff score >= threshold. Ties are decided, not left to
sorting: among thresholds of equal accuracy the highest is taken, the one that accepts least.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from fastface.metrics.curve import Threshold, area, calibrate, check_scores, curve, equal_error, rates
from fastface.metrics.folds import NUM_FOLDS, check_folds, stratified_folds
from fastface.metrics.insightface import grid_accuracy, grid_val
from fastface.metrics.intervals import wilson
from fastface.spelling import nearest

__all__ = [
    "METRIC_DIRECTION",
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

TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
RULE = "accept iff score >= T; T = smallest threshold with FMR(T) <= target, no interpolation"

METRIC_DIRECTION = {  # +1: more is better
    "acc": +1,
    "acc_std": -1,
    "acc_se": -1,
    "auc": +1,
    "eer": -1,
    "tar_1e-2": +1,
    "tar_1e-3": +1,
    "loss": -1,
}


class FoldAccuracy(NamedTuple):
    """Accuracy of each fold at the threshold chosen on the others, and the summary over folds."""

    mean: float
    std: float  # over folds, ddof 0
    se: float  # standard error of the mean: ddof 1, over sqrt(number of folds), as the LFW protocol asks
    interval: tuple[float, float]  # 95 %, Wilson, all held-out decisions pooled, pairs taken as independent
    folds: list[float]
    thresholds: list[float]
    sizes: list[int]


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
) -> Verification:
    """Compute every figure of a list of scored pairs.

    scores [N], or [K, N] where row k holds all scores as they stand while fold k is held out (mean
    subtraction): then each pair's own row gives its score for AUC, EER and TAR. same [N] bool; folds [N] with
    values 0..K-1, by default `stratified_folds`. compat "insightface" puts their accuracy under acc, acc_std
    and acc_se and the exact one into the details; it uses the squared distances [N] where given, else 2 - 2 *
    score. Raises ValueError as `check_scores`; with `one_kind`, pairs that are all genuine or all impostor get
    their accuracy, and no figure that needs the other kind.
    """
    if compat not in (None, "insightface"):
        raise ValueError(f"Unknown compat {compat!r}; known: 'insightface'.")
    folds = stratified_folds(same) if folds is None else check_folds(folds, len(same))
    pooled = np.asarray(scores)
    if pooled.ndim == 2:
        pooled = np.take_along_axis(pooled, folds[None].astype(np.int64), axis=0)[0]
    pooled, same = check_scores(pooled, same, one_kind=one_kind)
    accuracy = fold_accuracy(scores, same, folds)
    failed = ~np.isfinite(pooled)
    metrics = {"acc": accuracy.mean, "acc_std": accuracy.std, "acc_se": accuracy.se}
    details: dict[str, Any] = {
        "num_pairs": len(same),
        "num_genuine": int(same.sum()),
        "num_impostors": int((~same).sum()),
        "failures": {"genuine": int((failed & same).sum()), "impostors": int((failed & ~same).sum())},
        "accuracy": {"rule": "exact thresholds, chosen on the other folds", **accuracy._asdict()},
        "accuracy_optimistic": _best_on_all(pooled, same),
        "tar_at_far": {"rule": RULE, "points": []},
    }
    if same.any() and not same.all():
        metrics["loss"] = fold_loss(scores, same, folds)
        points = curve(pooled, same)
        eer, threshold = equal_error(points)
        metrics |= {"auc": area(points), "eer": eer}
        metrics |= zip(("tar_1e-2", "tar_1e-3"), (p.tar for p in calibrate(pooled, same)), strict=True)
        details["eer"] = {"value": eer, "threshold": threshold, **rates(pooled, same, threshold)._asdict()}
        details["tar_at_far"]["points"] = [_point(point) for point in calibrate(pooled, same, targets)]
    if compat == "insightface":
        distances = 2 - 2 * pooled.astype(np.float64) if distances is None else distances
        details["compat"] = _insightface(distances, same)
        metrics |= {key: details["compat"][key] for key in ("acc", "acc_std", "acc_se")}
    return Verification(metrics, details)


def fold_accuracy(scores: np.ndarray, same: np.ndarray, folds: np.ndarray) -> FoldAccuracy:
    """Measure each fold at the most accurate threshold of the others; scores as in `verification`.

    Thresholds tried are the midpoints between distinct scores of the other folds, their lowest score (all
    accepted) and the number above their highest (none accepted); the highest of the best is taken. A failure
    counts as rejected.
    """
    num = int(folds.max()) + 1
    rows = np.broadcast_to(scores, (num, len(same)))
    accuracies, thresholds, sizes, hits = [], [], [], 0
    for k, row in enumerate(rows):
        row = np.where(np.isfinite(row), row, -np.inf).astype(np.float64)
        held = folds == k
        threshold = best_threshold(row[~held], same[~held])
        correct = int(((row[held] >= threshold) == same[held]).sum())
        hits += correct
        accuracies.append(correct / int(held.sum()))
        thresholds.append(threshold)
        sizes.append(int(held.sum()))
    se = float(np.std(accuracies, ddof=1) / np.sqrt(num))
    interval = wilson(hits, len(same))
    return FoldAccuracy(
        float(np.mean(accuracies)), float(np.std(accuracies)), se, interval, accuracies, thresholds, sizes
    )


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """Return the threshold of highest accuracy, the highest of them where several are; scores float64 [N]."""
    order = np.argsort(-scores, kind="stable")
    ranked, sign = scores[order], np.where(same[order], 1, -1)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True) & np.isfinite(ranked))
    if not len(last):
        raise ValueError("A fold leaves no finite score to choose its threshold on; check the embeddings.")
    gain = np.concatenate([[0], np.cumsum(sign)[last]])  # correct decisions beyond those of accepting nothing
    best = int(np.argmax(gain))
    if best == 0:
        return float(np.nextafter(ranked[0], np.inf))
    lowest = ranked[last[best - 1]]
    if best == len(last):
        return float(lowest)
    below = ranked[last[best]]
    middle = below + (lowest - below) / 2
    return float(middle if middle > below else lowest)  # neighbours in float64 have no number between them


def fold_loss(scores: np.ndarray, same: np.ndarray, folds: np.ndarray) -> float:
    """Return the log loss (nats) of a logistic fit to the scores, each fold judged by the fit on the others.

    Both kinds of pair weigh half, so scores without information give ln 2 = 0.693 whatever the mix. It moves
    with every score, where the counts of the other metrics stand still. A failure takes the lowest finite
    score.
    """
    rows = np.broadcast_to(scores, (int(folds.max()) + 1, len(same)))
    losses = np.empty(len(same))
    for k, row in enumerate(rows):
        held = folds == k
        row = row.astype(np.float64)
        finite = row[np.isfinite(row)]
        row = np.where(np.isfinite(row), row, finite.min())
        row = (row - finite.mean()) / max(float(finite.std()), 1e-12)  # the unit in which the fit's weak prior is weak
        if np.unique(same[~held]).size < 2:
            losses[held] = np.log(2)
            continue
        fit = LogisticRegression(class_weight="balanced", solver="newton-cholesky").fit(row[~held, None], same[~held])
        margin = fit.decision_function(row[held, None])
        losses[held] = np.logaddexp(0, np.where(same[held], -margin, margin))
    return float((losses[same].mean() + losses[~same].mean()) / 2)


def _best_on_all(scores: np.ndarray, same: np.ndarray) -> dict[str, float | str]:
    """Report accuracy at the best threshold of the very pairs it is measured on."""
    scores = scores.astype(np.float64)
    threshold = best_threshold(scores, same)
    note = "optimistic: threshold chosen on the pairs it is measured on"
    return {"acc_best": float(((scores >= threshold) == same).mean()), "threshold": threshold, "rule": note}


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


def _point(point: Threshold) -> dict[str, Any]:
    return {**point._asdict(), "errors": point.errors, "tar_interval": list(point.tar_interval)}
