"""Embeddings and labels -> margin softmax loss, with one learned centre per class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastface.losses.margin import apply_margin, check_margin


class MarginHead(nn.Module):
    """Classify embeddings by their cosine to class centres, with a margin on the own class.

    loss = mean over the batch of -log softmax(s * [cos_1, ..., margin(cos_label), ..., cos_C])[label]:
    equation 3 of ArcFace (CVPR 2019) or equation 4 of CosFace (CVPR 2018), as `margin` says; losses/margin.py
    has the formulas, the rule beyond theta + m = pi, and the two gradients.

    The matrix product [B, D] x [D, C] may run in half precision under autocast. The target column is computed
    again from float32 operands, and margin, scale, softmax and loss are float32 (float64 for a float64 head).
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: str = "arcface",
        m: float = 0.5,
        s: float = 64.0,
        gradient: str = "exact",
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; a classifier needs at least 2 identities")
        check_margin(margin, m, s, gradient)
        self.margin, self.m, self.s, self.gradient = margin, m, s, gradient
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.normal_(self.weight, 0.0, 0.01)  # InsightFace's; only the direction of a row matters

    def forward(self, embedding: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (loss, cosine).

        embedding: [B, D], any floating type, not normalised. labels: int64 [B] in [0, num_classes); others
        are an IndexError on the CPU and a device assertion on CUDA (not checked here: it would cost a
        synchronisation). loss: scalar, float32. cosine: [B, num_classes] without margin and scale, detached,
        in the type the matrix product ran in: for accuracy and monitoring.
        """
        dtype = self.weight.dtype
        with torch.autocast(embedding.device.type, enabled=False):
            x = F.normalize(embedding.to(dtype))  # [B, D]
            centres = F.normalize(self.weight)  # [C, D]
            target = (x * centres[labels]).sum(1)  # [B]
            hardened = apply_margin(target, self.margin, self.m, self.gradient)
        cosine = F.linear(x, centres)  # [B, C]
        # One float32 copy of the cosines; the target column is overwritten in place, so neither a one-hot
        # mask nor a second copy of size B x C exists. Overwriting also cuts the rough target out of the
        # gradient.
        logits = cosine.to(dtype) * self.s
        logits.scatter_(1, labels[:, None], (hardened * self.s)[:, None])
        with torch.autocast(embedding.device.type, enabled=False):
            return F.cross_entropy(logits, labels), cosine.detach()

    def extra_repr(self) -> str:
        classes, size = self.weight.shape
        return f"{classes} x {size}, {self.margin} m={self.m} s={self.s} gradient={self.gradient}"
