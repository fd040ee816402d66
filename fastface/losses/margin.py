"""Cosine to the own class -> the smaller cosine that training must still bring to the top.

A margin softmax classifies by s * cos(theta_j), theta_j being the angle between an embedding and the centre
of class j, after the target's cosine has been made worse by a margin m:

    arcface   cos(theta + m)    Deng et al., CVPR 2019, equation 3
    cosface   cos(theta) - m    Wang et al., CVPR 2018, equation 4

The additive angle of ArcFace stops decreasing where theta + m passes pi: cos(theta + m) rises again, so the
worst samples would be told that they improve. There the rule here is cos(theta) - m * sin(m),
which decreases for all theta (the fallback of the original MXNet code with easy_margin off, of
pytorch-metric-learning and of TFace). Current InsightFace has no such rule; the two differ only where
cos(theta) < cos(pi - m), -0.88 at m = 0.5.

Functions here take the target column only, in float32 or float64. Half precision is refused: float16 steps by
4.9e-4 near 1, which is 0.03 of a logit after the usual scale of 64, and bfloat16 rounds 0.999 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastface.spelling import nearest

GRADIENTS = ("exact", "straight_through")
# 1 - cos^2 in float32 is either 0 or above 1e-7: this floor acts on exact poles only, where it moves the
# value by less than 1e-6 and replaces an infinite derivative by cos(m).
SINE_SQUARED_FLOOR = 1e-12


def arcface(cosine: Tensor, m: float) -> Tensor:
    """Return cos(theta + m) of cosines [B]; cos(theta) - m * sin(m) where theta + m > pi.

    Its derivative by the cosine, sin(theta + m) / sin(theta), grows without bound towards theta = 0, while
    the derivative of the cosine by the embedding falls as sin(theta): their product is sin(theta + m).
    """
    cosine = cosine.clamp(-1.0, 1.0)  # rounding may leave 1 + 1e-7
    sine = ((1.0 - cosine) * (1.0 + cosine)).clamp_min(SINE_SQUARED_FLOOR).sqrt()
    added = cosine * math.cos(m) - sine * math.sin(m)
    return torch.where(cosine >= math.cos(math.pi - m), added, cosine - m * math.sin(m))


def cosface(cosine: Tensor, m: float) -> Tensor:
    """Return cos(theta) - m of cosines [B]."""
    return cosine - m


MARGINS: dict[str, Callable[[Tensor, float], Tensor]] = {"arcface": arcface, "cosface": cosface}


def margin_function(name: str) -> Callable[[Tensor, float], Tensor]:
    """Look a margin up by name; ValueError with the nearest name if there is none."""
    if name not in MARGINS:
        raise ValueError(f"margin {name!r} is unknown{nearest(name, MARGINS)}; known: {', '.join(MARGINS)}")
    return MARGINS[name]


def check_margin(name: str, m: float, s: float, gradient: str) -> None:
    """Refuse a margin that has no meaning, with a ValueError that names the value and its range."""
    margin_function(name)
    limit = math.pi / 2 if name == "arcface" else 1.0
    if not 0.0 <= m < limit:
        raise ValueError(f"m {m} is outside [0, {limit:.4g}) for {name}; common values: arcface 0.5, cosface 0.4")
    if not (s > 0.0 and math.isfinite(s)):
        raise ValueError(f"s {s} must be positive and finite; the usual scale is 64, or 30 for few classes")
    if gradient not in GRADIENTS:
        raise ValueError(
            f"gradient {gradient!r} is unknown{nearest(gradient, GRADIENTS)}; known: {', '.join(GRADIENTS)}"
        )


def apply_margin(cosine: Tensor, name: str, m: float, gradient: str = "exact") -> Tensor:
    """Apply a margin to the target column.

    cosine: float32 or float64 [B]; the same shape and type comes back. `gradient`:
    exact             the derivative of the formula;
    straight_through  the value of the formula, but derivative 1 by the cosine, so that d(logit)/d(cosine)
                      is s. InsightFace trains so since December 2022: it computes the margin under
                      no_grad. For cosface both are the same.
    """
    if cosine.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the target cosines are {cosine.dtype}; compute them in float32, half precision is too coarse"
        )
    function = margin_function(name)
    if gradient == "exact":
        return function(cosine, m)
    detached = cosine.detach()
    return function(detached, m) + (cosine - detached)  # the bracket is exactly zero and carries the gradient
