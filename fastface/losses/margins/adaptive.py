"""Margins that depend on the face or on the progress of training.

    adaface          Kim et al., CVPR 2022, section 3.3: the norm says how good an image is
    curricularface   Huang et al., CVPR 2020, section 3.2: hard negatives count more as training goes on
    magface          Meng et al., CVPR 2021, section 3.2: margin and norm grow together

All three look at their rows only; base.py says when a state moves and why one step late.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastface.losses.margins.base import Margin, StepSums, clipped, turned, within
from fastface.losses.margins.fixed import added_angle


class AdaFace(Margin):
    """cos(theta - m * z) - (m + m * z), z in [-1, 1] from the norm: a larger norm, a stronger push on hard samples.

    z = clip(h * (norm - mean) / (std + eps), -1, 1), norms clipped to [1e-3, 100] and without gradient, eps = 1e-3.
    theta - m * z is clipped to [eps, pi - eps] as published, so the exact gradient is zero for a large norm with
    theta < m * z + eps, and for a small norm with theta > pi - eps + m * z: the formula is flat there.
    The published code also clips every cosine to 1 - 1e-3, against the slope of acos at 1, and so stops pulling at
    theta = 0.045; nothing here needs that clip, and there is none.

    State: mean and std of the clipped norms of past steps, new = t_alpha * step + (1 - t_alpha) * old, std with n - 1;
    a step of one row moves the mean only. (The published class has t_alpha 1, its scripts 0.01.) A step whose norms
    include a NaN moves nothing: its loss is NaN already, and a step that the loss scaler skips leaves no trace.
    """

    mean: Tensor
    std: Tensor
    EPS = 1e-3
    NORMS = (1e-3, 100.0)

    def __init__(self, *, m: float = 0.4, h: float = 0.333, t_alpha: float = 0.01, gradient: str = "exact") -> None:
        super().__init__(gradient)
        self.m = within("adaface", "m", m, 0.0, 1.0, "0.4")
        self.h = within("adaface", "h", h, 0.0, 1.0, "0.333")
        self.t_alpha = within("adaface", "t_alpha", t_alpha, 0.0, 1.0, "0.01")
        self.register_buffer("mean", torch.tensor(20.0, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(100.0, dtype=torch.float64))
        self._step = StepSums()

    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        m, eps = self.strength * self.m, self.EPS
        mean, std = self.mean.to(norm.dtype), self.std.to(norm.dtype)
        z = ((norm.detach().clamp(*self.NORMS) - mean) / (std + eps) * self.h).clamp(-1.0, 1.0)  # [N]
        angle = -m * z
        cosine = clipped(cosine, -1.0, 1.0)
        # theta + angle < eps and > pi - eps, told by the cosine: no arc cosine, which has no derivative at the poles.
        below = cosine > (eps - angle).clamp_min(0.0).cos()
        above = cosine < (math.pi - eps - angle).clamp_max(math.pi).cos()
        angular = turned(cosine, angle)
        angular = torch.where(below, math.cos(eps), torch.where(above, -math.cos(eps), angular))
        return angular - (m + m * z)

    @torch.no_grad()
    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        super().observe(cosine, norm)
        self._step.add(norm.double().clamp(*self.NORMS) - self.mean.double())  # from the mean: squares lose no digits

    @torch.no_grad()
    def settle(self) -> None:
        if (step := self._step.take()) is None:
            return
        count, total, squares = step
        ok = total.isfinite()
        if count > 1:
            std = ((squares - total * total / count) / (count - 1)).clamp_min(0.0).sqrt()
            self.std.copy_(torch.where(ok, self.t_alpha * std + (1.0 - self.t_alpha) * self.std, self.std))
        self.mean.copy_(torch.where(ok, self.mean + self.t_alpha * total / count, self.mean))

    def forget(self) -> None:
        self._step.take()


class CurricularFace(Margin):
    """arcface for the target; the head turns a negative above it into cos_j * (t + cos_j).

    State: t, the mean cosine to the own class, new = alpha * step + (1 - alpha) * old, from 0: negatives above the
    target count little at first and more as training goes on. The paper and its code call a negative hard above
    cos(theta + m); the head compares with what is returned here, which is lower only where theta + m > pi.
    A step with a NaN moves nothing, as in AdaFace.
    """

    t: Tensor
    hardens_negatives = True

    def __init__(self, *, m: float = 0.5, alpha: float = 0.01, gradient: str = "exact") -> None:
        super().__init__(gradient)
        self.m = within("curricularface", "m", m, 0.0, 1.5, "0.5")
        self.alpha = within("curricularface", "alpha", alpha, 0.0, 1.0, "0.01")
        self.register_buffer("t", torch.tensor(0.0, dtype=torch.float64))
        self._step = StepSums()

    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        return added_angle(cosine, self.strength * self.m)

    @torch.no_grad()
    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        super().observe(cosine, norm)
        self._step.add(cosine.double().clamp(-1.0, 1.0))

    @torch.no_grad()
    def settle(self) -> None:
        if (step := self._step.take()) is None:
            return
        count, total, _ = step
        moved = self.alpha * total / count + (1.0 - self.alpha) * self.t
        self.t.copy_(torch.where(moved.isfinite(), moved, self.t))

    def forget(self) -> None:
        self._step.take()


class MagFace(Margin):
    """arcface whose m grows with the norm, and a penalty that makes norms grow: together, good faces grow longest.

    m(a) = l_margin + (u_margin - l_margin) / (u_norm - l_norm) * (a - l_norm), a = norm clamped to [l_norm, u_norm];
    the gradient goes through the norm, and is zero beyond the clamp. easy_margin, which the published class has on
    and nothing here has, keeps cos(theta) where it is not above 0 (a step up with theta) in place of arcface's rule.

    penalty = lambda_g * g(a), g(a) = a / u_norm^2 + 1 / a, is added to each row's cross entropy, so to the mean loss
    as its mean: with the defaults 3.5 at norm 10 and 0.64 at 110, beside a cross entropy of about 30 at the start.
    `strength` does not touch it. The paper's theorem (an optimal norm between the bounds, larger for easier faces) asks
    for lambda_g >= s * K * u_norm^2 * l_norm^2 / (u_norm^2 - l_norm^2), K the slope of m: 22.6 for s = 64.
    """

    def __init__(
        self,
        *,
        l_margin: float = 0.45,
        u_margin: float = 0.8,
        l_norm: float = 10.0,
        u_norm: float = 110.0,
        lambda_g: float = 35.0,
        easy_margin: bool = False,
        gradient: str = "exact",
    ) -> None:
        super().__init__(gradient)
        self.u_margin = within("magface", "u_margin", u_margin, 0.0, 1.5, "0.8")
        self.l_margin = within("magface", "l_margin", l_margin, 0.0, self.u_margin, "0.45, at most u_margin")
        self.u_norm = within("magface", "u_norm", u_norm, 1e-3, 1e6, "110")
        self.l_norm = within("magface", "l_norm", l_norm, 1e-3, self.u_norm, "10, below u_norm")
        if self.l_norm == self.u_norm:
            raise ValueError(f"l_norm {l_norm} must lie below u_norm {u_norm} for magface; usual: 10 and 110")
        self.lambda_g = within("magface", "lambda_g", lambda_g, 0.0, 1e6, "35, at least 22.6 with s 64")
        if not isinstance(easy_margin, bool):
            raise ValueError(f"easy_margin {easy_margin!r} must be true or false for magface; usual: false")
        self.easy_margin = easy_margin

    def harden(self, cosine: Tensor, norm: Tensor) -> Tensor:
        slope = (self.u_margin - self.l_margin) / (self.u_norm - self.l_norm)
        m = self.strength * (self.l_margin + slope * (clipped(norm, self.l_norm, self.u_norm) - self.l_norm))  # [N]
        if self.easy_margin:
            cosine = clipped(cosine, -1.0, 1.0)
            return torch.where(cosine > 0.0, turned(cosine, m), cosine)
        return added_angle(cosine, m)

    def penalty(self, norm: Tensor) -> Tensor:
        """Return lambda_g * g(a) of norms [N]; beyond the clamp its gradient is zero, as published."""
        a = clipped(norm, self.l_norm, self.u_norm)
        return self.lambda_g * (a / self.u_norm**2 + 1.0 / a)
