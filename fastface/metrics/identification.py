"""Searches of a gallery -> the figures of identification: ranks (CMC), and misses at a rate of false alarms.

The person of a mated search is enrolled, and should be found; a non-mated search should find nobody. Open set, ISO/IEC
19795-1: FPIR(T) is the share of non-mated searches with a candidate at or above T, FNIR(R, T) the share of mated ones
whose mate is outside the first R candidates or below T, and TPIR is 1 - FNIR.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastface.metrics.curve import Curve, calibrate, curve
from fastface.metrics.dependence import adjusted, count_errors

RANKS = (1, 5, 10, 20, 50)
TARGETS = (1e-1, 1e-2, 3e-3, 1e-3)  # 3e-3 heads the tables of NIST's FRTE 1:N


class Searches(NamedTuple):
    """What every search found. A search or an enrolment that failed has its mate at -inf: it is a miss."""

    mate: np.ndarray  # float32 [M], of mated searches: the mate's score, -inf where it is not among the candidates
    ahead: np.ndarray  # int64 [M], other identities above it
    tied: np.ndarray  # int64 [M], other identities of the very same score
    non_mated: np.ndarray  # float32 [K], of non-mated searches: the best candidate's score, -inf where there is none
    persons: np.ndarray  # int64 [M], who is searched for
    strangers: np.ndarray  # int64 [K], who is searched for in vain
    listed: int  # ranks up to here are known


class Identification(NamedTuple):
    """The figures, by key, and what stands behind them, ready for JSON."""

    metrics: dict[str, float]
    details: dict[str, Any]


def identification(
    searches: Searches, *, ranks: Sequence[int] = RANKS, targets: Sequence[float] = TARGETS, rank: int = 1
) -> Identification:
    """Compute rank-r rates, and TPIR at each target FPIR with the mate among the first `rank`.

    Ties: a rate counts a mate that is at or above all others (NIST); `_strict` one that is above them (InsightFace).
    Intervals are Wilson's for as many searches as say as much as these, in which persons recur: `dependence.adjusted`.
    Without non-mated searches there are no open-set figures.
    """
    if not len(searches.mate):
        raise ValueError("There is no mated search: no identity is enrolled and searched for as well.")
    if not np.isfinite(searches.mate).any():
        raise ValueError("No search found its mate: either every embedding failed, or the index finds nothing.")
    if not 1 <= rank <= searches.listed:
        raise ValueError(f"rank {rank} is not known: the lists have {searches.listed} candidates.")
    total, ordinary, strict = len(searches.mate), cmc(searches), cmc(searches, strict=True)
    metrics: dict[str, float] = {}
    by_rank = []
    for r in [r for r in ranks if r <= searches.listed]:
        hits, clear = int(ordinary[r - 1]), int(strict[r - 1])
        metrics |= {f"rank_{r}": hits / total, f"rank_{r}_strict": clear / total}
        interval = share_interval(open_set(searches, r)[0][:total] > -np.inf, searches.persons)
        by_rank.append({"rank": r, "hits": hits, "rate": hits / total, "interval": interval, "strict_hits": clear})
    points = []
    if np.isfinite(searches.non_mated).any():
        scores, mated = open_set(searches, rank)
        for t in calibrate(scores, mated, targets):
            accepted = scores >= t.threshold
            points.append(
                {
                    "target_fpir": t.target_fmr,
                    "threshold": t.threshold,
                    "fpir": t.fmr,
                    "fpir_interval": share_interval(accepted[~mated], searches.strangers),
                    "errors": t.errors,
                    "tpir": t.tar,
                    "fnir": 1 - t.tar,
                    "tpir_interval": share_interval(accepted[mated], searches.persons),
                    "supported": t.supported,
                }
            )
            metrics[f"tpir_{exponent(t.target_fmr)}"] = t.tar
    details = {
        "mated": total,
        "mated_without_a_score": int((~np.isfinite(searches.mate)).sum()),
        "non_mated": len(searches.non_mated),
        "non_mated_without_a_score": int((~np.isfinite(searches.non_mated)).sum()),
        "listed": searches.listed,
        "ties": "a mate at or above all others is first (NIST); strict: above all others",
        "ranks": by_rank,
        "tpir_at_fpir": {
            "rank": rank,
            "rule": "smallest T with FPIR(T) <= target, a score is a hit from T on",
            "points": points,
        },
    }
    return Identification(metrics, details)


def share_interval(hits: np.ndarray, persons: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the share of hits, bool [P], among searches of persons, int64 [P]."""
    who = np.unique(persons, return_inverse=True)[1]
    interval = adjusted(count_errors(np.stack([who, who]), hits, int(who.max()) + 1))
    return interval.low, interval.high


def cmc(searches: Searches, *, strict: bool = False) -> np.ndarray:
    """Count mated searches whose mate is within each rank, int64 [listed]; strict: ties lose."""
    before = searches.ahead + searches.tied if strict else searches.ahead
    found = np.isfinite(searches.mate) & (before < searches.listed)
    return np.cumsum(np.bincount(before[found], minlength=searches.listed))


def open_set(searches: Searches, rank: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return scores, mated first, and which are mated: an open-set search is a pair's test by another name.

    Where the mate is not among the first `rank` it counts at no threshold: -inf.
    """
    hits = np.where(searches.ahead < rank, searches.mate, np.float32(-np.inf))
    scores = np.concatenate([hits, searches.non_mated]).astype(np.float32)
    return scores, np.arange(len(scores)) < len(hits)


def det(searches: Searches, rank: int = 1) -> Curve:
    """Count hits and false alarms at every threshold: genuine are mated searches, impostors non-mated ones."""
    return curve(*open_set(searches, rank))


def exponent(rate: float) -> str:
    """Write a rate as keys have it: 1e-2, 3e-3."""
    return f"{rate:.0e}".replace("e-0", "e-") if rate == float(f"{rate:.0e}") else f"{rate:g}"
