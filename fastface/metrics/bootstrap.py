"""Scored pairs and their persons -> intervals of any figure of the curve, by drawing persons.

The double-or-nothing bootstrap (Fogliato et al., arXiv 2306.01198; Owen and Eckles, arXiv 1106.2125): in each draw a
person counts twice or not at all, and a pair counts where all its persons do. Weights that are all alike change no
rate, so a draw is the curve of the pairs that are left.
"""

from collections.abc import Callable

import numpy as np

from fastface.metrics.curve import Curve, check_scores, count_accepted
from fastface.metrics.intervals import CONFIDENCE

MOST_REPLICATES, FEWEST_REPLICATES = 1_000, 200
PAIRS_DRAWN = 200_000_000  # in all replicates: about a minute
METHOD = "double-or-nothing bootstrap over persons"
LEAST_USABLE = 0.9  # of the draws: where more of them lack a kind of pair there are too few persons


def num_replicates(num_pairs: int) -> int:
    """Return how many draws a list of pairs gets: 1,000, fewer beyond 200,000 pairs, 200 from a million on."""
    return min(MOST_REPLICATES, max(FEWEST_REPLICATES, PAIRS_DRAWN // num_pairs))


def bootstrap(
    scores: np.ndarray,
    same: np.ndarray,
    persons: np.ndarray,
    figures: Callable[[list[Curve]], list[float]],
    *,
    replicates: int = MOST_REPLICATES,
    seed: int = 0,
) -> np.ndarray | None:
    """Return the 95 % percentile interval of each figure, float64 [F, 2]; None where persons are too few.

    scores [P], or [M, P] of M models that are compared on the same pairs; `figures` takes the curves of all models.
    persons int64 [2, P] numbers the persons of each pair from 0. The draws depend on seed and number of persons only
    (Philox).
    """
    models = np.atleast_2d(scores)
    ranked = [_rank(row, same, persons) for row in models]
    rng = np.random.Generator(np.random.Philox(seed))
    num, found = int(persons.max()) + 1, []
    for _ in range(replicates):
        kept = rng.integers(0, 2, num, dtype=np.int8).astype(bool)
        curves = []
        for row, hits, first, second in ranked:
            left = np.flatnonzero(kept[first] & kept[second])
            genuine = hits[left]
            if not genuine.any() or genuine.all() or not np.isfinite(row[left[0]]):
                break
            curves.append(count_accepted(row[left], genuine))
        if len(curves) == len(models):
            found.append(figures(curves))
    if len(found) < LEAST_USABLE * replicates:
        return None
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(np.array(found), [tail, 1 - tail], axis=0).T


def _rank(
    scores: np.ndarray, same: np.ndarray, persons: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sort pairs by descending score: scores, same, and the two persons, each [P]."""
    scores, same = check_scores(scores, same)
    order = np.argsort(-scores, kind="stable")
    return scores[order], same[order], persons[0][order], persons[1][order]
