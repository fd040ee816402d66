"""Whole tensors to shards and back: a run goes on with another number of processes as if nothing had changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastface.resharding import restore_model, restore_optimizer, whole_bytes, whole_model, whole_optimizer
from tests.worlds import CASES, Small, batch, everything


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("change", ["1-2", "2-1", "2-4", "2-1-4", "4-1"])
@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_with_another_number_of_processes(case: str, change: str) -> None:
    runs = everything()[0]
    alone, changed = runs[f"{case}/1"], runs[f"{case}/{change}"]
    done = changed.losses.shape[1]
    assert changed.losses.shape == (int(change[-1]), 5 if change == "2-1-4" else 10)
    exact = CASES[case].kind == torch.float64
    np.testing.assert_allclose(changed.losses[0], alone.losses[0, -done:], rtol=1e-12 if exact else 1e-6)
    np.testing.assert_array_equal(changed.chosen, alone.chosen[:, -done:])
    tolerance = 1e-11 if exact else 1e-4
    for found, expected in ((changed.model, alone.model), (changed.optimizer, alone.optimizer)):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def optimizer_of(task: nn.Module, name: str) -> torch.optim.Optimizer:
    parameters = [p for p in task.parameters() if p.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=0.1, amsgrad=True)
    return torch.optim.Adagrad(parameters, lr=0.1, initial_accumulator_value=0.1)


def step(task: Small, optimizer: torch.optim.Optimizer, number: int) -> Tensor:
    images, labels = batch(number, torch.float64)
    task.head.choose(number, labels.numpy, optimizer)
    optimizer.zero_grad()
    loss = task.head(task.backbone(images), labels).loss
    loss.backward()
    optimizer.step()
    task.head.put_back(optimizer)
    task.head.settle()
    return loss


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["sgd", "adamw", "adagrad"])
def test_a_restart_is_the_same_to_the_bit(name: str, case: str) -> None:
    """And keeps nothing of what it was restored from, which may be the rows of all processes."""
    case_ = CASES[case]._replace(kind=torch.float64)
    task = Small(case_)
    optimizer = optimizer_of(task, name)
    for number in range(3):
        step(task, optimizer, number)
    model = {key: value.clone() for key, value in whole_model(task).items()}
    state = {key: value.clone() for key, value in whole_optimizer(optimizer, task).items()}
    assert not any("rows" in key for key in [*model, *state])
    assert model["head.weight"].shape == task.head.weight.shape
    other = Small(case_)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other_optimizer = optimizer_of(other, name)
    restore_model(other, model)
    restore_optimizer(other_optimizer, other, state)
    for value in (*model.values(), *state.values()):
        if value.is_floating_point():
            value.fill_(torch.nan)
    for number in range(3, 6):
        assert torch.equal(step(task, optimizer, number), step(other, other_optimizer, number))
    for found, expected in (
        (whole_model(other), whole_model(task)),
        (whole_optimizer(other_optimizer, other), whole_optimizer(optimizer, task)),
    ):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["sgd", "adamw", "adagrad"])
@pytest.mark.parametrize(("before", "after"), [({}, {"sample_rate": 0.3}), ({"sample_rate": 0.3}, {})])
def test_the_sample_rate_may_change(before: dict[str, float], after: dict[str, float], name: str) -> None:
    case = CASES["sgd"]
    task, other = (Small(case._replace(options=options)) for options in (before, after))
    optimizer, other_optimizer = optimizer_of(task, name), optimizer_of(other, name)
    step(task, optimizer, 0)
    step(task, optimizer, 1)
    restore_model(other, whole_model(task))
    state = whole_optimizer(optimizer, task)
    restore_optimizer(other_optimizer, other, state)
    again = whole_optimizer(other_optimizer, other)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())
    assert step(other, other_optimizer, 2).isfinite()


def test_another_number_of_identities_says_what_to_do() -> None:
    case = CASES["sgd, sampled"]
    task = Small(case)
    optimizer = optimizer_of(task, "sgd")
    step(task, optimizer, 0)
    model, state = whole_model(task), whole_optimizer(optimizer, task)
    smaller = {**model, "head.weight": model["head.weight"][:5]}
    message = r"head.weight has 5 rows, this run has 7 identities with 1 centre.*model.weights"
    with pytest.raises(ValueError, match=message):
        restore_model(Small(case), smaller)
    name = "head.weight/momentum_buffer"
    with pytest.raises(ValueError, match="has 8 rows, this run has 7 identities"):
        restore_optimizer(optimizer, task, {name: torch.zeros(8, 4)})
    with pytest.raises(ValueError, match=r"'head.wieght', which this model does not have"):
        restore_optimizer(optimizer, task, {"head.wieght/momentum_buffer": state[name]})


def test_other_processes_rows_count_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastface import dist
    from fastface.heads.class_rows import ClassRows

    monkeypatch.setattr(dist, "world", lambda: 4)
    monkeypatch.setattr(dist, "rank", lambda: 1)
    task = nn.Sequential(nn.Linear(3, 2), ClassRows(7, 5, sub_centres=3))
    assert len(list(task.parameters())[2]) == 2 * 3  # classes 1 and 2 of 7
    assert whole_bytes(task) == 4 * (3 * 2 + 2 + 7 * 3 * 5)
