"""Everything task liveness can be told: its classes, its loss, and what it sees of an image."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from fastface.section import Section, TaskSection


class CrossEntropyLoss(Section):
    """Softmax cross entropy."""

    name: Literal["cross-entropy"] = "cross-entropy"
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target probability that is spread over all classes (label smoothing, Szegedy et al., 2016)."""


class FocalLoss(Section):
    """Cross entropy that weighs a sample by (1 - p)^gamma of its own class: Lin et al., ICCV 2017."""

    name: Literal["focal"] = "focal"
    gamma: float = Field(default=2.0, ge=0)
    """0 is plain cross entropy."""


class AMSoftmaxLoss(Section):
    """Cosines to one weight vector a class, less a margin at the own class: Wang et al., AM-Softmax, 2018."""

    name: Literal["am-softmax"] = "am-softmax"
    s: float = Field(default=30.0, gt=0)
    """Scale of the cosines before the softmax; the probabilities of what ships have it too."""
    m: float = Field(default=0.35, ge=0)
    """A cosine."""


class LivenessTask(TaskSection):
    """Live or spoof, from one image; shards of `make_shards.py liveness`."""

    kind: ClassVar[str] = "liveness"
    name: Literal["liveness"] = "liveness"
    classes: Literal["label", "attack"] = "label"
    """What the network tells apart: live and spoof, or live and each type of attack (column `attack`). The score is the
    probability of live either way."""
    loss: Annotated[CrossEntropyLoss | FocalLoss | AMSoftmaxLoss, Field(discriminator="name")] = CrossEntropyLoss()
    """By name: cross-entropy, focal, am-softmax."""
    keep_hardest: float = Field(default=1.0, gt=0, le=1)
    """Learn from this share of each micro-batch, the images with the largest losses (OHEM); 0.7 is usual."""
    keep_hardest_after_epochs: float = Field(default=0.0, ge=0)
    """Learn from all before: at first the hardest are noise."""
    fourier_weight: float = Field(default=0.0, ge=0, lt=1)
    """Also predict the image's Fourier spectrum from a feature map, by a few layers that do not ship: the loss is
    (1 - w) x classes + w x spectrum; 0.5 is MiniFASNet's, 0 leaves it out."""
    patch_px: int | None = Field(default=None, ge=16)
    """Learn from random square patches of this side, cut without resizing; what ships averages the logits of a grid of
    them that covers the image. null: the whole image."""

    @property
    def distill(self) -> None:
        """Teachers embed faces."""
        return

    @model_validator(mode="after")
    def _consistent(self) -> "LivenessTask":
        if self.keep_hardest_after_epochs and self.keep_hardest == 1:
            raise ValueError("keep_hardest_after_epochs says when keep_hardest begins: set that below 1, 0.7 is usual")
        return self
