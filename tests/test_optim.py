"""Learning rates recomputed by their formulas; parameter groups counted."""

import math

import pytest
import torch
from torch import nn

from fastface.optim import build_optimizer, build_schedule, parameter_groups


def test_cosine_with_warmup() -> None:
    rate = build_schedule("cosine", 0.1, total_steps=100, warmup_steps=10)
    assert [rate(s) for s in range(10)] == pytest.approx([0.01 * (s + 1) for s in range(10)])
    assert rate(10) == 0.1
    assert rate(55) == pytest.approx(0.05)
    assert rate(99) == pytest.approx(0.05 * (1 + math.cos(math.pi * 89 / 90)))
    assert rate(100) == pytest.approx(0)


def test_multistep_polynomial_constant() -> None:
    steps = build_schedule("multistep", 1.0, total_steps=30, milestone_steps=[10, 20], gamma=0.1)
    assert [steps(s) for s in (0, 9, 10, 19, 20, 29)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    linear = build_schedule("polynomial", 1.0, total_steps=10)
    assert [linear(s) for s in range(10)] == pytest.approx([1 - s / 10 for s in range(10)])
    square = build_schedule("polynomial", 1.0, total_steps=10, power=2)
    assert square(5) == pytest.approx(0.25)
    assert {build_schedule("constant", 0.3, total_steps=5)(s) for s in range(9)} == {0.3}


def test_norms_biases_and_frozen_parameters() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Linear(4, 2))
    net[0].bias.requires_grad_(False)
    decayed, plain = parameter_groups(net, 0.1)
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    assert len(plain["params"]) == 4  # batch norm's two, PReLU's, the linear bias; not the frozen one
    assert len(parameter_groups(net, 0.1, decay_norms=True)[0]["params"]) == 6


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizers_step(name: str) -> None:
    net = nn.Linear(3, 1)
    before = net.weight.detach().clone()
    optimizer = build_optimizer(name, parameter_groups(net, 0.1), lr=0.1, momentum=0.9, betas=(0.9, 0.99), fused=False)
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, net.weight)
