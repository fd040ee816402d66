"""All pairs the slow way: every score written down, and the functions that define the figures."""

from typing import NamedTuple

import numpy as np

from fastface.metrics.all_pairs import AllPairs
from fastface.metrics.curve import Threshold, area, calibrate, curve, equal_error, rates
from fastface.metrics.scores import pair_scores

TARGETS = (0.3, 1e-1, 1e-2, 1e-3, 1e-4)


class Slow(NamedTuple):
    points: list[Threshold]
    equal: tuple[float, float]  # EER and its threshold
    counts: tuple[int, int]  # false matches, false non-matches there
    auc: float
    failures: tuple[int, int]


def scores_of(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(rows), 1)
    return pair_scores(rows, first, second), labels[first] == labels[second]


def slow(rows: np.ndarray, labels: np.ndarray, targets: tuple[float, ...] = TARGETS) -> Slow:
    scores, same = scores_of(rows, labels)
    points = curve(scores, same)
    at_equal = rates(scores, same, equal_error(points)[1])
    failed = ~np.isfinite(scores)
    return Slow(
        calibrate(scores, same, targets),
        equal_error(points),
        (at_equal.false_matches, at_equal.false_non_matches),
        area(points),
        (int((failed & same).sum()), int((failed & ~same).sum())),
    )


def check(found: AllPairs, rows: np.ndarray, labels: np.ndarray, targets: tuple[float, ...] = TARGETS) -> None:
    expected = slow(rows, labels, targets)
    assert found.points == expected.points
    assert (found.eer, found.equal_threshold) == expected.equal
    assert (found.equal.false_matches, found.equal.false_non_matches) == expected.counts
    assert found.failures == expected.failures
    assert abs(found.auc.value - expected.auc) <= found.auc.error + 1e-15
    scores, same = scores_of(rows, labels)
    for kind, counts in zip((same, ~same), found.histogram, strict=True):
        assert counts.sum() == np.isfinite(scores[kind]).sum()
        # Bins hold rough scores: as many pairs as have a score up to an edge, give or take the error.
        some = np.arange(0, len(found.edges), 997)
        ranked = np.sort(scores[kind][np.isfinite(scores[kind])].astype(np.float64))
        below = np.append(0, np.cumsum(counts))[some]
        for shift, side in ((-found.score_error, "left"), (found.score_error, "right")):
            bound = np.searchsorted(ranked, found.edges[some] + shift, side)
            assert (below >= bound).all() if shift < 0 else (below <= bound).all()


def people(num: int = 150, identities: int = 20, dim: int = 24, noise: float = 1.0, seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, identities, num)
    centres = rng.standard_normal((identities, dim))
    return (centres[labels] + noise * rng.standard_normal((num, dim))).astype(np.float32), labels
