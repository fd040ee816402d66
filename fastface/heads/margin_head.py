"""Embeddings and labels -> margin softmax loss, with learned centres of classes that are spread over processes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastface import dist
from fastface.collect import gather, gather_parts, largest, log_sum_exp_parts, sum_parts
from fastface.heads.class_rows import ClassRows
from fastface.losses.class_softmax import Rules, compare, target_cosine
from fastface.losses.compared import check_keep_hardest, mean_of_hardest
from fastface.losses.margins import Margin

EXACT_FROM = 40.0
"""log(1 + exp(z)) is taken as z from here on: exp(-40) is below a float64's precision."""


class HeadOutput(NamedTuple):
    loss: Tensor
    """Scalar: the mean over the samples of all processes, the same on each."""
    accuracy: Tensor
    """Scalar: share of samples nearest to their own class, before the margin."""
    target_cosine: Tensor
    """Scalar: mean cosine to the own class."""


class MarginHead(ClassRows):
    """Classify embeddings by their cosine to class centres, with a margin on the own class.

    loss_i = log(1 + exp(lse_i - s * h_i)), h_i = margin(cos of the own class), lse_i = log sum over the other classes
    of exp(s * cos_ij): equation 3 of ArcFace (CVPR 2019) and equation 4 of CosFace (CVPR 2018), and so on, as
    `margin` says. Every process compares the samples of all processes with its own classes; three numbers a sample
    are then reduced. At sample_rate 1 loss and gradients are those of one process with all classes.

    Args:
        margin: fastface.losses.margins.build_margin(...).
        s: scale of the cosines; margins that are not `normalised` have none.
        sub_centres, filter_above: see fastface.losses.class_softmax.Rules.
        keep_hardest: share of each micro-batch's samples, those with the largest losses, that is learned from
            (OHEM, Shrivastava et al., CVPR 2016); 1: all.
        memory_mb: what may be kept of samples x classes for the backward pass; more is computed again there.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: Margin,
        s: float = 64.0,
        sub_centres: int = 1,
        sample_rate: float = 1.0,
        filter_above: float | None = None,
        keep_hardest: float = 1.0,
        memory_mb: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__(num_classes, embedding_size, sub_centres=sub_centres, sample_rate=sample_rate, seed=seed)
        if not s > 0.0:
            raise ValueError(f"s is {s}; the scale of the cosines must be above 0, 64 is usual")
        if filter_above is not None and not 0.0 < filter_above < 1.0:
            raise ValueError(f"filter_above is {filter_above}; a cosine in (0, 1) is meant, 0.4 is usual")
        check_keep_hardest(keep_hardest)
        self.margin = margin
        self.keep_hardest = keep_hardest
        self.micro_batch: int | None = None  # samples among which the hardest are kept; None: those of a process
        scale = s if margin.normalised else 1.0
        self.rules = Rules(scale, margin.normalised, sub_centres, filter_above, memory_mb << 20)

    def forward(self, embedding: Tensor, labels: Tensor) -> HeadOutput:
        """Return the loss of the samples of all processes.

        embedding: [B, D] of this process, any floating type, not normalised; labels: int64 [B]. The two products of
        samples and classes run in the autocast type; target column, softmax and loss in the type of the centres.
        """
        kind, dtype = embedding.device.type, self.learning.dtype
        reduced = torch.is_autocast_enabled(kind)
        product = torch.get_autocast_dtype(kind) if reduced else dtype
        with torch.autocast(kind, enabled=False):
            own_rows = embedding.to(dtype)
            norm = gather(torch.linalg.vector_norm(own_rows, dim=1))  # [N]: N samples of all processes
            rows = gather_parts(own_rows)  # [N, D]
            every = gather(labels)
            unit = F.normalize(rows) if self.margin.normalised else rows
            own, centres = self.own(every), self.learning
            harder_than = t = None
            if self.margin.hardens_negatives and self.margin.strength > 0:
                with torch.no_grad():
                    cosine = sum_parts(target_cosine(unit, centres, own, self.rules))
                    harder_than, t = self.margin(cosine, norm), self.margin.get_buffer("t").to(dtype)
            lse, top, target = compare(unit, centres, own, self.rules, harder_than=harder_than, t=t, product=product)
            lse, top, target = log_sum_exp_parts(lse), largest(top), sum_parts(target)
            hardened = self.margin(target, norm)
            losses = F.softplus(lse - self.rules.scale * hardened, threshold=EXACT_FROM)
            penalty = self.margin.penalty(norm)
            if penalty is not None:
                losses = losses + penalty
            self.margin.observe(target.detach(), norm.detach())
            with torch.no_grad():
                accuracy = (target > top).to(dtype).mean()
            each = losses.view(-1, self.micro_batch or len(losses) // dist.world())
            return HeadOutput(mean_of_hardest(each, self.keep_hardest), accuracy, target.detach().mean())

    def settle(self) -> None:
        """End an optimizer step: the margin's running values move by what the step has shown."""
        self.margin.settle()

    def extra_repr(self) -> str:
        size, rules = self.weight.shape[1], self.rules
        return f"{self.num_classes} x {size}, s={rules.scale} {rules.sub_centres} centre(s), rate={self.sample_rate}"
