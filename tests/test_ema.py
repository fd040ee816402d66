"""The average of the weights against a slow loop in float64, and against itself after a restart."""

import pytest
import torch
from torch import nn

from fastface.ema import WeightAverage, decay_at


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    net[1].weight.requires_grad_(False)
    return net


def train_one(net: nn.Module, step: int) -> None:
    """Change weights, running statistics and the count of batches, as a step of training does."""
    net.train()
    generator = torch.Generator().manual_seed(step)
    dtype = next(net.parameters()).dtype
    net(torch.randn(4, 3, 6, 6, generator=generator).to(dtype)).square().mean().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    net.zero_grad()


def test_decay_warms_up() -> None:
    assert [decay_at(step, 0.9) for step in (0, 1, 8, 79, 80, 81, 10_000)] == [
        1 / 10, 2 / 11, 9 / 18, 80 / 89, 81 / 90, 0.9, 0.9,
    ]  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_is_the_recursion(dtype: torch.dtype, tolerance: float, decay: float) -> None:
    net = network().to(dtype)
    average = WeightAverage(net, decay)
    slow = {name: value.double().clone() for name, value in net.state_dict().items()}
    for step in range(25):
        train_one(net, step)
        average.update(step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, value in net.state_dict().items():
            slow[name] = kept * slow[name] + (1 - kept) * value if value.is_floating_point() else value.double()
    state = average.state_dict()
    assert state.keys() == net.state_dict().keys()
    for name, value in state.items():
        assert value.dtype == net.state_dict()[name].dtype
        torch.testing.assert_close(value.double(), slow[name].double(), rtol=tolerance, atol=tolerance)
    assert int(state["1.num_batches_tracked"]) == 25
    assert not torch.equal(state["1.running_mean"], net.state_dict()["1.running_mean"])


def test_a_restart_has_the_same_bits() -> None:
    through, stopped = network(), network()
    whole = WeightAverage(through, 0.95)
    for step in range(12):
        train_one(through, step)
        whole.update(step)
    first = WeightAverage(stopped, 0.95)
    for step in range(7):
        train_one(stopped, step)
        first.update(step)
    saved = {name: value.clone() for name, value in first.state_dict().items()}
    resumed = network()
    resumed.load_state_dict(stopped.state_dict())
    second = WeightAverage(resumed, 0.95)
    second.load_state_dict(saved)
    for step in range(7, 12):
        train_one(resumed, step)
        second.update(step)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_applied_for_as_long_as_the_context_lasts() -> None:
    net = network().to(memory_format=torch.channels_last)
    average = WeightAverage(net, 0.9)
    for step in range(3):
        train_one(net, step)
        average.update(step)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    objects = [id(p) for p in net.parameters()]

    def evaluate() -> None:
        with average.applied():
            for name, value in net.state_dict().items():
                assert torch.equal(value, average.state_dict()[name]), name
            with pytest.raises(AssertionError, match="holds the average"):
                average.update(3)
            raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        evaluate()
    assert [id(p) for p in net.parameters()] == objects
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    different = [n for n, v in average.state_dict().items() if not torch.equal(v, net.state_dict()[n])]
    assert "0.weight" in different
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name]), name
    average.update(3)


def test_what_does_not_fit_is_refused() -> None:
    net = network()
    average = WeightAverage(net, 0.9)
    state = average.state_dict()
    with pytest.raises(ValueError, match=r"1 names or shapes differ, first '0.bias'"):
        average.load_state_dict({name: value for name, value in state.items() if name != "0.bias"})
    with pytest.raises(ValueError, match=r"first '3\.bias'"):
        average.load_state_dict({**state, "3.bias": torch.zeros(5)})
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
        WeightAverage(net, 1.0)
    net[3].weight = nn.Parameter(torch.zeros(2, 64))
    with pytest.raises(AssertionError, match="replaced by another tensor"):
        average.state_dict()
