"""Windowed: every record once an epoch, and never one of a shard that was not announced."""

from __future__ import annotations

import numpy as np
import pytest

from fastface.data.plan import STREAMS, hash_numbers
from fastface.data.plans import Windowed
from tests.data.fake_index import fake_index
from tests.data.plain import feistel


def index_of(size: int, shards: int):
    return fake_index(np.zeros(size, int), shards=shards)


CASES = [(300, 7, 2, 32), (300, 7, 3, 10), (100, 20, 1, 32), (103, 5, 9, 8), (64, 1, 1, 64), (50, 10, 4, 1)]


@pytest.mark.parametrize(("size", "shards", "window", "batch"), CASES)
def test_an_epoch_goes_window_by_window_and_sees_every_record_once(
    size: int, shards: int, window: int, batch: int
) -> None:
    index = index_of(size, shards)
    plan = Windowed(index, window, batch, seed=1)
    assert plan.steps_per_epoch == size // batch
    orders = []
    for epoch in range(3):
        first = epoch * plan.steps_per_epoch
        records = np.concatenate([plan[first + n].records for n in range(plan.steps_per_epoch)])
        assert len(set(records.tolist())) == len(records) == plan.steps_per_epoch * batch
        window_of = {shard: place // window for place, shard in enumerate(plan._order(epoch).shards.tolist())}
        windows = [window_of[shard] for shard in index.shard[records].tolist()]
        assert windows == sorted(windows)  # none begins before the one before it is through
        orders.append(records.tolist())
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("size", "shards", "window", "batch"), CASES)
def test_what_a_step_reads_was_announced(size: int, shards: int, window: int, batch: int) -> None:
    index = index_of(size, shards)
    plan = Windowed(index, window, batch, seed=4)
    for step in range(3 * plan.steps_per_epoch):
        announced = plan.shards_of(step)
        assert len(set(announced)) == len(announced)
        assert set(index.shard[plan[step].records].tolist()) <= set(announced)
        # the windows the step touches, those it goes on to, and no more
        spanned = -(-batch // (size // shards * window)) + 1
        assert len(announced) <= window * (spanned + 1)
        if step and batch <= size // shards * window:  # what comes next was announced a window before
            new = set(announced) - set(plan.shards_of(step - 1))
            assert not new & set(index.shard[plan[step].records].tolist())
        assert Windowed(index, window, batch, seed=4).shards_of(step) == announced


def test_windows_are_what_a_plain_loop_makes_of_the_announced_order() -> None:
    index = index_of(300, 7)
    plan = Windowed(index, 2, 30, seed=0)
    announced = plan.shards_of(0)
    assert len(announced) == 4  # this window and the next
    size = int((np.isin(index.shard, announced[:2])).sum())
    records = np.concatenate([plan[step].records for step in range(10)])
    assert sorted(records[:size].tolist()) == np.flatnonzero(np.isin(index.shard, announced[:2])).tolist()
    inside = records[:size]
    assert np.abs(np.corrcoef(np.arange(size), inside)[0, 1]) < 0.5  # shuffled, both shards at once
    assert set(index.shard[inside[: size // 3]].tolist()) == set(announced[:2])


def test_the_last_window_announces_the_next_epoch() -> None:
    plan = Windowed(index_of(320, 8), 2, 32, seed=0)
    last, following = plan.shards_of(plan.steps_per_epoch - 1), plan.shards_of(plan.steps_per_epoch)
    assert set(following[:2]) <= set(last)


def test_several_steps_are_announced_at_once_over_the_ends_of_epochs() -> None:
    index = index_of(103, 5)
    plan = Windowed(index, 1, 8, seed=2)
    for step in range(3 * plan.steps_per_epoch):
        for steps in (1, 3, 30):
            announced = plan.shards_of(step, steps)
            read = np.concatenate([plan[n].records for n in range(step, step + steps)])
            assert set(index.shard[read].tolist()) <= set(announced)
            assert set(plan.shards_of(step + steps - 1)) <= set(announced)


def test_shards_come_in_another_order_in_every_epoch() -> None:
    index = index_of(320, 8)
    plan = Windowed(index, 1, 40, seed=0)
    orders = set()
    for epoch in range(5):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        orders.add(tuple(dict.fromkeys(index.shard[np.concatenate([plan[n].records for n in steps])].tolist())))
    assert len(orders) == 5


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="do not fill a batch of 32"):
        Windowed(index_of(10, 2), 1, 32, 0)
    with pytest.raises(ValueError, match="a window has at least one shard"):
        Windowed(index_of(10, 2), 0, 2, 0)
    with pytest.raises(IndexError, match="count from 0"):
        Windowed(index_of(10, 2), 1, 2, 0).shards_of(-1)


@pytest.mark.parametrize(("size", "shards", "window", "batch"), CASES)
def test_steps_are_what_plain_loops_give(size: int, shards: int, window: int, batch: int) -> None:
    index = index_of(size, shards)
    plan = Windowed(index, window, batch, seed=9)
    for epoch in range(2):
        turns = [feistel(n, shards, hash_numbers(9, epoch)) for n in range(shards)]
        rows: list[int] = []
        for number, first in enumerate(range(0, shards, window)):
            inside = [
                r for shard in turns[first : first + window] for r in np.flatnonzero(index.shard == shard).tolist()
            ]
            key = hash_numbers(9, STREAMS["window"], epoch, number)
            rows += [inside[feistel(n, len(inside), key)] for n in range(len(inside))]
        for step in range(plan.steps_per_epoch):
            records = plan[epoch * plan.steps_per_epoch + step].records
            assert records.tolist() == rows[step * batch : (step + 1) * batch]
