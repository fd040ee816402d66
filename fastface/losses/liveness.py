"""Logits and classes -> the loss of each sample: cross entropy, focal, AM-softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the cross entropy [B] of logits [B, C] with classes int64 [B], in the logits' type.

    smoothing: the target is (1 - smoothing) at the class plus smoothing / C at all (Szegedy et al., CVPR 2016, 7).
    """
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """Return -(1 - p)^gamma log p [B], p the probability of the own class (Lin et al., ICCV 2017, equation 4).

    Without their alpha: data.plan weighted balances classes. 1 - p is the sum of the other probabilities, not a
    difference, so that it keeps its digits, and a gradient, where p is near 1.
    """
    others = torch.full_like(logits, 0.0).scatter(1, labels[:, None], float("-inf"))
    log_missing = (logits + others).logsumexp(1) - logits.logsumexp(1)  # log(1 - p)
    return (gamma * log_missing).exp() * F.cross_entropy(logits, labels, reduction="none")


def am_softmax(logits: Tensor, labels: Tensor, *, s: float, m: float) -> Tensor:
    """Return the cross entropy [B] of s * (cosine - m at the own class); logits [B, C] are s * cosine.

    Source: Wang, Cheng, Liu and Liu, "Additive margin softmax for face verification", 2018, equation 6.
    """
    margin = torch.full_like(logits, 0.0).scatter(1, labels[:, None], s * m)
    return F.cross_entropy(logits - margin, labels, reduction="none")
