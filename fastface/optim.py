"""Optimizer settings -> parameter groups, an optimizer, the learning rate of every step, and what starts late."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fastface.spelling import nearest

Schedule = Callable[[int], float]


def parameter_groups(
    module: nn.Module, weight_decay: float, *, decay_norms: bool = False, lr_scales: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Split the trainable parameters by weight decay and by learning rate; each is in exactly one group.

    decay_norms: False leaves 1-d parameters (biases, norms, PReLU slopes) undecayed, the rule of AdaFace's and
    TFace's trainers; InsightFace decays everything. lr_scales: module or parameter name -> factor on the learning
    rate of all below it (`backbone`: 0.1); where several fit, the longest decides. Every group carries the factor
    as "lr_scale", which set_learning_rate obeys.

    What has no requires_grad now is never trained (the scale of the last BatchNorm). So a part that only starts late
    is frozen after this, by LateStart.

    Raises:
        ValueError: for a name in lr_scales that the module does not have.
    """
    scales = {name.rstrip("."): scale for name, scale in (lr_scales or {}).items()}
    known = {*module.state_dict(), *(name for name, _ in module.named_modules())}
    for name in scales:
        if name not in known:
            raise ValueError(f"a learning rate is set for {name!r}, which the model lacks{nearest(name, known)}")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():  # a shared parameter comes once, under its first name
        if parameter.requires_grad:
            above = next((a for a in _ancestors(name) if a in scales), None)
            scale = 1.0 if above is None else scales[above]
            groups.setdefault((scale, decay_norms or parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decayed else 0.0, "lr_scale": scale}
        for (scale, decayed), parameters in groups.items()
    ]


def _ancestors(name: str) -> list[str]:
    """a.b.c -> a.b.c, a.b, a: nearest first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def build_optimizer(
    name: str,
    groups: list[dict[str, Any]],
    *,
    lr: float,
    momentum: float,
    betas: tuple[float, float],
    fused: bool,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Build sgd, adamw, adam or adagrad.

    Momentum is not Nesterov's unless asked for: the recipe of every published margin-softmax table. The weight decay
    of adam and adagrad is L2's: added to the gradient, and so divided by its root mean square, unlike adamw's.
    fused: one kernel for all parameters, on CUDA; adagrad goes without, which has none there in torch 2.10.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=betas, fused=fused)
    if name == "adagrad":
        # TensorFlow starts the sum of squares at 0.1, and so do the face trainers whose figures are for Adagrad
        # (facenet, facenet-pytorch-glint360k); from torch's 0 the first step would move every weight by all of lr.
        return torch.optim.Adagrad(groups, lr=lr, initial_accumulator_value=0.1)
    assert name == "adamw", name
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused)


def num_moments(optimizer: torch.optim.Optimizer) -> int:
    """Return how many values for each parameter the first step of build_optimizer's optimizers adds to their memory."""
    if isinstance(optimizer, torch.optim.SGD):
        return int(optimizer.defaults["momentum"] > 0)
    return 0 if isinstance(optimizer, torch.optim.Adagrad) else 2  # Adagrad has its sums from the start


def set_learning_rate(groups: Iterable[dict[str, Any]], lr: float) -> None:
    """Give every parameter group the schedule's learning rate, times its own factor."""
    for group in groups:
        group["lr"] = lr * group["lr_scale"]


def build_schedule(
    name: str,
    lr: float,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    milestone_steps: Sequence[int] = (),
    step_size: int = 0,
    gamma: float = 0.1,
    power: float = 1.0,
    min_lr: float = 0.0,
) -> Schedule:
    """Build step -> learning rate, a pure function, so that a resumed run needs no scheduler state.

    Warm-up is linear and never starts at zero (step 0 already learns); then cosine (SGDR, arXiv 1608.03983,
    eq. 5, one cycle), polynomial (power 1: InsightFace's default), multistep, step (times gamma every step_size
    steps) or constant. Milestones and step_size count from step 0, warm-up included. cosine and polynomial end at
    min_lr, multistep and step stop there; warm-up may lie below it.
    """
    after = max(total_steps - warmup_steps, 1)

    def rate(step: int) -> float:
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        done = min((step - warmup_steps) / after, 1.0)
        if name == "cosine":
            return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))
        if name == "polynomial":
            return min_lr + (lr - min_lr) * (1 - done) ** power
        if name == "multistep":
            return max(lr * gamma ** sum(step >= milestone for milestone in milestone_steps), min_lr)
        if name == "step":
            return max(lr * gamma ** (step // step_size), min_lr)
        return lr

    return rate


class LateStart:
    """Keep a part of a module as it is for the first steps, while the rest trains.

    What is kept: parameters get no gradient, hence no weight decay and no momentum either, and layers with running
    statistics (BatchNorm) use those they have.

    Args:
        module: in training mode.
        groups: the optimizer's. They are made first: parameter_groups leaves out what has no requires_grad.
        names: parameters and buffers to keep, as in module.state_dict(): those that were loaded.
        steps: how many; 0 keeps nothing.
    """

    def __init__(self, module: nn.Module, groups: Iterable[dict[str, Any]], names: Collection[str], steps: int) -> None:
        kept, known = set(names), module.state_dict().keys()
        assert kept <= known, f"not in the module: {sorted(kept - known)}"
        self.steps = steps
        trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self._parameters = [p for name, p in trainable if name in kept]
        ours = {id(p) for group in groups for p in group["params"]}
        assert all(id(p) in ours for p in self._parameters), "the optimizer would never train what is kept at first"
        self._layers: list[nn.Module] = []
        for above, layer in module.named_modules():
            buffers = {name for name, _ in layer.named_buffers(above, recurse=False)} & known
            own = {name for name, _ in layer.named_parameters(above, recurse=False)}
            if buffers and buffers | own <= kept:
                self._layers.append(layer)
        self._keeps = False
        if steps and not self._parameters:
            raise ValueError(
                "optim.freeze_epochs keeps what was loaded as it is, and nothing was loaded: "
                "set model.weights or model.pretrained, or set it to 0"
            )
        if steps and len(self._parameters) == len(trainable):
            raise ValueError(
                "optim.freeze_epochs keeps what was loaded as it is, and everything was loaded: nothing would learn; "
                "set it to 0"
            )

    def at(self, step: int) -> bool:
        """Keep or free the part as `step` (counted from 0) wants it; return whether it has just been freed.

        To be called before every step: an evaluation in between leaves all layers in training mode.
        DistributedDataParallel learns only when it is built which parameters train, so it is built anew then.
        """
        keep = step < self.steps
        freed = self._keeps and not keep
        if keep != self._keeps:
            for parameter in self._parameters:
                parameter.requires_grad_(not keep)
        if keep or freed:
            for layer in self._layers:
                layer.train(not keep)
        self._keeps = keep
        return freed
