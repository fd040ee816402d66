"""Scores of pairs -> thresholds chosen by a rule on some of them, and what they decide of the others."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fastface.metrics.curve import Curve, calibrate, check_scores, curve, equal_error

Rule = Callable[[np.ndarray, np.ndarray], float]
"""Scores [N] and same [N] -> threshold; a pair is accepted iff score >= threshold."""


class Tuned(NamedTuple):
    """Decisions on pairs that had no part in choosing their threshold, pooled over folds."""

    lowest: float  # of the folds' thresholds
    highest: float
    accuracy: float
    precision: float  # of these pairs' mix of genuine and impostor ones; NaN where none is accepted
    recall: float  # the TAR
    f1: float  # 0 where no genuine pair is accepted
    fmr: float


def most_accurate(scores: np.ndarray, same: np.ndarray) -> float:
    """Choose the threshold of most right decisions, the highest of equals."""
    return _best(scores, same, lambda c: c.genuine + (c.num_impostors - c.impostors))


def highest_f1(scores: np.ndarray, same: np.ndarray) -> float:
    """Choose the threshold of highest F1, the highest of equals."""
    return _best(scores, same, lambda c: 2 * c.genuine / (c.genuine + c.impostors + c.num_genuine))


def equal_rates(scores: np.ndarray, same: np.ndarray) -> float:
    """Choose the threshold at which FMR and FNMR are closest."""
    return equal_error(curve(scores, same))[1]


def at_fmr(target: float) -> Rule:
    """Choose the smallest threshold with FMR <= target."""
    return lambda scores, same: calibrate(scores, same, (target,))[0].threshold


RULES: dict[str, Rule] = {
    "accuracy": most_accurate,
    "F1": highest_f1,
    "EER": equal_rates,
    "FMR 1e-1": at_fmr(1e-1),
    "FMR 1e-2": at_fmr(1e-2),
}


def tune(
    scores: np.ndarray, same: np.ndarray, folds: np.ndarray, rules: Mapping[str, Rule] = RULES
) -> dict[str, Tuned]:
    """Choose each fold's threshold on the other folds, by each rule, and judge it on the fold; failures are rejected.

    ValueError where the other folds of one lack a kind of pair.
    """
    scores, same = check_scores(scores, same)
    found = {}
    for name, rule in rules.items():
        accepted, thresholds = np.zeros(len(same), bool), []
        for fold in range(int(folds.max()) + 1):
            held = folds == fold
            thresholds.append(rule(scores[~held], same[~held]))
            accepted[held] = np.isfinite(scores[held]) & (scores[held].astype(np.float64) >= thresholds[-1])
        found[name] = _judge(accepted, same, thresholds)
    return found


def _judge(accepted: np.ndarray, same: np.ndarray, thresholds: list[float]) -> Tuned:
    hits, wrong, missed = int((accepted & same).sum()), int((accepted & ~same).sum()), int((~accepted & same).sum())
    return Tuned(
        lowest=min(thresholds),
        highest=max(thresholds),
        accuracy=float((accepted == same).mean()),
        precision=hits / (hits + wrong) if hits + wrong else float("nan"),
        recall=hits / (hits + missed),
        f1=2 * hits / (2 * hits + wrong + missed),
        fmr=wrong / int((~same).sum()),
    )


def _best(scores: np.ndarray, same: np.ndarray, merit: Callable[[Curve], np.ndarray]) -> float:
    points = curve(scores, same)
    return float(points.thresholds[int(np.argmax(merit(points)))])  # thresholds descend: the first is the highest
