"""Scores of two models on the same pairs -> how far the second falls behind the first, pair by pair."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, norm

from fastface.metrics.accuracy import decide
from fastface.metrics.curve import calibrate


class Changed(NamedTuple):
    """Decisions of two models on the same pairs, by how many went from right to wrong and back."""

    total: int
    lost: int  # right by the first, wrong by the second
    gained: int

    @property
    def drop(self) -> float:
        """The fall of the rate of right decisions; below zero where the second is better."""
        return (self.lost - self.gained) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the fall, pairs taken as independent.

        Adjusted Wald for paired rates: one more pair of each kind of change (Bonett and Price, J. Educational and
        Behavioral Statistics 37, 2012, doi 10.3102/1076998611411915), so it has a width without any change.
        """
        lost, gained = (self.lost + 1) / (self.total + 2), (self.gained + 1) / (self.total + 2)
        half = float(norm.ppf(0.975)) * ((lost + gained - (lost - gained) ** 2) / (self.total + 2)) ** 0.5
        return max(-1.0, lost - gained - half), min(1.0, lost - gained + half)

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: how likely chance alone parts the changed decisions so unevenly."""
        changed = self.lost + self.gained
        return 1.0 if not changed else float(binomtest(self.lost, changed).pvalue)


class Drop(NamedTuple):
    """One figure of both models, and what became of its pairs."""

    figure: str  # "accuracy", or "TAR at FMR 0.01"
    before: float
    after: float
    changed: Changed
    supported: bool  # see curve.Threshold


def drops(
    before: np.ndarray, after: np.ndarray, same: np.ndarray, folds: np.ndarray, targets: Sequence[float] = (1e-2, 1e-3)
) -> list[Drop]:
    """Compare the figures of two models' scores of the same pairs, each model at thresholds of its own.

    before, after: [P], NaN for failures. Accuracy counts held-out decisions, at thresholds chosen on the other folds;
    TAR counts genuine pairs accepted at the smallest threshold that keeps FMR <= target. Raises as `calibrate`.
    """
    same = np.asarray(same, dtype=bool)
    found = [_drop("accuracy", *(held_out(scores, same, folds) for scores in (before, after)))]
    for old, new in zip(calibrate(before, same, targets), calibrate(after, same, targets), strict=True):
        accepted = (scores[same] >= t.threshold for scores, t in ((before, old), (after, new)))  # a NaN never is
        found.append(_drop(f"TAR at FMR {old.target_fmr:g}", *accepted, supported=old.supported))
    return found


def change(before: np.ndarray, after: np.ndarray) -> Changed:
    """Count the decisions, right or not, bool [P] each, that differ."""
    return Changed(len(before), int((before & ~after).sum()), int((~before & after).sum()))


def held_out(scores: np.ndarray, same: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Say of each pair whether it is decided rightly at the threshold chosen on the other folds; bool [P]."""
    return decide(scores, same, folds).accepted == same


def _drop(figure: str, before: np.ndarray, after: np.ndarray, *, supported: bool = True) -> Drop:
    return Drop(figure, float(before.mean()), float(after.mean()), change(before, after), supported)
