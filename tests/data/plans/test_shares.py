"""Shares: floor or ceil of the exact share in every step, exact sums in the long run, running numbers as counted."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from fastface.data.plans.shares import Schedule, Shares, apportion

WEIGHTS = [[1.0], [1.0, 1.0], [1.0, 1.0, 1.0], [3.0, 1.0], [0.7, 0.2, 0.1], [1.0, 100.0], [0.123456, 0.9, 2.718281]]


@pytest.mark.parametrize("units", [1, 2, 7, 64])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_every_step_of_a_schedule_has_its_share_and_counts_on(weights: list[float], units: int) -> None:
    schedule = Schedule(weights, units)
    part, number = schedule.at(np.arange(300))
    seen: Counter[int] = Counter()
    for step in range(300):
        assert schedule.before(step).tolist() == [seen[p] for p in range(len(weights))]
        for p, n in zip(part[step].tolist(), number[step].tolist(), strict=True):
            assert n == seen[p]  # in the order of time, rows of a step from first to last
            seen[p] += 1
        for p, weight in enumerate(weights):
            quota = units * Fraction(weight) / sum(map(Fraction, weights))
            count = int((part[step] == p).sum())
            assert float(quota) - 1 - 1e-4 < count < float(quota) + 1 + 1e-4
    for p, weight in enumerate(weights):  # the remainder rotates: sums never stray far
        assert abs(seen[p] - 300 * units * weight / sum(weights)) < 4


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [3.0, 1.0], [0.7, 0.2, 0.1], [2.5, 1.0]], ids=str)
def test_ratios_of_small_integers_are_kept_exactly(weights: list[float]) -> None:
    schedule = Schedule(weights, 8)
    part, _ = schedule.at(np.arange(5 * schedule.steps, 6 * schedule.steps))
    counts = np.bincount(part.ravel())
    assert (counts / counts.sum()).tolist() == pytest.approx((np.array(weights) / sum(weights)).tolist(), abs=1e-15)


def test_a_schedule_goes_on_from_period_to_period() -> None:
    schedule = Schedule([2.0, 1.0], 5)
    steps = np.arange(schedule.steps - 2, schedule.steps + 2)
    part, number = schedule.at(steps)
    flat, numbers = part.ravel(), number.ravel()
    for which in (0, 1):
        own = numbers[flat == which]
        assert own.tolist() == list(range(own[0], own[0] + len(own)))
    assert schedule.at(np.array([10**12]))[1].min() > 10**12  # far steps cost nothing


@pytest.mark.parametrize(
    ("weights", "rows", "steps"),
    [
        ([1.0] * 3, 10, 7),
        ([1.0] * 50, 8, 13),
        ([5.0, 1.0, 0.3], 16, 40),
        ([1.0] * 7, 7, 1),
        (list(range(1, 30)), 9, 60),
    ],
    ids=["3 parts", "more parts than rows", "uneven", "one step", "29 weights"],
)
def test_every_step_and_epoch_of_shares_is_exact(weights: list[float], rows: int, steps: int) -> None:
    array = np.array(weights, float)
    shares = Shares(array, rows, steps, seed=4)
    quota = rows * array / array.sum()
    extra, total = Counter(), np.zeros(len(array))
    for epoch in range(20):
        part, number = shares.at(epoch, np.arange(steps))
        for row in part:
            counts = np.bincount(row, minlength=len(array))
            # an epoch's own share is its whole rows: floor or ceil of it, itself within one row of the quota
            assert (counts >= np.floor(np.floor(quota * steps) / steps)).all()
            assert (counts <= np.ceil(np.ceil(quota * steps) / steps)).all()
        counts = np.bincount(part.ravel(), minlength=len(array))
        assert (np.abs(counts - quota * steps) < 1).all()
        total += counts
        for p in range(len(array)):
            assert sorted(number[part == p].tolist()) == list(range(counts[p]))  # each number once
            assert counts[p] <= shares.most(np.array(p))
        extra.update(np.flatnonzero(counts > np.floor(quota * steps + 1e-9)).tolist())
    assert (np.abs(total / 20 - quota * steps) < 0.6).all()  # who has one more differs from epoch to epoch
    if len(array) == 50:
        assert len(extra) > 25


def test_every_run_of_rows_has_its_share() -> None:
    """A process has a run of rows: it is not to see spoofs only."""
    for parts in (2, 3, 5):
        part, _ = Shares(np.ones(parts), 64, 100, seed=0).at(0, np.arange(100))
        for ranks in (2, 4, 8):
            for piece in np.split(part, ranks, axis=1):
                for row in piece:
                    counts = np.bincount(row, minlength=parts)
                    assert np.abs(counts - 64 / ranks / parts).max() < 2.5


def test_apportion_gives_the_largest_remainders_one_more() -> None:
    assert apportion(np.array([0.5, 0.3, 0.2]), 9).tolist() == [4, 3, 2]  # quotas 4.5, 2.7, 1.8
    assert apportion(np.array([1.0, 1.0, 1.0]), 10).tolist() == [4, 3, 3]
    assert apportion(np.array([0.1, 0.2, 0.7]), 10).tolist() == [1, 2, 7]  # 10 * 0.7 / 1 is not quite 7


def test_a_weight_that_would_never_have_its_turn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight 1e-07 of \[1\.0, 1e-07\] is less than one row in"):
        Schedule([1.0, 1e-7], 8)
    assert np.bincount(Schedule([1e-9, 3e-9], 8).at(np.arange(100))[0].ravel()).tolist() == [200, 600]
