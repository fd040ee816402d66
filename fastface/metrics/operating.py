"""Scored pairs -> AUC, EER and TAR at FAR, with intervals that allow for persons who recur."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastface.metrics.bootstrap import METHOD, bootstrap, num_replicates
from fastface.metrics.curve import (
    Curve,
    Threshold,
    area,
    calibrate,
    check_scores,
    curve,
    equal_error,
    hull_error,
    rates,
    tar_at,
)
from fastface.metrics.dependence import rate_interval
from fastface.metrics.intervals import CONFIDENCE, Interval

TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
RULE = "accept iff score >= T; T = smallest threshold with FMR(T) <= target, no interpolation"
FNMR_RULE = "1 - TAR: as NIST counts, accept at equality, failures are false non-matches"


def curve_figures(
    scores: np.ndarray,
    same: np.ndarray,
    targets: Sequence[float] = TARGETS,
    *,
    persons: np.ndarray | None = None,
    draw: bool = True,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Compute figures and details of scored pairs that need no folds; scores [N], same bool [N].

    persons int64 [2, N] numbers the persons of each pair from 0. With them, intervals of all figures come from drawing
    persons, unless `draw` is False; where no draw could change a TAR (all or none of the genuine pairs accepted), or
    persons are too few, from its count at the threshold as it is. AUC and EER then have none.
    """
    scores, same = check_scores(scores, same)
    points = curve(scores, same)
    auc, (eer, threshold), hull = area(points), equal_error(points), hull_error(points)
    metrics = {"auc": auc, "eer": eer}
    metrics |= zip(("tar_1e-2", "tar_1e-3"), (p.tar for p in calibrate(scores, same)), strict=True)

    def figures(curves: list[Curve]) -> list[float]:
        points = curves[0]
        tars = [tar_at(points, target) for target in targets]
        return [area(points), equal_error(points)[0], hull_error(points), *tars]

    replicates = num_replicates(len(same))
    drawn = None
    if persons is not None and draw:
        drawn = bootstrap(scores, same, persons, figures, replicates=replicates)
    found = []
    for k, point in enumerate(calibrate(scores, same, targets), start=3):
        missed = rate_interval(scores[same] < point.threshold, same[same], _of(persons, same))
        matched = rate_interval(scores[~same] >= point.threshold, same[~same], _of(persons, ~same))
        at_threshold = Interval(1 - missed.high, 1 - missed.low, missed.method)
        found.append(_point(point, _interval(drawn, k, point.tar) or at_threshold, at_threshold, matched))
    details = {
        "auc": {"value": auc, **_stated(_interval(drawn, 0, auc))},
        "eer": {
            "value": eer,
            **_stated(_interval(drawn, 1, eer)),
            "threshold": threshold,
            **rates(scores, same, threshold)._asdict(),
        },
        "eer_hull": {"rule": "on the convex hull of the ROC", "value": hull, **_stated(_interval(drawn, 2, hull))},
        "tar_at_far": {"rule": RULE, "fnmr_rule": FNMR_RULE, "points": found},
        "intervals": interval_facts(persons, 0 if drawn is None else replicates),
    }
    return metrics, details


def interval_facts(persons: np.ndarray | None, replicates: int) -> dict[str, Any]:
    """Say for JSON what stands behind intervals; 0 replicates: no persons were drawn."""
    return {
        "confidence": CONFIDENCE,
        "persons": None if persons is None else int(persons.max()) + 1,
        "bootstrap": {"method": METHOD, "replicates": replicates, "seed": 0} if replicates else None,
    }


def _of(persons: np.ndarray | None, kind: np.ndarray) -> np.ndarray | None:
    return None if persons is None else persons[:, kind]


def _interval(drawn: np.ndarray | None, k: int, value: float) -> Interval | None:
    """Give the k-th drawn interval; None where nothing was drawn, or no draw could change the value."""
    if drawn is None or value in (0.0, 1.0):
        return None
    return Interval(float(drawn[k, 0]), float(drawn[k, 1]), METHOD)


def _stated(interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {"interval": None, "interval_method": None}
    return {"interval": [interval.low, interval.high], "interval_method": interval.method}


def _point(point: Threshold, tar: Interval, at_threshold: Interval, fmr: Interval) -> dict[str, Any]:
    """List a TAR at FAR for JSON: first as found on other persons, with a threshold of their own; then at this one."""
    return {
        **point._asdict(),
        "errors": point.errors,
        "tar_interval": [tar.low, tar.high],
        "tar_interval_method": tar.method,
        "fnmr": 1 - point.tar,
        "fnmr_interval": [1 - tar.high, 1 - tar.low],
        "at_threshold": {
            "tar_interval": [at_threshold.low, at_threshold.high],
            "fmr_interval": [fmr.low, fmr.high],
            "method": fmr.method,
        },
    }
