"""The state of adaface and curricularface against a slow loop, and that the grouping of a step leaves no trace."""

from __future__ import annotations

import copy
import math
import random
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fastface.losses.margins import MARGINS, Margin, build_margin
from fastface.losses.margins.base import StepSums

STATES = {"adaface": ["mean", "std"], "curricularface": ["t"]}


class Step(NamedTuple):
    cosines: list[float]
    norms: list[float]


def steps(sizes: list[int], seed: int = 0) -> list[Step]:
    """Draw steps of the given sizes; some cosines are rounded beyond 1 and some norms lie beyond the clamps."""
    draw = random.Random(seed)
    made = []
    for size in sizes:
        cosines = [draw.choice([draw.uniform(-1.0, 1.0), 1.0 + 2e-7]) for _ in range(size)]
        norms = [draw.choice([draw.uniform(5.0, 40.0), 0.0, 150.0]) for _ in range(size)]
        made.append(Step(cosines, norms))
    return made


def column(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def take(margin: Margin, step: Step, cuts: int = 1) -> None:
    """Show a step in `cuts` rounds, of unequal size where it does not divide."""
    bounds = [len(step.norms) * i // cuts for i in range(cuts + 1)]
    for start, end in pairwise(bounds):
        margin.observe(column(step.cosines[start:end]), column(step.norms[start:end]))
    margin.settle()


def expected_state(name: str, taken: list[Step], rate: float) -> list[float]:
    """Move the state by hand."""
    mean, std, t = 20.0, 100.0, 0.0
    for cosines, norms in taken:
        clipped = [min(max(norm, 1e-3), 100.0) for norm in norms]
        average = sum(clipped) / len(clipped)
        if len(clipped) > 1:
            spread = math.sqrt(sum((norm - average) ** 2 for norm in clipped) / (len(clipped) - 1))
            std = rate * spread + (1.0 - rate) * std
        mean = rate * average + (1.0 - rate) * mean
        t = rate * sum(min(max(cosine, -1.0), 1.0) for cosine in cosines) / len(cosines) + (1.0 - rate) * t
    return [mean, std] if name == "adaface" else [t]


def state(margin: Margin) -> list[float]:
    return [buffer.item() for _, buffer in margin.named_buffers()]


def build(name: str, rate: float) -> Margin:
    return build_margin(name, **{"adaface": {"t_alpha": rate}, "curricularface": {"alpha": rate}}[name])


def test_states_are_those_of_the_papers() -> None:
    for name in MARGINS:
        margin = build_margin(name)
        assert [key for key, _ in margin.named_buffers()] == STATES.get(name, [])
        assert list(margin.state_dict()) == STATES.get(name, [])
        assert list(margin.parameters()) == []
    assert state(build_margin("adaface")) == [20.0, 100.0]
    assert state(build_margin("curricularface")) == [0.0]


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0])
def test_state_after_many_steps_equals_the_loop(name: str, rate: float) -> None:
    margin, taken = build(name, rate), steps([7, 1, 2, 30, 1, 5, 64, 3])
    for k, step in enumerate(taken):
        take(margin, step, cuts=1 + k % 3)
        assert state(margin) == pytest.approx(expected_state(name, taken[: k + 1], rate), abs=1e-12)


@pytest.mark.parametrize("name", STATES)
def test_state_does_not_depend_on_the_grouping(name: str) -> None:
    taken = steps([48, 1, 31, 2, 64])
    whole = build(name, 0.5)
    for step in taken:
        take(whole, step)
    for cuts in (2, 3, 7, 64):  # more rounds than rows: some of them are empty
        other = build(name, 0.5)
        for step in taken:
            take(other, step, cuts)
        assert state(other) == pytest.approx(state(whole), abs=1e-12)


def test_nearly_equal_norms_keep_their_spread() -> None:
    """Sums of squares of float64 numbers about 100 would lose it; those of distances from the mean do not."""
    margin = build_margin("adaface", t_alpha=1.0)
    take(margin, Step([0.0] * 3, [90.0, 90.0, 90.0]))
    assert state(margin) == [90.0, 0.0]
    norms = [90.0 + 1e-6 * k for k in range(10)]
    take(margin, Step([0.0] * 10, norms), cuts=3)
    assert state(margin) == pytest.approx(expected_state("adaface", [Step([0.0] * 10, norms)], 1.0), abs=1e-12)


def test_one_row_moves_the_mean_only() -> None:
    margin = build_margin("adaface")
    take(margin, Step([0.1], [50.0]))
    assert state(margin) == [pytest.approx(20.0 + 0.01 * 30.0), 100.0]
    take(margin, Step([0.1, 0.2], [50.0, 10.0]), cuts=2)  # two rounds of one row are a step of two
    assert state(margin)[1] == pytest.approx(0.99 * 100.0 + 0.01 * 40.0 / math.sqrt(2.0))


@pytest.mark.parametrize("name", STATES)
def test_forward_uses_the_state_before_the_step(name: str) -> None:
    margin = build(name, 1.0)
    cosine, norm = column([0.3, 0.5, 0.9]), column([10.0, 20.0, 30.0])
    before, at_start = margin(cosine, norm), state(margin)
    margin.observe(cosine, norm)
    assert torch.equal(margin(cosine, norm), before)
    assert state(margin) == at_start
    margin.settle()
    assert state(margin) != at_start
    assert torch.equal(margin(cosine, norm), before) == (name == "curricularface")  # its t is for negatives


@pytest.mark.parametrize("name", MARGINS)
def test_settle_forgets_the_step(name: str) -> None:
    margin = build_margin(name)
    margin.settle()  # nothing seen, nothing moves
    assert state(margin) == state(build_margin(name))
    take(margin, steps([6])[0])
    moved = state(margin)
    assert (moved != state(build_margin(name))) == (name in STATES)
    margin.settle()
    assert state(margin) == moved


@pytest.mark.parametrize("name", STATES)
def test_state_dict_round_trip_is_exact(name: str) -> None:
    margin, other = build_margin(name), build_margin(name)
    for step in steps([5, 9, 4]):
        take(margin, step)
    saved = copy.deepcopy(margin.state_dict())
    other.load_state_dict(saved)
    assert state(other) == state(margin)
    for step in steps([3, 8], seed=1):
        take(margin, step)
        take(other, step)
    assert state(other) == state(margin)
    assert torch.equal(*(each(column([0.2, 0.9]), column([9.0, 70.0])) for each in (margin, other)))


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("finite_first", [True, False])
def test_a_step_with_a_nan_moves_nothing(name: str, finite_first: bool) -> None:
    margin = build_margin(name)
    take(margin, steps([6])[0])
    before = state(margin)
    nan, finite = (column([math.nan, 0.5]), column([math.nan, 20.0])), (column([0.1, 0.5]), column([10.0, 20.0]))
    for cosine, norm in (finite, nan) if finite_first else (nan, finite):
        margin.observe(cosine, norm)
    margin.settle()
    assert state(margin) == before
    take(margin, steps([6], seed=2)[0])  # and the next one counts again
    assert state(margin) != before
    assert all(map(math.isfinite, state(margin)))


@pytest.mark.parametrize("name", STATES)
def test_float32_columns_are_summed_in_float64(name: str) -> None:
    margin, exact = build(name, 1.0), build(name, 1.0)
    draw = random.Random(3)
    cosine = column([draw.uniform(-1.0, 1.0) for _ in range(4096)], torch.float32)
    norm = column([draw.uniform(10.0, 90.0) for _ in range(4096)], torch.float32)
    margin.observe(cosine, norm)
    margin.settle()
    exact.observe(cosine.double(), norm.double())
    exact.settle()
    assert state(margin) == state(exact)
    assert all(buffer.dtype == torch.float64 for buffer in margin.buffers())


@pytest.mark.parametrize("name", STATES)
def test_observing_keeps_no_graph(name: str) -> None:
    margin = build_margin(name)
    margin.observe(column([0.1, 0.2]).requires_grad_(), column([10.0, 20.0]).requires_grad_())
    waiting = [part.sums for part in vars(margin).values() if isinstance(part, StepSums)]
    assert [sums is not None and not sums.requires_grad for sums in waiting] == [True]
    margin.settle()
    assert not any(buffer.requires_grad for buffer in margin.buffers())


def test_who_hardens_negatives_and_who_is_not_normalised() -> None:
    assert [name for name, margin in MARGINS.items() if margin.hardens_negatives] == ["curricularface"]
    assert [name for name, margin in MARGINS.items() if not margin.normalised] == ["softmax"]
