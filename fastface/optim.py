"""Optimizer settings -> parameter groups, an optimizer, and the learning rate as a function of the step."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

Schedule = Callable[[int], float]


def parameter_groups(module: nn.Module, weight_decay: float, *, decay_norms: bool = False) -> list[dict]:
    """Split the trainable parameters into decayed and undecayed ones (biases, norms, PReLU slopes: all 1-d).

    Leaving 1-d parameters out is the rule of AdaFace's and TFace's trainers; InsightFace decays everything.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    if decay_norms:
        return [{"params": trainable, "weight_decay": weight_decay}]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    name: str, groups: list[dict], *, lr: float, momentum: float, betas: tuple[float, float], fused: bool
) -> torch.optim.Optimizer:
    """Build SGD (momentum, not Nesterov: the recipe of every published margin-softmax table) or AdamW."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused)


def build_schedule(
    name: str,
    lr: float,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    milestone_steps: Sequence[int] = (),
    gamma: float = 0.1,
    power: float = 1.0,
) -> Schedule:
    """Build step -> learning rate, a pure function, so that a resumed run needs no scheduler state.

    Warm-up is linear and never starts at zero (step 0 already learns); then cosine (SGDR, arXiv 1608.03983,
    eq. 5, one cycle), multistep, polynomial (power 1: InsightFace's default) or constant.
    """
    after = max(total_steps - warmup_steps, 1)

    def rate(step: int) -> float:
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        done = min((step - warmup_steps) / after, 1.0)
        if name == "cosine":
            return lr * 0.5 * (1 + math.cos(math.pi * done))
        if name == "polynomial":
            return lr * (1 - done) ** power
        if name == "multistep":
            return lr * gamma ** sum(step >= milestone for milestone in milestone_steps)
        return lr

    return rate
