"""Presentations of persons who recur -> 95 % intervals of their error rates and of the figures that rest on them.

A face that one model takes for a mask is taken for one in each of its pictures: a thousand frames of ten persons say
less than a thousand persons. Rates at a threshold have Wilson's interval with the effective number of presentations
(`dependence`); figures of several rates have the percentiles of double-or-nothing draws of persons (`bootstrap`).
"""

from collections.abc import Iterable

import numpy as np

from fastface.metrics.attack_curve import count_presentations, figures_at, rank
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


def draw_figures(presented: Presentations, threshold: float | None, *, replicates: int, seed: int = 0) -> np.ndarray:
    """Return the figures of each draw in which a person counts twice or not at all, float64 [replicates, F].

    In the order of `figures_at`; NaN where a draw lacks live faces or attacks. A threshold that is None is each draw's
    own, as it is that of the presentations. Of the same persons in the same order the draws are the same, so those of
    two models may be subtracted.
    """
    ranked = rank(presented)
    order = np.argsort(-presented.scores, kind="stable")
    persons = np.arange(len(order)) if presented.persons is None else presented.persons
    rng = np.random.Generator(np.random.Philox(seed))
    num, persons = int(persons.max()) + 1, persons[order]
    found: list[list[float] | None] = []
    for _ in range(replicates):
        kept = rng.integers(0, 2, num, dtype=np.int8).astype(bool)[persons]
        scores, species = ranked.scores[kept], ranked.species[kept]
        if (species >= 0).any() and (species < 0).any() and np.isfinite(scores[0]):
            points = count_presentations(ranked._replace(scores=scores, species=species))
            found.append(list(figures_at(points, threshold).values()))
        else:
            found.append(None)
    width = next((len(one) for one in found if one is not None), 0)
    return np.array([[np.nan] * width if one is None else one for one in found])


def limits_of(draws: np.ndarray, names: Iterable[str]) -> dict[str, list[float]] | None:
    """Return [low, high] of each figure by name, draws as `draw_figures` gives them.

    None where more than a tenth of the draws lack a kind: there are too few persons.
    """
    usable = ~np.isnan(draws).any(axis=1) if draws.shape[1] else np.zeros(len(draws), dtype=bool)
    if usable.sum() < LEAST_USABLE * len(draws):
        return None
    tail = (1 - CONFIDENCE) / 2
    return dict(zip(names, np.quantile(draws[usable], [tail, 1 - tail], axis=0).T.tolist(), strict=True))
