"""Margins that are the same for every face: none, an angle, a cosine, or a factor of the angle.

    arcface   cos(theta + m)               Deng et al., CVPR 2019, equation 3
    cosface   cos(theta) - m               Wang et al., CVPR 2018, equation 4
    combined  cos(m1 * theta + m2) - m3    Deng et al., CVPR 2019, equation 4; m1 alone is SphereFace's factor

Where the angle passes pi its cosine rises again, so the worst samples would be told that they improve. There arcface
is cos(theta) - m * sin(m), which decreases for all theta (the fallback of the original MXNet code with easy_margin
off, of pytorch-metric-learning and of TFace). Current InsightFace has no such rule; the two differ only where
cos(theta) < cos(pi - m), -0.88 at m = 0.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastface.losses.margins.base import Margin, clipped, sine, turned, within


class Softmax(Margin):
    """No margin, and inner products of raw vectors in place of cosines: the classifier of any textbook."""

    normalised = False

    def __init__(self, *, gradient: str = "exact") -> None:
        super().__init__(gradient)

    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        return cosine


class NormFace(Margin):
    """No margin: scaled cosines, Wang et al., ACM MM 2017."""

    def __init__(self, *, gradient: str = "exact") -> None:
        super().__init__(gradient)

    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        return cosine


class CosFace(Margin):
    """cos(theta) - m. Both gradients are the same."""

    def __init__(self, *, m: float = 0.4, gradient: str = "exact") -> None:
        super().__init__(gradient)
        self.m = within("cosface", "m", m, 0.0, 1.0, "0.35 to 0.4")

    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        return cosine - self.strength * self.m


class ArcFace(Margin):
    """cos(theta + m); cos(theta) - m * sin(m) where theta + m > pi."""

    def __init__(self, *, m: float = 0.5, gradient: str = "exact") -> None:
        super().__init__(gradient)
        self.m = within("arcface", "m", m, 0.0, 1.5, "0.5")

    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        return added_angle(cosine, self.strength * self.m)


class Combined(Margin):
    """cos(m1 * theta + m2) - m3, decreasing for all theta; arcface at (1, m, 0), cosface at (1, 0, m).

    Let theta_0 be the angle where m1 * theta + m2 is pi, and a = pi - theta_0 what is added to the angle there. Beyond
    theta_0 the value is cos(theta) - max(a * sin(a), 1 - cos(a)) - m3. The first is arcface's rule, where a is m for
    every theta. The second is the least that does not step up from the -1 reached at theta_0; it is the larger one
    only for a > 2.33, from m1 = 3.9 on at m2 = 0. SphereFace itself goes on with (-1)^k cos(m1 * theta) - 2k.

    No margin is m1 = 1, so strength multiplies m1 - 1, m2 and m3.
    """

    def __init__(self, *, m1: float = 1.0, m2: float = 0.5, m3: float = 0.0, gradient: str = "exact") -> None:
        super().__init__(gradient)
        self.m1 = within("combined", "m1", m1, 0.5, 4.0, "1, 0.9 beside m2 0.4 and m3 0.15, SphereFace's 4")
        self.m2 = within("combined", "m2", m2, 0.0, 1.5, "0.5 as in arcface, 0.3 beside m3 0.2")
        self.m3 = within("combined", "m3", m3, 0.0, 1.0, "0, or 0.4 as in cosface")

    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        factor, m2, m3 = (self.strength * m for m in (self.m1 - 1.0, self.m2, self.m3))
        if factor == 0.0:
            return (added_angle(cosine, m2) if m2 else cosine) - m3
        cosine = clipped(cosine, -1.0, 1.0)
        theta = torch.atan2(sine(cosine), cosine)
        turn = min((math.pi - m2) / (1.0 + factor), math.pi)  # theta_0; m1 below 1 may never reach it
        there = math.pi - turn
        drop = max(there * math.sin(there), 1.0 - math.cos(there))
        # cos(m1 * theta + m2) as cos(theta + what is added): at the poles the derivative is then arcface's.
        added = turned(cosine, factor * theta + m2)
        return torch.where(cosine >= math.cos(turn), added, cosine - drop) - m3


def added_angle(cosine: Tensor, m: float | Tensor) -> Tensor:
    """Return cos(theta + m) of cosines [N]; cos(theta) - m * sin(m) where theta + m > pi. m: one, or one per row.

    The derivative by the cosine, sin(theta + m) / sin(theta), grows without bound towards theta = 0, while that of
    the cosine by the embedding falls as sin(theta): their product is sin(theta + m).
    """
    cosine = clipped(cosine, -1.0, 1.0)  # rounding may leave 1 + 1e-7
    if isinstance(m, Tensor):
        return torch.where(cosine >= (math.pi - m).cos(), turned(cosine, m), cosine - m * m.sin())
    return torch.where(cosine >= math.cos(math.pi - m), turned(cosine, m), cosine - m * math.sin(m))
