"""Who is seen in which pair -> how much the pairs say: variances and intervals for pairs that share persons.

A person who is hard to recognise is wrong in many pairs at once, so a thousand pairs of ten persons say less than
a thousand of a thousand. After Fogliato, Patil and Perona, Confidence Intervals for Error Rates in Matching Tasks
(arXiv 2306.01198): Wilson's interval with the number of independent pairs that would have the same variance. All
that is kept of the pairs are sums for each person and three over the couples of persons.
"""

from typing import NamedTuple

import numpy as np

from fastface.metrics.intervals import DEPENDENT, Interval, independent, wilson


class Errors(NamedTuple):
    """Errors among comparisons of one kind, by the persons that take part."""

    comparisons: np.ndarray  # int64 [persons], those that show the person
    errors: np.ndarray  # int64 [persons], how many of them are wrong
    total: int  # comparisons
    wrong: int
    # Over couples of persons (of a genuine comparison: the person alone), m their comparisons and e their errors:
    ee: int  # sum of e * e
    em: int  # sum of e * m
    mm: int  # sum of m * m

    @property
    def rate(self) -> float:
        return self.wrong / self.total

    @property
    def squares(self) -> float:
        """Sum over couples of (e - m * rate) squared: how far they are from the common rate."""
        return max(0.0, self.ee - 2 * self.rate * self.em + self.rate * self.rate * self.mm)

    @property
    def excess(self) -> np.ndarray:
        """Errors of each person beyond the common rate, float64 [persons]."""
        return self.errors - self.comparisons * self.rate


def count_errors(persons: np.ndarray, wrong: np.ndarray, num_persons: int) -> Errors:
    """Count errors of listed comparisons; persons int64 [2, P] from 0 to num_persons - 1, wrong bool [P]."""
    low, high = persons.min(axis=0), persons.max(axis=0)
    couple = np.unique(low * num_persons + high, return_inverse=True)[1]
    made, missed = np.bincount(couple), np.bincount(couple, weights=wrong).astype(np.int64)
    other = low != high  # who is compared with himself counts once
    comparisons = np.bincount(low, minlength=num_persons) + np.bincount(high[other], minlength=num_persons)
    errors = np.bincount(low[wrong], minlength=num_persons)
    errors += np.bincount(high[wrong & other], minlength=num_persons)
    ee, em, mm = (int((x * y).sum()) for x, y in ((missed, missed), (missed, made), (made, made)))
    return Errors(comparisons, errors, len(wrong), int(wrong.sum()), ee, em, mm)


def variance(*kinds: Errors) -> float:
    """Return the variance of the share of errors in comparisons of one or both kinds.

    Sums, over couples of comparisons that share a person, the products of their deviations from the mean of their
    kind. For genuine comparisons that is sum_i (e_i - m_i FNMR)^2 / M^2, for impostor ones
    [2 sum_ij y_ij^2 + 4 max(sum_i sum_j!=k y_ij y_ik, 0)] / (sum_ij m_ij)^2 over ordered i, j (the paper's
    estimators); together, what is shared between kinds joins in.
    """
    total = sum(kind.total for kind in kinds)
    alone = sum(kind.squares for kind in kinds)
    own = sum(kind.squares * _people(kind) for kind in kinds)  # each couple, once for each of its persons
    together = float(np.square(np.sum([kind.excess for kind in kinds], axis=0)).sum())
    return (alone + max(together - own, 0.0)) / total**2


def _people(kind: Errors) -> int:
    """Return 1 for genuine comparisons, which show one person, 2 for impostor ones."""
    seen = int(kind.comparisons.sum())
    assert seen in (kind.total, 2 * kind.total), "comparisons of both kinds in one count"
    return seen // kind.total


def adjusted(*kinds: Errors) -> Interval:
    """Return Wilson's interval of the share of errors, with the effective number of comparisons.

    That number is mu (1 - mu) / variance, and at most the number there is. Where all or none are wrong the variance
    says nothing, and all comparisons count.
    """
    wrong, total = sum(kind.wrong for kind in kinds), sum(kind.total for kind in kinds)
    rate, spread = wrong / total, variance(*kinds)
    effective = min(rate * (1 - rate) / spread, total) if spread > 0 else total
    return Interval(*wilson(min(rate * effective, effective), effective), DEPENDENT)


def rate_interval(wrong: np.ndarray, same: np.ndarray, persons: np.ndarray | None) -> Interval:
    """Return the interval of the share of wrong pairs, both bool [P]; persons int64 [2, P], None where unknown."""
    if persons is None:
        return independent(int(wrong.sum()), len(wrong))
    num = int(persons.max()) + 1
    kinds = [count_errors(persons[:, kind], wrong[kind], num) for kind in (same, ~same) if kind.any()]
    return adjusted(*kinds)


def persons_of_pairs(first: np.ndarray, second: np.ndarray, same: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Return the persons of the pairs from 0 on, int64 [2, P], or None with the reason why they cannot be known.

    first and second [P] number the person of each picture, as its folder or label says. A picture of unknown
    person has a number of its own, so genuine pairs of two persons show that they are not known.
    """
    numbers, persons = np.unique(np.stack([first, second]), return_inverse=True)
    persons = persons.reshape(2, -1)
    for kind, what in ((same, "genuine pairs show two persons"), (~same, "impostor pairs show one person")):
        contradicting = int(((persons[0] == persons[1]) != same)[kind].sum())
        if contradicting:
            return None, f"{contradicting:,} {what} by the names or labels of their images"
    if not same.any() and len(numbers) == persons.size:
        return None, "each picture is a person of its own by name or label"
    return persons.astype(np.int64), ""
