"""Learning rates recomputed by their formulas and by torch's schedulers; parameter groups counted; updates by hand."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastface.config import OptimConfig
from fastface.optim import LateStart, build_optimizer, build_schedule, parameter_groups, set_learning_rate


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


S = torch.optim.lr_scheduler
OURS_AND_TORCHS: dict[str, tuple[dict[str, Any], Any]] = {
    "cosine": ({"min_lr": 0.01}, lambda o, total: S.CosineAnnealingLR(o, total, eta_min=0.01)),
    "multistep": ({"milestone_steps": [7, 15], "gamma": 0.3}, lambda o, _: S.MultiStepLR(o, [7, 15], 0.3)),
    "step": ({"step_size": 6, "gamma": 0.1}, lambda o, _: S.StepLR(o, 6, 0.1)),
    "polynomial": ({"power": 1.7}, lambda o, total: S.PolynomialLR(o, total, 1.7)),
    "constant": ({}, lambda o, _: S.ConstantLR(o, 1.0)),
}


@pytest.mark.parametrize("name", OURS_AND_TORCHS)
def test_schedules_are_torchs_step_by_step(name: str) -> None:
    options, torchs = OURS_AND_TORCHS[name]
    rate = build_schedule(name, 0.2, total_steps=25, **options)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    scheduler = torchs(optimizer, 25)
    for step in range(25):
        assert rate(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", OURS_AND_TORCHS)
def test_every_schedule_warms_up_first(name: str) -> None:
    options, _ = OURS_AND_TORCHS[name]
    rate = build_schedule(name, 0.2, total_steps=25, warmup_steps=5, **options)
    assert [rate(s) for s in range(5)] == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2])
    assert rate(5) == pytest.approx(0.2)
    assert all(rate(s + 1) <= rate(s) for s in range(5, 30))


@pytest.mark.parametrize("name", OURS_AND_TORCHS)
def test_no_schedule_ends_below_min_lr(name: str) -> None:
    options = OURS_AND_TORCHS[name][0] | {"min_lr": 0.05}
    rate = build_schedule(name, 0.2, total_steps=25, **options)
    rates = [rate(step) for step in range(40)]
    assert min(rates) == pytest.approx(0.2 if name == "constant" else 0.05)
    assert rates[0] == 0.2


class Net(nn.Module):
    """A network with all that groups tell apart: convolution, norms, slopes, a frozen scale, a shared head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4))
        self.neck = nn.BatchNorm1d(4)
        self.neck.weight.requires_grad_(False)
        self.head = nn.Linear(4, 2)
        self.again = self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(images).mean((2, 3))))


@pytest.mark.parametrize("decay_norms", [False, True])
@pytest.mark.parametrize("scales", [{}, {"backbone": 0.1}, {"backbone.": 0.1, "backbone.0": 0.5, "head.bias": 2.0}])
def test_every_trainable_parameter_is_in_one_group(decay_norms: bool, scales: dict[str, float]) -> None:
    net = Net()
    groups = parameter_groups(net, 0.1, decay_norms=decay_norms, lr_scales=scales)
    placed = [id(p) for group in groups for p in group["params"]]
    assert len(placed) == len(set(placed))
    assert set(placed) == {id(p) for p in net.parameters() if p.requires_grad}
    assert len(placed) == 8
    set_learning_rate(groups, 0.2)
    for group in groups:
        for name, parameter in net.named_parameters():
            if any(parameter is p for p in group["params"]):
                scale = 0.1 if name.startswith("backbone.") and scales else 1.0
                if "backbone.0" in scales:
                    scale = {"backbone.0.weight": 0.5, "backbone.0.bias": 0.5, "head.bias": 2.0}.get(name, scale)
                assert group["lr"] == pytest.approx(0.2 * scale), name
                assert group["weight_decay"] == (0.1 if decay_norms or parameter.ndim > 1 else 0.0), name


def test_norms_biases_and_frozen_parameters() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Linear(4, 2))
    net[0].bias.requires_grad_(False)
    decayed, plain = parameter_groups(net, 0.1)
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    assert len(plain["params"]) == 4  # batch norm's two, PReLU's, the linear bias; not the frozen one
    assert len(parameter_groups(net, 0.1, decay_norms=True)[0]["params"]) == 6


@pytest.mark.parametrize("name", ["bakbone", "back", "backbone.9"])
def test_a_scale_for_what_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}', which the model lacks, perhaps you meant 'backbone"):
        parameter_groups(Net(), 0.1, lr_scales={name: 0.1})


def test_scales_for_all_that_was_loaded() -> None:
    """They may name what never trains and what is no parameter."""
    groups = parameter_groups(Net(), 0.1, lr_scales=dict.fromkeys(Net().state_dict(), 0.1))
    assert {group["lr_scale"] for group in groups} == {0.1}


def by_hand(name: str, w: Tensor, grads: list[Tensor], lr: float, decay: float) -> Tensor:
    """Recompute the updates by the formulas of the papers, one weight after the other."""
    out = w.clone()
    for i in range(w.numel()):
        x, m, v, total = float(w.view(-1)[i]), 0.0, 0.0, 0.1
        for t, gradient in enumerate(grads, start=1):
            g = float(gradient.view(-1)[i])
            if name == "adamw":
                x -= lr * decay * x
            else:
                g += decay * x
            if name in ("sgd", "nesterov"):
                m = 0.9 * m + g
                x -= lr * (g + 0.9 * m if name == "nesterov" else m)
            elif name == "adagrad":
                total += g * g
                x -= lr * g / (math.sqrt(total) + 1e-10)
            else:
                m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
                x -= lr * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.99**t)) + 1e-8)
        out.view(-1)[i] = x
    return out


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw", "adam", "adagrad"])
def test_optimizers_do_what_their_papers_say(name: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
    grads = [torch.randn(3, 2, dtype=torch.float64) for _ in range(3)]
    expected = by_hand(name, weight.detach(), grads, 0.05, 0.1)
    groups = [{"params": [weight], "weight_decay": 0.1, "lr_scale": 1.0}]
    plain = name.replace("nesterov", "sgd")
    optimizer = build_optimizer(
        plain, groups, lr=0.05, momentum=0.9, betas=(0.9, 0.99), fused=False, nesterov=name == "nesterov"
    )
    for gradient in grads:
        weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_one_real_step_is_torchs(name: str) -> None:
    torch.manual_seed(0)
    net = Net()
    twin = copy.deepcopy(net)
    groups = parameter_groups(net, 1e-4, decay_norms=True)
    ours = build_optimizer(name, groups, lr=0.01, momentum=0.9, betas=(0.9, 0.999), fused=False)
    trained = [p for p in twin.parameters() if p.requires_grad]
    torchs = (
        torch.optim.Adam(trained, lr=0.01, weight_decay=1e-4)
        if name == "adam"
        else torch.optim.Adagrad(trained, lr=0.01, weight_decay=1e-4, initial_accumulator_value=0.1)
    )
    images = torch.randn(5, 3, 6, 6)
    for module, optimizer in ((net, ours), (twin, torchs)):
        module(images).square().sum().backward()
        optimizer.step()
    for key, value in net.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), key


def backbone_names(net: nn.Module) -> set[str]:
    return {name for name in net.state_dict() if name.startswith("backbone.")}


def train(net: nn.Module, steps: range, frozen: int, *, evaluate: bool) -> list[bool]:
    groups = parameter_groups(net, 0.1, lr_scales={"backbone": 0.5})
    optimizer = build_optimizer("sgd", groups, lr=0.1, momentum=0.9, betas=(0.9, 0.99), fused=False)
    late = LateStart(net, optimizer.param_groups, backbone_names(net), frozen)
    freed = []
    for step in steps:
        freed.append(late.at(step))
        net(torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if evaluate:
            net.eval()
            net.train()
    return freed


@pytest.mark.parametrize("evaluate", [False, True])
def test_what_was_loaded_starts_late(evaluate: bool) -> None:
    net = Net()
    start = {key: value.clone() for key, value in net.state_dict().items()}
    assert train(net, range(3), 3, evaluate=evaluate) == [False] * 3
    same = {key for key, value in net.state_dict().items() if torch.equal(value, start[key])}
    assert same == backbone_names(net) | {"neck.weight"}  # BatchNorm's statistics and its count of batches as well
    net = Net()
    net.load_state_dict(start)
    assert train(net, range(5), 3, evaluate=evaluate) == [False, False, False, True, False]
    same = {key for key, value in net.state_dict().items() if torch.equal(value, start[key])}
    assert same == {"neck.weight"}
    assert all(module.training for module in net.modules())


def test_a_run_resumed_after_the_late_start_trains_everything() -> None:
    net = Net()
    assert train(net, range(3, 5), 3, evaluate=False) == [False, False]
    assert all(p.requires_grad for name, p in net.named_parameters() if name != "neck.weight")
    assert not net.neck.weight.requires_grad


def test_a_late_start_without_sense_is_refused() -> None:
    net = Net()
    groups = parameter_groups(net, 0.0)
    with pytest.raises(ValueError, match="nothing was loaded"):
        LateStart(net, groups, [], 3)
    with pytest.raises(ValueError, match="nothing would learn"):
        LateStart(net, groups, net.state_dict().keys(), 3)
    LateStart(net, groups, [], 0).at(0)
    with pytest.raises(AssertionError, match="not in the module"):
        LateStart(net, groups, ["backbone.9.weight"], 3)
    with pytest.raises(AssertionError, match="never train"):
        LateStart(net, groups[:1], backbone_names(net), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "step"}, "step_epochs belongs to schedule: step"),
        ({"step_epochs": 15.0}, "step_epochs belongs to schedule: step"),
        ({"milestones": (3.0,)}, "milestones belong to"),
        ({"nesterov": True, "name": "adam"}, "nesterov is for name: sgd"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov is for name: sgd"),
        ({"lr": 0.1, "min_lr": 0.2}, "min_lr 0.2 is above lr 0.1"),
        ({"ema_decay": 1.0}, "less than 1"),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**options)
