"""Two ways to decide the same pairs -> whether their difference is more than chance."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest


class McNemar(NamedTuple):
    """Pairs that only one of two ways decides rightly, and how likely so uneven a split is by chance."""

    only_first: int
    only_second: int
    p: float  # two-sided, exact


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Compare right decisions (bool [P] each) on the same pairs; pairs are taken as independent.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947, in its exact
    form: of the pairs decided differently, each way wins one with probability 1/2. No such pair: p is 1.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    assert first.shape == second.shape, (first.shape, second.shape)
    wins, losses = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return McNemar(wins, losses, p)
