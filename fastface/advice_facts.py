"""A run's configuration and data set -> the facts that advice.py asks about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from fastface.config import DataConfig, ModelConfig, OptimConfig, RunConfig
from fastface.data.augment.presets import operators
from fastface.data.normalisation import PerColour, in_words, three

# Families that insightface#2144 names: no batch statistics between their blocks.
TRANSFORMERS = ("vit_", "deit", "convnext", "maxvit", "maxxvit", "coatnet", "nfnet", "dm_nfnet", "eca_nfnet")
SMALL = ("mobilefacenet", "mbf", "mobilenet", "ghostnet", "edgenext", "lcnet", "tinynet", "mnasnet", "shufflenet")


class Loss(NamedTuple):
    """What the rows ask about the task."""

    margin: str | None = None
    """Of a margin head, by name."""
    m: float = 0.0
    s: float | None = None
    """Scale of the cosines, where there is one."""
    sample_rate: float = 1.0
    filtered: bool = False
    """Leaves out other identities that look the same."""
    compares: bool = False
    """Learns from images of one identity within a step."""
    contrastive: float | None = None
    """Margin of the contrastive loss of pairs, as a cosine, where every pair counts."""


def _loss_of(task: Any) -> Loss:
    if task.name == "arcface":
        margin = task.margin
        m = next((getattr(margin, key) for key in ("m", "m2", "l_margin") if hasattr(margin, key)), 0.0)
        s = None if margin.name == "softmax" else task.s
        filtered = task.filter_above is not None
        return Loss(margin.name, m, s, task.sample_rate, filtered, compares=task.triplet is not None)
    if task.name == "pair":
        if task.loss != "contrastive" or task.keep_hardest < 1:
            return Loss()
        squared = {"plain": task.margin**2, "squared": task.margin, "cosine": 2 * task.margin}[task.distance]
        return Loss(contrastive=1 - squared / 2)  # |a - b|^2 = 2 - 2 cos for unit vectors
    return Loss(compares=True)  # triplet, supcon, multi-similarity


@dataclass(frozen=True)
class Facts:
    """A run as the rows see it; the texts take their figures from here."""

    config: RunConfig
    num_classes: int
    num_images: int
    micro_batch: int
    """Images per forward pass of one process."""
    bf16: bool
    """The device multiplies bfloat16."""
    weights_normalisation: tuple[PerColour, PerColour] | None
    """Mean and std of the images that model.weights was trained on, where they are known."""

    @cached_property
    def loss(self) -> Loss:
        return _loss_of(self.config.task)

    @property
    def optim(self) -> OptimConfig:
        return self.config.optim

    @property
    def data(self) -> DataConfig:
        return self.config.data

    @property
    def model(self) -> ModelConfig:
        return self.config.model

    @property
    def batch(self) -> int:
        return self.config.train.batch_size

    @property
    def epochs(self) -> float:
        return self.config.train.epochs

    @property
    def backbone(self) -> str:
        return self.model.backbone

    @property
    def plan(self) -> str:
        return self.data.plan.name

    @property
    def adaptive(self) -> bool:
        return self.optim.name in ("adam", "adamw")

    @property
    def sgd_margin(self) -> bool:
        return self.optim.name == "sgd" and self.loss.margin is not None

    @property
    def linear_lr(self) -> float:
        """InsightFace's: 0.1 for 1,024 images, in proportion up to 4,096."""
        return 0.1 * min(self.batch, 4096) / 1024

    @property
    def transformer(self) -> bool:
        return self.backbone.startswith(TRANSFORMERS)

    @property
    def small(self) -> bool:
        return self.backbone.startswith(SMALL)

    @property
    def loaded(self) -> bool:
        return self.model.weights is not None or bool(self.model.pretrained)

    @property
    def first_drop(self) -> float:
        """Epochs until a schedule of steps lowers the learning rate; infinite for others."""
        return min([*self.optim.milestones, self.optim.step_epochs or math.inf])

    @property
    def left_out(self) -> int:
        """Images that an epoch of a shuffled plan has no batch for."""
        return self.num_images % self.batch if self.plan == "shuffled" else 0

    @property
    def per_identity(self) -> float:
        return self.num_images / self.num_classes

    @property
    def least_s(self) -> float:
        """The scale with which a perfect embedding is given a probability of 0.9 (CosFace's bound, CVPR 2018)."""
        others = max(self.num_classes - 1, 1)
        return others / self.num_classes * math.log(others * 0.9 / 0.1)

    @property
    def adacos_s(self) -> float:
        """The fixed scale of AdaCos (CVPR 2019)."""
        return math.sqrt(2) * math.log(max(self.num_classes - 1, 2))

    @property
    def usual_s(self) -> float:
        """In the ratio of 64 to AdaCos' scale for the 85,742 identities that 64 is used with."""
        return 4 * self.adacos_s

    @property
    def chance_pairs(self) -> float:
        """Pairs of one identity in a batch of a plan that does not look for them."""
        return self.batch * (self.batch - 1) / 2 / self.num_classes

    @property
    def sigmas(self) -> float:
        """The contrastive margin in standard deviations of the cosine of random unit vectors, 1 / sqrt(D)."""
        return (self.loss.contrastive or 0.0) * math.sqrt(self.model.embedding_size)

    @property
    def views(self) -> float:
        """How often a per-identity plan shows an image in the whole run, on average."""
        steps = getattr(self.data.plan, "steps_per_epoch", None)
        if steps is not None:
            return self.epochs * steps * self.batch / self.num_images
        return self.epochs * getattr(self.data.plan, "images", math.inf) / self.per_identity

    @cached_property
    def augmented(self) -> float:
        """Operators that change an image, on average."""
        return sum(operator.p for operator in operators(self.data.augment))

    @property
    def other_normalisation(self) -> bool:
        return self.weights_normalisation is not None and not self.normalised_by(*self.weights_normalisation)

    def normalised_by(self, mean: PerColour, std: PerColour) -> bool:
        return (three(self.data.mean), three(self.data.std)) == (three(mean), three(std))

    @property
    def normalisation(self) -> str:
        return f"data.mean and std are {in_words(self.data.mean)} and {in_words(self.data.std)}"

    @property
    def weights_wanted(self) -> str:
        assert self.weights_normalisation is not None
        return " and ".join(in_words(value) for value in self.weights_normalisation)

    @property
    def imagenet(self) -> bool:
        """timm's weights for this network were trained with ImageNet's mean and std."""
        from timm.models import get_pretrained_cfg  # a second of imports, for pretrained networks only

        entry = get_pretrained_cfg(self.backbone)
        return entry is not None and max(entry.std) < 0.3
