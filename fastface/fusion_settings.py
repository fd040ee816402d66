"""Everything task fusion can be told: a network over embeddings of several models, its loss, and drawn people."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from fastface.section import Section, TaskSection
from fastface.task_settings import (
    ArcFaceTask,
    MultiSimilarityTask,
    PairTask,
    SupConTask,
    TripletTask,
)


class ContrastiveLoss(Section):
    """Hadsell et al., 2006, on all genuine pairs of a step and the impostor pairs that are mined among its rows."""

    name: Literal["contrastive"] = "contrastive"
    margin: float = Field(default=0.5, gt=0)
    """Impostors farther apart than this are left alone."""
    distance: Literal["plain", "squared", "cosine"] = "plain"
    """Of unit embeddings: |x - y|, its square, or 1 - cosine. 0.5 is a cosine of 0.875, 0.75 or 0.5."""
    mining: Literal["hardest", "all"] = "hardest"
    """Impostor pairs: hardest, the nearest one of every row; all."""


class SyntheticPeople(Section):
    """People of whom only embeddings are drawn: see fastface/data/synthetic/embeddings.py for the model.

    The defaults are what two networks show on LFW's DevTest, see configs/fusion.yaml.
    """

    identities: int | None = Field(default=None, ge=2)
    """People to train on; null: 200, with synthetic: quick 100."""
    samples: int | None = Field(default=None, ge=2)
    """Images of each; null: 20, with synthetic: quick 15."""
    val_identities: int = Field(default=100, ge=2)
    """Others, to choose and to calibrate by."""
    test_identities: int = Field(default=200, ge=2)
    """Others again, to judge by."""
    sizes: tuple[int, ...] = (512, 512, 512)
    """Values of each model's embedding."""
    code: int = Field(default=104, ge=2)
    """Dimensions in which people differ."""
    noise: tuple[float, ...] = (1.1, 1.3, 1.5)
    """Of each model: standard deviation of an image's noise, that of people being 1."""
    correlation: float = Field(default=0.35, ge=0, le=1)
    """Share of the variance of an image's noise that all models have in common: it is the same photograph."""
    identity_correlation: float = Field(default=0.6, ge=0, le=1)
    """Share of the variance of people that all models have in common: who looks like whom."""
    spread: float = Field(default=0.4, ge=0)
    """How unlike the directions of the noise are: standard deviation of the logarithm of theirs."""
    quality: float = Field(default=0.3, ge=0)
    """How unlike images are: standard deviation of the logarithm of their noise."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "SyntheticPeople":
        if len(self.noise) != len(self.sizes):
            raise ValueError(f"noise names {len(self.noise)} models, sizes {len(self.sizes)}: give one value for each")
        if not self.sizes or min(self.sizes) < self.code:
            raise ValueError(f"code {self.code} does not fit into sizes {list(self.sizes)}: no size may be smaller")
        if min(self.noise) < 0:
            raise ValueError("noise is a standard deviation, and cannot be below 0")
        return self


def _as_word(value: Any) -> Any:
    """Take true and false of a YAML for the words they are written as."""
    return {True: "true", False: "false", None: "false"}.get(value, value) if not isinstance(value, str) else value


FusionLoss = ContrastiveLoss | ArcFaceTask | TripletTask | SupConTask | MultiSimilarityTask | PairTask


class FusionTask(TaskSection):
    """One embedding out of those that several frozen models made of an image: data.embeddings, not images."""

    kind: ClassVar[str] = "fusion"
    from_embeddings: ClassVar[bool] = True
    name: Literal["fusion"] = "fusion"
    network: Literal["mlp", "skip", "linear"] = "mlp"
    """mlp: a perceptron on the concatenation; linear: a linear map of it; skip: their sum, the perceptron's last layer
    starting at zero, so that training starts at the concatenation."""
    hidden: tuple[int, ...] = (512, 256)
    """mlp, skip: sizes of the hidden layers."""
    embedding_size: int | None = Field(default=512, gt=0)
    """Of the fused embedding; null: the sum of the models' sizes."""
    start: Literal["pca", "orthogonal"] = "pca"
    """linear, skip: how the map starts where it makes the concatenation smaller: on the directions in which the
    training embeddings are largest, or on random ones. Where it does not, it starts as the identity."""
    batch_norm: bool = False
    """After each hidden linear layer, before its ReLU."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """After each hidden layer."""
    learn_scales: bool = False
    """Let the weight of each model's unit embedding learn, from 1."""
    quality: Literal["none", "norm", "gate"] = "none"
    """A weight for each model and image, from 1: norm, a learned power of the embedding's length; gate, learned from
    all embeddings and their lengths."""
    set_size: int = Field(default=1, ge=1)
    """Fuse so many images of a person at a time, neighbouring rows of data.plan per-identity, into one embedding."""
    pooling: Literal["mean", "norm", "attention"] = "mean"
    """Of the images of a set: mean of unit embeddings; weighted by a learned power of the models' lengths; attention,
    weights learned from the embeddings."""
    loss: Annotated[FusionLoss, Field(discriminator="name")] = ContrastiveLoss()
    """By name: contrastive, arcface, multi-similarity, supcon, triplet, pair, each with its settings."""
    synthetic: Annotated[Literal["false", "true", "quick"], BeforeValidator(_as_word)] = "false"
    """Draw people's embeddings instead of reading data.embeddings: true, or quick, for fewer."""
    people: SyntheticPeople = SyntheticPeople()
    """Those people."""

    @property
    def distill(self) -> None:
        """There is no student of images."""
        return

    @property
    def drawn(self) -> SyntheticPeople | None:
        """The people to draw, all numbers given; None: none are drawn."""
        if self.synthetic == "false":
            return None
        identities, samples = (100, 15) if self.synthetic == "quick" else (200, 20)
        given = {
            "identities": self.people.identities or identities,
            "samples": self.people.samples or samples,
        }
        return self.people.model_copy(update=given)

    @model_validator(mode="after")
    def _consistent(self) -> "FusionTask":
        if self.network != "linear" and not self.hidden:
            raise ValueError(f"network {self.network} needs hidden layers, such as [512, 256]; linear has none")
        if isinstance(self.loss, ArcFaceTask) and (self.loss.centres is not None or self.loss.freeze_centres):
            raise ValueError("loss.centres are of images' embeddings, and a fused embedding is another: leave them out")
        if getattr(self.loss, "distill", None) is not None:
            raise ValueError("loss.distill learns from a network of images, and task fusion sees none: leave it out")
        if isinstance(self.loss, PairTask) and self.set_size > 1:
            raise ValueError("loss pair compares neighbouring rows, which set_size makes one set: take another loss")
        if self.pooling != "mean" and self.set_size == 1:
            raise ValueError(f"pooling {self.pooling} is of a set of images: set set_size to 2 or more")
        return self
