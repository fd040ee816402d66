"""Scores of pairs -> accuracy at thresholds chosen on other pairs, fold by fold, and what else those decisions give.

Ties are decided, not left to sorting: among thresholds of equal accuracy the highest is taken, the one that accepts
least.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from fastface.metrics.dependence import rate_interval


class FoldAccuracy(NamedTuple):
    """Accuracy of each fold at the threshold chosen on the others, and the summary over folds."""

    mean: float
    std: float  # over folds, ddof 0
    se: float  # standard error of the mean: ddof 1, over sqrt(number of folds), as the LFW protocol asks
    interval: tuple[float, float]  # 95 %, all held-out decisions pooled
    interval_method: str
    folds: list[float]
    thresholds: list[float]
    sizes: list[int]


class Decisions(NamedTuple):
    """What each pair was decided to be at the threshold that the other folds chose."""

    accepted: np.ndarray  # bool [P]
    thresholds: list[float]  # of each fold


def fold_accuracy(
    scores: np.ndarray, same: np.ndarray, folds: np.ndarray, persons: np.ndarray | None = None
) -> FoldAccuracy:
    """Measure each fold at the most accurate threshold of the others; scores as in `verification`."""
    return accuracy_of(decide(scores, same, folds), same, folds, persons)


def decide(scores: np.ndarray, same: np.ndarray, folds: np.ndarray) -> Decisions:
    """Decide each pair at the most accurate threshold of the other folds; scores as in `verification`.

    Thresholds tried are the midpoints between distinct scores of the other folds, their lowest score (all
    accepted) and the number above their highest (none accepted); the highest of the best is taken. A failure
    counts as rejected.
    """
    num = int(folds.max()) + 1
    accepted, thresholds = np.zeros(len(same), dtype=bool), []
    for k, row in enumerate(np.broadcast_to(scores, (num, len(same)))):
        row = np.where(np.isfinite(row), row, -np.inf).astype(np.float64)
        held = folds == k
        threshold = best_threshold(row[~held], same[~held])
        accepted[held] = row[held] >= threshold
        thresholds.append(threshold)
    return Decisions(accepted, thresholds)


def accuracy_of(
    decisions: Decisions, same: np.ndarray, folds: np.ndarray, persons: np.ndarray | None = None
) -> FoldAccuracy:
    """Summarise decisions over folds; persons int64 [2, P] of the pairs widen the interval as they recur."""
    num = len(decisions.thresholds)
    correct = decisions.accepted == same
    sizes = np.bincount(folds, minlength=num)
    accuracies = np.bincount(folds, weights=correct, minlength=num) / sizes
    wrong = rate_interval(~correct, same, persons)
    return FoldAccuracy(
        mean=float(np.mean(accuracies)),
        std=float(np.std(accuracies)),
        se=float(np.std(accuracies, ddof=1) / np.sqrt(num)),
        interval=(1 - wrong.high, 1 - wrong.low),
        interval_method=wrong.method,
        folds=accuracies.tolist(),
        thresholds=decisions.thresholds,
        sizes=sizes.tolist(),
    )


def precision_recall(accepted: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """Return precision, recall and F1 of accepting, with the counts; None where nothing is there to divide by.

    Precision (and F1) is that of these pairs' mix of genuine and impostor ones, and of no other.
    """
    hits, wrong, missed = (int((accepted & same).sum()), int((accepted & ~same).sum()), int((~accepted & same).sum()))
    return {
        "rule": "held-out decisions pooled, each at its fold's accuracy threshold",
        "true_accepts": hits,
        "false_accepts": wrong,
        "false_rejects": missed,
        "true_rejects": len(same) - hits - wrong - missed,
        "precision": hits / (hits + wrong) if hits + wrong else None,
        "recall": hits / (hits + missed) if hits + missed else None,
        "f1": 2 * hits / (2 * hits + wrong + missed) if hits + wrong + missed else None,
    }


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


def best_on_all(scores: np.ndarray, same: np.ndarray) -> dict[str, float | str]:
    """Report accuracy at the best threshold of the very pairs it is measured on."""
    scores = scores.astype(np.float64)
    threshold = best_threshold(scores, same)
    note = "optimistic: threshold chosen on the pairs it is measured on"
    return {"acc_best": float(((scores >= threshold) == same).mean()), "threshold": threshold, "rule": note}
