"""Collected rows and their gradients on 1, 2 and 4 processes, against one process that has everything."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.worlds import everything

pytestmark = [pytest.mark.dist, pytest.mark.slow]
WORLDS = [1, 2, 4]


def processes(world: int) -> list[dict[str, Tensor]]:
    return everything()[1][world]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ["gather", "gather_parts"])
def test_rows_come_in_order_and_average_to_the_gradient_of_one_loss(name: str, world: int) -> None:
    """The loss is the sum of cosines; in parts, process r computes r + 1 times it."""
    whole = [[math.sin(row * 3 + column) for column in range(3)] for row in range(2 * world)]
    times = 1.0 if name == "gather" else sum(range(1, world + 1))
    for rank, found in enumerate(processes(world)):
        torch.testing.assert_close(found[name], torch.tensor(whole, dtype=torch.float64))
        slope = [[-math.sin(value) * times for value in row] for row in whole[2 * rank : 2 * rank + 2]]
        torch.testing.assert_close(found[f"{name}, gradient"] / world, torch.tensor(slope, dtype=torch.float64))


@pytest.mark.parametrize("world", WORLDS)
def test_labels_come_in_order(world: int) -> None:
    for found in processes(world):
        assert found["labels"].tolist() == [value for rank in range(world) for value in (rank, 10 * rank)]
        assert found["labels"].dtype == torch.int64


@pytest.mark.parametrize("world", WORLDS)
def test_parts_are_summed_and_each_has_the_gradient_of_the_sum(world: int) -> None:
    parts = [found["sum, of"] for found in processes(world)]
    for found in processes(world):
        assert found["sum"].tolist() == [sum(part[i].item() for part in parts) for i in range(5)]
        assert found["sum, gradient"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("world", WORLDS)
def test_log_sums_are_those_of_the_whole(world: int) -> None:
    """Where no process has a class, where one has one, and beyond what exp() can hold."""
    parts = [found["log_sum_exp, of"].tolist() for found in processes(world)]
    for rank, found in enumerate(processes(world)):
        for i in range(5):
            column = [part[i] for part in parts]
            top = max(column)
            total = top + math.log(sum(math.exp(value - top) for value in column)) if top > -math.inf else -math.inf
            assert found["log_sum_exp"][i].item() == pytest.approx(total, rel=1e-14)
            # The sum is multiplied by i + 1, and cut off at -10^6: nothing flows from an infinite one.
            share = math.exp(parts[rank][i] - total) if total > -math.inf else 0.0
            assert found["log_sum_exp, gradient"][i].item() == pytest.approx((i + 1) * share, rel=1e-12)


@pytest.mark.parametrize("world", WORLDS)
def test_the_largest_is_that_of_all(world: int) -> None:
    last = 0.5 * (world - 1)
    for found in processes(world):
        assert found["largest"].tolist() == [last, -math.inf, 800.0, 2.0, -1000.0]
