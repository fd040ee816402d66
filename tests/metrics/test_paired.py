"""McNemar's exact test is a sum of binomial probabilities over the pairs decided differently."""

import math

import numpy as np
import pytest

from fastface.metrics.paired import mcnemar


@pytest.mark.parametrize(("wins", "losses", "ties"), [(6, 0, 3), (5, 2, 0), (2, 9, 40), (4, 4, 1)])
def test_the_exact_probability(wins: int, losses: int, ties: int) -> None:
    first = np.array([True] * wins + [False] * losses + [True, False] * ties)
    second = np.array([False] * wins + [True] * losses + [True, False] * ties)
    total, least = wins + losses, min(wins, losses)
    tail = sum(math.comb(total, k) for k in range(least + 1)) / 2**total
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (wins, losses)
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(second, first) == (losses, wins, found.p)


def test_equal_decisions_differ_by_nothing() -> None:
    right = np.array([True, False, True])
    assert mcnemar(right, right) == (0, 0, 1.0)
