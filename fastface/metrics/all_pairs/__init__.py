"""Embeddings -> verification figures over all their pairs, counted exactly, billions of them and more.

Matrix products give rough scores of all pairs, tile by tile; a bound says how rough (products.py). Rough scores are
counted in bins. What a threshold depends on, the pairs near it, is scored anew by the definition and counted key by key
(tally.py), so that every count at a threshold is that of all scores written down and sorted, at the price of some more
than the matrix products. Counts of pairs add up, whoever counted them: any number of threads or processes, before and
after an interrupt, gives the same integers. Memory does not grow with the number of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastface import dist
from fastface.metrics.all_pairs.engine import Engine
from fastface.metrics.all_pairs.kernels import kernels
from fastface.metrics.all_pairs.keys import BINS, PER_ONE, edge, score_of
from fastface.metrics.all_pairs.panels import digest, scan
from fastface.metrics.all_pairs.products import PRECISIONS, Product, half_of, product
from fastface.metrics.all_pairs.search import Search
from fastface.metrics.all_pairs.state import State
from fastface.metrics.curve import RULE_OF_THIRTY, Rates, Threshold, allowed_errors
from fastface.metrics.verification import TARGETS
from fastface.spelling import nearest

__all__ = ["AllPairs", "Area", "all_pairs"]


class Area(NamedTuple):
    """The area under the ROC by bins, and how far the exact one may be from it."""

    value: float
    error: float


class AllPairs(NamedTuple):
    """Figures of all pairs; counts and thresholds are exact, as `curve`, `calibrate` and `equal_error` define them."""

    num_genuine: int
    num_impostors: int
    failures: tuple[int, int]  # genuine and impostor pairs of an embedding that is zero or not finite
    failed_rows: int
    points: list[Threshold]  # in the order of the targets
    eer: float
    equal: Rates  # at the threshold of equal rates
    equal_threshold: float
    auc: Area
    edges: np.ndarray  # float64 [B + 1]: scores at which bins begin
    histogram: np.ndarray  # int64 [2, B]: genuine, impostor pairs; a score may be a rounding error from its bin
    score_error: float  # that error's bound
    passes: int  # over all pairs
    rescored: int  # pairs scored in float64, all passes together


def all_pairs(
    rows: np.ndarray,
    labels: np.ndarray,
    targets: Sequence[float] = TARGETS,
    *,
    precision: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    memory_mb: int = 1_024,
    state: Path | None = None,
    progress: str | None = None,
    compiled: bool | None = None,
) -> AllPairs:
    """Compare all N (N - 1) / 2 pairs; the same on every process of a run, which share the work.

    rows float32 or float16 [N, D], an array or a memory map, of any length; a pair's score is the float64 dot product
    of the unit vectors, rounded to float32, and a row that is zero or not finite is a failure. labels int [N].
    precision "half" multiplies in float16 on CUDA and in bfloat16 on a CPU, with the same integers as "float32" and an
    AUC less certain. memory_mb bounds the normalised rows that are kept. With a `state` folder, shared by all
    processes, counts are kept every minute, and the same call goes on where it was. `progress` labels a bar on stderr,
    shown on a terminal only. compiled False does without numba. Raises ValueError for input that has no such figures.
    """
    if precision not in PRECISIONS:
        known = " and ".join(PRECISIONS)
        raise ValueError(f"Unknown precision {precision!r}{nearest(precision, PRECISIONS)}. Known: {known}.")
    for target in targets:
        if not 0 < target < 1:
            raise ValueError(f"A target false match rate lies between 0 and 1, not {target}.")
    where, half = torch.device(device), precision == "half"
    usable = scan(rows, labels, where, half=half)
    multiply = product(half_of(where) if half else torch.float32, rows.shape[1], usable.residual)
    kept = None
    if state is not None:
        about = {"embeddings": digest(rows, labels), "targets": list(targets), "product": str(multiply.kind)}
        kept = State(state, about) if dist.is_main() else None
        dist.barrier()
        kept = kept or State(state, about)
    engine = Engine(
        usable,
        multiply,
        device=where,
        threads=threads,
        memory_mb=memory_mb,
        loops=None if compiled is False else kernels(),
        state=kept,
        progress=progress,
    )
    genuine, impostors, finite = usable.genuine, usable.impostors, usable.finite

    def crossed(accepted: int, wrong: int) -> bool:
        return (genuine - accepted) * impostors < wrong * genuine

    lowest = Search(lambda g, i: g + i >= sum(finite))
    equal = Search(crossed) if crossed(*finite) else lowest
    allowed = [allowed_errors(target, impostors) for target in targets]
    highest = {k: Search(lambda g, i, k=k: i > k) if k < finite[1] else lowest for k in allowed}
    engine.settle({id(search): search for search in (equal, *highest.values())}.values())
    points = [
        _point(target, k, highest[k], highest[k] is lowest, (genuine, impostors))
        for target, k in zip(targets, allowed, strict=True)
    ]
    threshold, accepted = _equal(equal, equal is lowest, (genuine, impostors), engine)
    missed, wrong = genuine - accepted[0], accepted[1]
    return AllPairs(
        num_genuine=genuine,
        num_impostors=impostors,
        failures=(genuine - finite[0], impostors - finite[1]),
        failed_rows=len(rows) - len(usable.order),
        points=points,
        eer=(missed / genuine + wrong / impostors) / 2,
        equal=Rates(wrong / impostors, missed / genuine, wrong, missed),
        equal_threshold=threshold,
        auc=_area(engine.coarse, (genuine - finite[0], impostors - finite[1]), multiply),
        edges=np.array([edge(number) for number in range(BINS + 1)]),
        histogram=engine.coarse,
        score_error=multiply.error(),
        passes=len(engine.passes),
        rescored=sum(found.rescored for found in engine.passes),
    )


def _point(target: float, allowed: int, search: Search, all_finite: bool, totals: tuple[int, int]) -> Threshold:
    """Read the operating point off the key of the first impostor too many: the threshold is the number above it."""
    assert search.accepted is not None
    assert search.above is not None
    hits, errors = search.accepted if all_finite else search.above
    return Threshold(
        target_fmr=float(target),
        threshold=score_of(search.key if all_finite else search.key + 1),
        fmr=errors / totals[1],
        tar=hits / totals[0],
        genuine=totals[0],
        impostors=totals[1],
        supported=allowed >= RULE_OF_THIRTY,
    )


def _equal(search: Search, never: bool, totals: tuple[int, int], engine: Engine) -> tuple[float, tuple[int, int]]:
    """Choose between the score at which FMR exceeds FNMR and the one above it: the closer, or the higher."""
    assert search.accepted is not None
    assert search.above is not None
    below, above = (
        abs((totals[0] - genuine) * totals[1] - wrong * totals[0]) for genuine, wrong in (search.accepted, search.above)
    )
    if never or below < above:
        return score_of(search.key), search.accepted
    number = sum(search.above)
    if not number:
        return score_of(search.key + 1), (0, 0)
    higher = Search(lambda g, i: g + i >= number, low=search.key + 1)
    engine.settle([higher])
    return score_of(higher.key), search.above


def _area(coarse: np.ndarray, failures: tuple[int, int], multiply: Product) -> Area:
    """Count the couples of a genuine and an impostor pair that are in order; those of near bins may be in any."""
    genuine, impostors = coarse.tolist()
    below = [0, *np.cumsum(coarse[1]).tolist()]  # impostors in lower bins
    apart = 1 + math.ceil(2 * multiply.error() * PER_ONE)
    low = high = middle = 0
    for number, count in enumerate(genuine):
        if count:
            low += count * below[max(number + 1 - apart, 0)]
            high += count * below[min(number + apart, BINS)]
            middle += count * (2 * below[number] + impostors[number])
    all_genuine, all_impostors = sum(genuine) + failures[0], below[-1] + failures[1]
    couples = all_genuine * all_impostors
    certain = 2 * sum(genuine) * failures[1] + failures[0] * failures[1]  # twice
    value = (middle + certain) / (2 * couples)
    return Area(value, max((2 * high - middle) / (2 * couples), (middle - 2 * low) / (2 * couples)))
