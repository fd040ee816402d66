"""Presentations of persons who recur -> 95 % intervals of their error rates and of the figures that rest on them.

A face that one model takes for a mask is taken for one in each of its pictures: a thousand frames of ten persons say
less than a thousand persons. Rates at a threshold have Wilson's interval with the effective number of presentations
(`dependence`); figures of several rates have the percentiles of double-or-nothing draws of persons (`bootstrap`).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from fastface.metrics.attack_curve import AttackCurve, count_presentations, figures_at, rank
from fastface.metrics.bootstrap import LEAST_USABLE
from fastface.metrics.dependence import rate_interval
from fastface.metrics.intervals import CONFIDENCE, Interval, wilson
from fastface.metrics.presentations import Presentations

INDEPENDENT = "Wilson, presentations taken as independent"
DEPENDENT = "Wilson, effective number of presentations"
BY_PERSON = "Wilson, each person counted once"
BY_PERSONS = "double-or-nothing bootstrap over persons"
BY_PRESENTATIONS = "double-or-nothing bootstrap over presentations, taken as independent"


def share_interval(wrong: np.ndarray, persons: np.ndarray | None) -> Interval:
    """Return the interval of the share of wrong presentations, bool [P]; persons int64 [P] from 0, None if unknown.

    Where all or none are wrong nothing tells how alike a person's presentations are: each person then counts once,
    as if they were all the same.
    """
    if persons is None or len(np.unique(persons)) == len(persons):
        return Interval(*wilson(int(wrong.sum()), len(wrong)), INDEPENDENT)
    if wrong.all() or not wrong.any():
        num = len(np.unique(persons))
        return Interval(*wilson(num if wrong.all() else 0, num), BY_PERSON)
    found = rate_interval(wrong, np.ones(len(wrong), dtype=bool), np.tile(persons, (2, 1)))
    return found._replace(method=DEPENDENT)


def draw_figures(
    presented: Presentations, threshold: float | None, *, replicates: int, seed: int = 0
) -> dict[str, list[float]] | None:
    """Return [low, high] of each figure over draws in which a person counts twice or not at all.

    None where more than a tenth of the draws lack live faces or attacks: there are too few persons. A threshold that
    is None is each draw's own, as it is that of the presentations.
    """
    found = [figures_at(points, threshold) for (points,) in _draws([presented], replicates, seed)]
    return _limits(found, replicates)


def draw_differences(
    first: Presentations,
    second: Presentations,
    thresholds: tuple[float | None, float | None],
    *,
    replicates: int,
    seed: int = 0,
) -> dict[str, list[float]] | None:
    """Return [low, high] of each figure of the first minus that of the second model, drawn together; None as above.

    Both have the same presentations in the same order, so what makes a person hard for both cancels.
    """
    found = []
    for curves in _draws([first, second], replicates, seed):
        a, b = (figures_at(points, threshold) for points, threshold in zip(curves, thresholds, strict=True))
        found.append({name: a[name] - b[name] for name in a})
    return _limits(found, replicates)


def _draws(models: Sequence[Presentations], replicates: int, seed: int) -> Iterator[list[AttackCurve]]:
    """Yield the models' curves over the same persons, of each draw that leaves live faces and attacks to all."""
    rng = np.random.Generator(np.random.Philox(seed))
    ranked = []
    for presented in models:
        order = np.argsort(-presented.scores, kind="stable")
        persons = np.arange(len(order)) if presented.persons is None else presented.persons
        ranked.append((rank(presented), persons[order], int(persons.max()) + 1))
    for _ in range(replicates):
        kept = rng.integers(0, 2, ranked[0][2], dtype=np.int8).astype(bool)
        parts = [
            one._replace(scores=one.scores[there], species=one.species[there])
            for one, persons, _ in ranked
            for there in (kept[persons],)
        ]
        if all((p.species >= 0).any() and (p.species < 0).any() and np.isfinite(p.scores[0]) for p in parts):
            yield [count_presentations(part) for part in parts]


def _limits(found: list[dict[str, float]], replicates: int) -> dict[str, list[float]] | None:
    if len(found) < LEAST_USABLE * replicates:
        return None
    tail = (1 - CONFIDENCE) / 2
    values = np.array([list(one.values()) for one in found])
    return dict(zip(found[0], np.quantile(values, [tail, 1 - tail], axis=0).T.tolist(), strict=True))
