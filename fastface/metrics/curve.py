"""Scores -> error rates: the exact curve of accepted pairs over every threshold, and what is read from it.

A pair is accepted iff score >= threshold. A score that is not finite is a failure to embed: it is ranked
below all others and accepted at no threshold, so a genuine failure is a false non-match and an impostor
failure never a false match (the rule of NIST's face recognition tests). Nothing here interpolates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RULE_OF_THIRTY = 30  # fewer expected errors leave more than +-30 % at 90 % confidence (Doddington's rule of 30)


class Curve(NamedTuple):
    """Pairs accepted at each threshold: at first none, then down through all distinct scores."""

    thresholds: np.ndarray  # float64 [K+1], descending
    genuine: np.ndarray  # int64 [K+1], genuine pairs accepted
    impostors: np.ndarray  # int64 [K+1], impostor pairs accepted
    num_genuine: int
    num_impostors: int

    @property
    def tar(self) -> np.ndarray:
        """True accept rate at each threshold, float64 [K+1]."""
        return self.genuine / self.num_genuine

    @property
    def fmr(self) -> np.ndarray:
        """False match rate (FAR of the pairs) at each threshold, float64 [K+1]."""
        return self.impostors / self.num_impostors


class Threshold(NamedTuple):
    """An operating point: the smallest threshold whose false match rate is at most `target_fmr`."""

    target_fmr: float
    threshold: float
    fmr: float  # reached, at most the target
    tar: float  # genuine pairs accepted there
    genuine: int  # pairs
    impostors: int  # pairs
    supported: bool  # at least 30 impostor errors are expected at the target

    @property
    def errors(self) -> int:
        """Impostor pairs accepted."""
        return round(self.fmr * self.impostors)


class Rates(NamedTuple):
    """Both error rates at one threshold, with the counts behind them."""

    fmr: float
    fnmr: float
    false_matches: int
    false_non_matches: int


def check_scores(scores: np.ndarray, same: np.ndarray, *, one_kind: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return scores as they are but with every failure at -inf, and same as bool; both [N].

    Raises ValueError where shapes differ, no score is finite, or (unless `one_kind`) a kind of pair is missing.
    """
    scores, same = np.asarray(scores), np.asarray(same)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(f"scores {scores.shape} and same {same.shape} must be one list each, of equal length.")
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if same.dtype != bool and not np.isin(same, (0, 1)).all():
        raise ValueError("same must hold only True and False (or 1 and 0).")
    same = same.astype(bool)
    if not len(same) or (not one_kind and (same.all() or not same.any())):
        kind, missing = ("genuine", "impostor") if same.any() else ("impostor", "genuine")
        what = f"all {len(same)} pairs are {kind}" if len(same) else "there are no pairs"
        raise ValueError(f"Verification needs genuine and impostor pairs, but {what}; add {missing} pairs.")
    scores = np.where(np.isfinite(scores), scores, scores.dtype.type(-np.inf))
    if not np.isfinite(scores).any():
        raise ValueError("No pair has a finite score: every embedding failed (zero or not finite); check the model.")
    return scores, same


def curve(scores: np.ndarray, same: np.ndarray) -> Curve:
    """Count accepted pairs at every distinct score, and at one threshold above them all."""
    scores, same = check_scores(scores, same)
    order = np.argsort(-scores, kind="stable")
    return count_accepted(scores[order], same[order])


def count_accepted(ranked: np.ndarray, same: np.ndarray) -> Curve:
    """Count as `curve` does, from scores [N] in descending order, failures (-inf) last, and same bool [N]."""
    hits = np.cumsum(same)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True) & np.isfinite(ranked))
    above = np.nextafter(ranked[0], ranked.dtype.type(np.inf))
    return Curve(
        thresholds=np.concatenate([[above], ranked[last]]).astype(np.float64),
        genuine=np.concatenate([[0], hits[last]]).astype(np.int64),
        impostors=np.concatenate([[0], last + 1 - hits[last]]).astype(np.int64),
        num_genuine=int(hits[-1]),
        num_impostors=len(same) - int(hits[-1]),
    )


def tar_at(points: Curve, target: float) -> float:
    """Return the TAR at the smallest threshold with FMR <= target, as `calibrate` finds it."""
    allowed = allowed_errors(target, points.num_impostors)
    return float(points.genuine[np.searchsorted(points.impostors, allowed, side="right") - 1] / points.num_genuine)


def area(points: Curve) -> float:
    """Return the area under the ROC: the share of (genuine, impostor) couples in order, ties half."""
    # The last step takes in the failures, tied at the bottom.
    genuine = np.append(points.genuine, points.num_genuine)
    impostors = np.append(points.impostors, points.num_impostors)
    # Twice the impostors outranked at each step: those strictly below, plus half of those tied.
    outranked = 2 * points.num_impostors - impostors[1:] - impostors[:-1]
    doubled = int(np.sum(np.diff(genuine) * outranked))
    return doubled / (2 * points.num_genuine * points.num_impostors)


def equal_error(points: Curve) -> tuple[float, float]:
    """Return (EER, threshold): the mean of FNMR and FMR where closest, the highest such threshold."""
    misses = points.num_genuine - points.genuine
    gap = np.abs(misses * points.num_impostors - points.impostors * points.num_genuine)  # exact, in integers
    best = int(np.argmin(gap))
    eer = (misses[best] / points.num_genuine + points.impostors[best] / points.num_impostors) / 2
    return float(eer), float(points.thresholds[best])


def hull_error(points: Curve) -> float:
    """Return the EER of the ROC's convex hull: of what choosing between thresholds at random could reach.

    Unlike `equal_error` it does not depend on where the thresholds happen to lie (ROCCH-EER, as in bob.measure).
    """
    x = np.append(points.impostors, points.num_impostors)  # the last step takes in the failures
    y = np.append(points.genuine, points.num_genuine)
    turn = np.append(True, (np.diff(y[:-1]) > 0) & (np.diff(x[1:]) > 0))  # a corner: up before it, to the right after
    corners = [*zip(x[:-1][turn].tolist(), y[:-1][turn].tolist(), strict=True), (int(x[-1]), int(y[-1]))]
    hull: list[tuple[int, int]] = [(0, 0)]
    for corner in corners:
        while len(hull) > 1 and _turns_left(hull[-2], hull[-1], corner):
            hull.pop()
        if corner != hull[-1]:
            hull.append(corner)
    gaps = [(1 - b / points.num_genuine) - a / points.num_impostors for a, b in hull]  # FNMR - FMR, falling
    k = next(k for k, gap in enumerate(gaps) if gap <= 0)
    share = gaps[k - 1] / (gaps[k - 1] - gaps[k])
    return (hull[k - 1][0] + share * (hull[k][0] - hull[k - 1][0])) / points.num_impostors


def _turns_left(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """Say whether the way a, b, c leaves b on or below the line from a to c."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) >= 0


def rates(scores: np.ndarray, same: np.ndarray, threshold: float) -> Rates:
    """Return FMR and FNMR at a threshold fixed beforehand."""
    scores, same = check_scores(scores, same)
    accepted = scores.astype(np.float64) >= threshold
    accepted &= np.isfinite(scores)
    wrong, missed = int((accepted & ~same).sum()), int((~accepted & same).sum())
    return Rates(wrong / int((~same).sum()), missed / int(same.sum()), wrong, missed)


def calibrate(scores: np.ndarray, same: np.ndarray, targets: Sequence[float] = (1e-2, 1e-3)) -> list[Threshold]:
    """Return for each target the smallest threshold T with FMR(T) <= target, and the TAR there.

    With impostor scores v in descending order and k = floor(target * M), T is the number just above v[k]
    (counted from 0) in the precision of the scores, so float32 scores give a T that survives being stored as
    float32. Targets outside (0, 1) raise ValueError.
    """
    scores, same = check_scores(scores, same)
    impostors = -np.sort(-scores[~same])
    genuine = scores[same]
    found = []
    for target in targets:
        if not 0 < target < 1:
            raise ValueError(f"A target false match rate lies between 0 and 1, not {target}.")
        highest = impostors[allowed_errors(target, len(impostors))]
        if np.isfinite(highest):
            threshold = np.nextafter(highest, highest.dtype.type(np.inf))
        else:  # the impostors beyond the target are failures: whatever could be scored may be accepted
            threshold = scores[np.isfinite(scores)].min()
        errors, hits = int((impostors >= threshold).sum()), int((genuine >= threshold).sum())
        found.append(
            Threshold(
                target_fmr=float(target),
                threshold=float(threshold),
                fmr=errors / len(impostors),
                tar=hits / len(genuine),
                genuine=len(genuine),
                impostors=len(impostors),
                supported=allowed_errors(target, len(impostors)) >= RULE_OF_THIRTY,
            )
        )
    return found


def allowed_errors(target: float, num_impostors: int) -> int:
    """Return the most errors whose rate is at most target; 0.29 * 100 is below 29, yet 29 are allowed."""
    errors = int(target * num_impostors)
    return errors + 1 if (errors + 1) / num_impostors <= target else errors
