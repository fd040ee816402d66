"""What every margin has: the target's cosine in, a smaller one out, and the state that moves once per step.

A margin sees one column, the cosine of each embedding to the centre of its own class, in float32 or float64. Half
precision is refused: float16 steps by 4.9e-4 near 1, which is 0.03 of a logit after the usual scale of 64, and
bfloat16 rounds 0.999 to 1.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fastface.spelling import nearest

GRADIENTS = ("exact", "straight_through")


class Margin(nn.Module, ABC):
    """Make the target's cosine worse, so that training must bring it further up.

    A subclass has `harden`; its buffers are the state that a checkpoint keeps. `gradient` is one of
    exact             the derivative of the formula;
    straight_through  the value of the formula, but derivative 1 by the cosine, so that d(logit)/d(cosine) is the
                      scale. InsightFace trains so since December 2022: it computes the margin under no_grad.
                      What a formula takes from the norm with a gradient (magface) keeps that gradient.

    A state moves one step late, on purpose. `forward` uses it as the step before left it, `observe` collects what
    the step shows, `settle` moves it when the step is over. The published AdaFace and CurricularFace move theirs
    in forward, before they use it, so that the loss of a row depends on how many rows its device took at a time.
    Here a step may come in many micro-batches from many processes, and its loss does not depend on the grouping.
    """

    normalised: bool = True  # False: the column is an inner product of raw vectors, and the head applies no scale
    hardens_negatives: bool = False  # True: the head turns a negative above the hardened target into cos * (t + cos)

    def __init__(self, gradient: str) -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise ValueError(
                f"gradient {gradient!r} is unknown{nearest(gradient, GRADIENTS)}; known: {', '.join(GRADIENTS)}"
            )
        self.gradient = gradient
        self._strength = 1.0

    @property
    def strength(self) -> float:
        """Factor of all margins in [0, 1], for a ramp over epochs; not in the checkpoint, the ramp sets it."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"strength {value} is outside [0, 1]; 0 is no margin, 1 the whole one")
        self._strength = float(value)

    def forward(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the hardened target column [N]; at strength 0 the column itself.

        cosine: [N], to the own class, float32 or float64; rounding may have left it beyond 1. norm: [N], length
        of the raw embeddings, same type. A NaN stays a NaN.
        """
        _check(cosine, norm)
        if self.strength == 0.0:
            return cosine
        if self.gradient == "exact":
            return self.harden(cosine, norm)
        detached = cosine.detach()
        return self.harden(detached, norm) + (cosine - detached)  # the bracket is exactly zero, with a gradient

    @abstractmethod
    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """Return the value of the formula [N], all margins multiplied by `strength`."""

    def penalty(self, norm: Tensor) -> Tensor | None:
        """Return what each row adds to its own loss [N], before the mean; None where there is nothing."""
        return None

    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        """Collect one round of the step, [N] and [N] as in forward, of all processes: nothing is reduced here."""
        _check(cosine, norm)

    def settle(self) -> None:
        """Move the state by what the step has shown, and forget the step."""

    def forget(self) -> None:
        """Forget what the step has shown: it is not taken."""

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in [*parameter_names(type(self)), "gradient"])


class StepSums:
    """Count, sum and sum of squares of a step's values in float64: the same however the step is cut into rounds.

    Lives between `observe` and `settle`, so no checkpoint has it.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Add values [N], float64."""
        sums = torch.stack([values.sum(), values.square().sum()])
        self.count += values.numel()
        self.sums = sums if self.sums is None else self.sums + sums

    def take(self) -> tuple[int, Tensor, Tensor] | None:
        """Return (count, sum, sum of squares) and start anew; None if nothing was added."""
        count, sums = self.count, self.sums
        self.count, self.sums = 0, None
        return None if sums is None or count == 0 else (count, sums[0], sums[1])


def parameter_names(margin: type[Margin]) -> list[str]:
    """List what a margin can be told, in the order of its signature, without `gradient`."""
    return [name for name in inspect.signature(margin).parameters if name != "gradient"]


def within(margin: str, name: str, value: float, low: float, high: float, usual: str) -> float:
    """Return a parameter in [low, high], or say its range and its usual value in a ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} {value!r} is outside [{low:.4g}, {high:.4g}] for {margin}; usual: {usual}")
    return float(value)


def clipped(values: Tensor, low: float, high: float) -> Tensor:
    """Return values [N] cut to [low, high], with derivative 1 on the bounds and 0 beyond; a NaN stays a NaN.

    torch.clamp has derivative 1 on its bounds in older releases and 0 in torch 2.15: here it is one and the same.
    """
    return torch.where(values < low, low, torch.where(values > high, high, values))


def sine(cosine: Tensor) -> Tensor:
    """Return sin(theta) of cosines in [-1, 1], never quite zero, with a finite derivative everywhere.

    1 - cos^2 is either 0 or above half an eps: a floor of eps^2 acts on exact poles only, where it moves the value
    by one eps and replaces an infinite derivative by zero, so that cos(theta + m) has derivative cos(m) at theta = 0.
    """
    return ((1.0 - cosine) * (1.0 + cosine)).clamp_min(torch.finfo(cosine.dtype).eps ** 2).sqrt()


def turned(cosine: Tensor, angle: float | Tensor) -> Tensor:
    """Return cos(theta + angle) of cosines [N] in [-1, 1]; the angle is one number, or one per row."""
    across = sine(cosine)
    if isinstance(angle, Tensor):
        return cosine * angle.cos() - across * angle.sin()
    return cosine * math.cos(angle) - across * math.sin(angle)


def _check(cosine: Tensor, norm: Tensor) -> None:
    if cosine.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the target column is {cosine.dtype}; compute it in float32, half precision is too coarse")
    if norm.dtype != cosine.dtype or norm.shape != cosine.shape:
        raise ValueError(
            f"norms {tuple(norm.shape)} {norm.dtype} do not fit cosines {tuple(cosine.shape)} {cosine.dtype};"
            " give one norm per row, in the same type"
        )
