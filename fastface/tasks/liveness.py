"""Live or spoof, from one image: images and classes -> loss; ships the network that gives the logits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastface.config import DataConfig
from fastface.data.attacks import ClassTargets
from fastface.data.batch import Batch
from fastface.data.index import Index
from fastface.data.normalisation import PerColour
from fastface.data.plan import Plan, hash_rows
from fastface.losses.compared import mean_of_hardest, mean_where
from fastface.losses.fourier import SpectrumHead, spectrum
from fastface.models.liveness import DeployedLiveness, LivenessNetwork, cut_patches
from fastface.tasks.base import Output, StepInfo, Targets, Task

PATCH = 105
"""What a run's seed is hashed with for the places of patches, apart from the other streams."""
UNFIT = {"pairs", "mined"}
"""Plans that choose by identity: here these are live and spoof."""

ClassLoss = Callable[[Tensor, Tensor], Tensor]
"""Logits [B, C] and classes int64 [B] -> the loss of each, [B]."""


class Liveness(Task):
    """A network whose first class is live.

    Args:
        classes: the class of every record of the set it learns from.
        class_loss: of logits and classes, for each sample.
        keep_hardest: the mean is of this share of a micro-batch, those with the largest losses, ...
        keep_hardest_after_epochs: ... from then on, and of all before.
        fourier_weight: of the spectrum in the loss; the classes have the rest.
        mean, std: images are (pixel - mean) / std.
        patch_px: learn from one random patch of each image.
        seed: of their places.
    """

    backbone: LivenessNetwork
    calls_classes = "classes"

    def __init__(
        self,
        network: LivenessNetwork,
        window: tuple[int, int, int, int] | None = None,
        *,
        classes: ClassTargets,
        class_loss: ClassLoss,
        keep_hardest: float = 1.0,
        keep_hardest_after_epochs: float = 0.0,
        fourier_weight: float = 0.0,
        mean: PerColour = 127.5,
        std: PerColour = 127.5,
        patch_px: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(network, window)
        self.classes, self.class_loss = classes, class_loss
        self.keep_hardest, self.keep_hardest_after_epochs = keep_hardest, keep_hardest_after_epochs
        self.keeps = keep_hardest  # of the step under way
        self.fourier_weight, self.mean, self.std = fourier_weight, mean, std
        self.patch_px, self.seed = patch_px, seed
        self.spectrum_head = SpectrumHead(network.map_channels) if fourier_weight else None

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        if data.plan.name in UNFIT:
            raise ValueError(
                f"data.plan {data.plan.name} chooses among identities, which task liveness does not tell apart: set "
                "data.plan.name: weighted, with column label or attack, or shuffled"
            )
        return super().plan(data, index, batch_size, seed)

    def before_step(self, info: StepInfo, optimizer: torch.optim.Optimizer) -> None:
        super().before_step(info, optimizer)
        self.keeps = self.keep_hardest if info.epoch >= self.keep_hardest_after_epochs else 1.0

    def inputs(self, batch: Batch) -> Tensor:
        images = super().inputs(batch)
        if self.patch_px is None:
            return images
        return cut_patches(images, hash_rows(self.seed, batch.step, batch.records, PATCH), self.patch_px)

    def targets(self, batch: Batch) -> Targets:
        numbers = torch.from_numpy(self.classes.of_record[batch.records].astype(np.int64))
        found = {"labels": numbers.to(batch.images.device)}
        if self.spectrum_head is not None:
            found["spectrum"] = spectrum(self.inputs(batch), self.backbone.map_size, mean=self.mean, std=self.std)
        return found

    def loss(self, embedding: Any, targets: Targets) -> Output:
        """Return the loss of a micro-batch: of logits [B, C], and of the feature map where a spectrum is predicted."""
        logits, features = embedding if isinstance(embedding, tuple) else (embedding, None)
        if logits.dtype != torch.float64:
            logits = logits.float()
        labels = targets["labels"]
        loss = mean_of_hardest(self.class_loss(logits, labels), self.keeps)
        live, called = labels == 0, logits.detach().argmax(1) == 0
        right = (live == called).to(logits.dtype)
        terms = {
            "live_right": mean_where(right, live),
            "spoof_right": mean_where(right, ~live),
            "live": live.to(logits.dtype).mean(),
        }
        if self.spectrum_head is None or features is None:
            return Output(loss, terms)
        wanted = targets["spectrum"]
        missed = (self.spectrum_head(features).to(wanted.dtype) - wanted).square().mean()
        terms |= {"class_loss": loss.detach(), "spectrum_loss": missed.detach()}
        return Output((1 - self.fourier_weight) * loss + self.fourier_weight * missed, terms)

    def deploy(self) -> nn.Module:
        """Return what export ships: [B, 3, H, W] float, normalised -> logits [B, classes]."""
        return DeployedLiveness(self.backbone, self.window, self.patch_px)
