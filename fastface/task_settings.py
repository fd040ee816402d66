"""Everything a task can be told: `task` of the YAML, one section per task and per margin, chosen by its name."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from fastface.liveness_settings import LivenessTask
from fastface.section import Section, TaskSection
from fastface.temporal_settings import TemporalTask


class ArcFaceMargin(Section):
    """cos(theta + m): ArcFace, CVPR 2019."""

    name: Literal["arcface"] = "arcface"
    m: float = Field(default=0.5, ge=0)
    """Radians."""


class CosFaceMargin(Section):
    """cos(theta) - m: CosFace, CVPR 2018."""

    name: Literal["cosface"] = "cosface"
    m: float = Field(default=0.4, ge=0)
    """A cosine."""


class CombinedMargin(Section):
    """cos(m1 * theta + m2) - m3: ArcFace, CVPR 2019, equation 4."""

    name: Literal["combined"] = "combined"
    m1: float = Field(default=1.0, ge=0.5, le=4)
    m2: float = Field(default=0.3, ge=0)
    """Radians."""
    m3: float = Field(default=0.2, ge=0)
    """A cosine."""


class AdaFaceMargin(Section):
    """Harder for images of high quality, told by the length of the embedding: AdaFace, CVPR 2022."""

    name: Literal["adaface"] = "adaface"
    m: float = Field(default=0.4, ge=0)
    h: float = Field(default=0.333, gt=0)
    """How far the lengths spread: one standard deviation moves the margin by h of its range."""
    t_alpha: float = Field(default=0.01, gt=0, le=1)
    """Share of a step in the running mean and standard deviation of the lengths."""


class CurricularFaceMargin(Section):
    """Harder negatives weigh more as training succeeds: CurricularFace, CVPR 2020."""

    name: Literal["curricularface"] = "curricularface"
    m: float = Field(default=0.5, ge=0)
    """Radians."""
    alpha: float = Field(default=0.01, gt=0, le=1)
    """Share of a step in the running mean cosine."""


class MagFaceMargin(Section):
    """The margin grows with the length of the embedding, which becomes a measure of quality: MagFace, CVPR 2021."""

    name: Literal["magface"] = "magface"
    l_margin: float = Field(default=0.45, ge=0)
    """Radians, at l_norm."""
    u_margin: float = Field(default=0.8, ge=0)
    """Radians, at u_norm."""
    l_norm: float = Field(default=10.0, gt=0)
    u_norm: float = Field(default=110.0, gt=0)
    lambda_g: float = Field(default=35.0, ge=0)
    """Weight of the term that lengthens embeddings."""


class NormFaceMargin(Section):
    """Cosines without a margin: NormFace, 2017."""

    name: Literal["normface"] = "normface"


class SoftmaxMargin(Section):
    """Plain softmax over inner products: no normalisation, no scale, no margin."""

    name: Literal["softmax"] = "softmax"


MarginSettings = (
    ArcFaceMargin
    | CosFaceMargin
    | CombinedMargin
    | AdaFaceMargin
    | CurricularFaceMargin
    | MagFaceMargin
    | NormFaceMargin
    | SoftmaxMargin
)


class Distillation(Section):
    """Learn from a larger model's embeddings beside the task's own loss."""

    teacher: Path
    """A RUN or a step folder. Its input size and normalisation may be others, its faces should be cut alike."""
    weight: float = Field(default=1.0, gt=0)
    """Of (1 - cosine to the teacher's embedding), added to the task's loss. By the cosine to the own centre a margin
    softmax has a gradient of up to s: 1 is little beside it, s / 2 is a like share."""


class TripletTerm(Section):
    """What a triplet loss can be told, alone or beside a margin head."""

    margin: float = Field(default=0.2, gt=0)
    """Between the distance to another identity and that to the own one."""
    distance: Literal["squared", "plain"] = "squared"
    """Of unit embeddings: squared (FaceNet) or plain (Hermans et al.)."""
    mining: Literal["semi-hard", "violators", "hardest", "batch-hard", "distance-weighted", "all"] = "semi-hard"
    """semi-hard: a random negative farther than the positive, yet inside the margin (FaceNet); violators: of all inside
    the margin, nearer ones included (davidsandberg's facenet); hardest: the nearest negative of every pair; batch-hard:
    the farthest positive and the nearest negative of every image (Hermans et al., 2017); distance-weighted: Wu et al.,
    2017; all: every triplet."""
    hardest_after_epochs: float | None = Field(default=None, ge=0)
    """A curriculum: from this epoch on, mining is `hardest`."""
    soft: bool = False
    """log(1 + exp(difference)) instead of the margin (Hermans et al., 2017)."""
    chunk: int | None = Field(default=None, gt=0)
    """Triplets handled at a time, which bounds the memory; null: all."""


class ArcFaceTask(TaskSection):
    """Identity classification with a margin; the embedding is what remains."""

    name: Literal["arcface"] = "arcface"
    margin: Annotated[MarginSettings, Field(discriminator="name")] = ArcFaceMargin()
    """By name: arcface, cosface, combined, adaface, curricularface, magface, normface, softmax."""
    s: float = Field(default=64.0, gt=0)
    """Scale of the cosines before the softmax."""
    gradient: Literal["exact", "straight_through"] = "exact"
    """straight_through takes d logit / d cosine = s, as InsightFace's trainer does since December 2022."""
    margin_ramp_epochs: float = Field(default=0.0, ge=0)
    """A curriculum: the margin grows from 0 to its value over the first epochs."""
    sub_centres: int = Field(default=1, ge=1)
    """Centres an identity (sub-center ArcFace, ECCV 2020): 3 for sets with wrong labels."""
    sample_rate: float = Field(default=1.0, gt=0, le=1)
    """Share of the other identities that a step compares with (Partial FC): 0.1 to 0.3 from a million identities on."""
    filter_above: float | None = Field(default=None, gt=0, lt=1)
    """Leave out other identities whose cosine exceeds this: probably the same person twice (0.4 is usual)."""
    keep_hardest: float = Field(default=1.0, gt=0, le=1)
    """Learn from this share of each micro-batch, the samples with the largest losses (OHEM)."""
    keep_hardest_after_epochs: float = Field(default=0.0, ge=0)
    """Learn from all before."""
    head_memory_mb: int = Field(default=512, gt=0)
    """Values of samples x identities are kept up to this size for the backward pass, and computed again beyond it."""
    triplet: TripletTerm | None = None
    """Add a triplet loss of the same embeddings."""
    triplet_weight: float = Field(default=1.0, gt=0)
    distill: Distillation | None = None
    centres: Path | None = None
    """Start the identities' centres from those of a RUN or step folder, by name (SOURCE/NAME with data.labels:
    separate); identities it did not know start at random."""
    freeze_centres: bool = False
    """Keep those centres as they are: a student learns to place faces where its teacher does. Needs centres that know
    every identity."""

    @model_validator(mode="after")
    def _consistent(self) -> "ArcFaceTask":
        if self.freeze_centres and self.centres is None:
            raise ValueError("freeze_centres keeps the centres of a run: name it as centres")
        return self


class TripletTask(TripletTerm, TaskSection):
    """Triplets chosen among the embeddings of a whole step; needs data.plan per-identity."""

    name: Literal["triplet"] = "triplet"
    distill: Distillation | None = None


class SupConTask(TaskSection):
    """Supervised contrastive learning (Khosla et al., 2020, equation 2); needs data.plan per-identity."""

    name: Literal["supcon"] = "supcon"
    temperature: float = Field(default=0.1, gt=0)
    distill: Distillation | None = None


class MultiSimilarityTask(TaskSection):
    """Multi-similarity loss with its mining (Wang et al., CVPR 2019); needs data.plan per-identity."""

    name: Literal["multi-similarity"] = "multi-similarity"
    alpha: float = Field(default=2.0, gt=0)
    beta: float = Field(default=50.0, gt=0)
    base: float = 0.5
    epsilon: float = Field(default=0.1, ge=0)
    distill: Distillation | None = None


class PairTask(TaskSection):
    """Same person or not, by the cosine of pairs; needs data.plan pairs."""

    name: Literal["pair"] = "pair"
    loss: Literal["bce", "contrastive"] = "bce"
    """bce: logistic regression of scale * cosine + bias; contrastive: Hadsell et al., 2006."""
    scale_logits: float = Field(default=16.0, gt=0)
    """bce: what the cosine is multiplied by at first."""
    bias: float = -4.0
    """bce: what is added, at first."""
    learn_scale: bool = True
    """bce: let scale and bias learn."""
    margin: float = Field(default=0.5, gt=0)
    """contrastive: impostors farther apart than this are left alone."""
    distance: Literal["plain", "squared", "cosine"] = "plain"
    """contrastive: of unit embeddings."""
    keep_hardest: float = Field(default=1.0, gt=0, le=1)
    """Learn from this share of each micro-batch's pairs, those with the largest losses (OHEM)."""
    distill: Distillation | None = None


class MatchTask(TaskSection):
    """Same person or not, learned from pairs of embeddings that are there already: data.embeddings, not images."""

    kind: ClassVar[str] = "match"
    from_embeddings: ClassVar[bool] = True
    name: Literal["match"] = "match"
    features: Literal["cosine", "elements"] = "elements"
    """cosine: logistic regression on the score; elements: |a - b| and a * b of unit embeddings beside it."""
    hidden: tuple[int, ...] = ()
    """elements: sizes of a perceptron's hidden layers; none: logistic regression on the pair."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """After each hidden layer."""
    scale: float = Field(default=16.0, gt=0)
    """What the cosine is multiplied by at first."""
    bias: float = -4.0
    """What is added, at first."""
    centre: bool = False
    """Subtract the mean of the training embeddings from all before they are scaled to length 1."""
    pairs: Literal["neighbours", "all"] = "neighbours"
    """neighbours: rows 2i and 2i + 1 of a batch, with data.plan pairs; all: every two rows of a micro-batch, with
    data.plan per-identity, or mined for impostors that look alike. Genuine and impostor pairs weigh the same in all."""
    keep_hardest: float = Field(default=1.0, gt=0, le=1)
    """Learn from this share of each micro-batch's pairs, those with the largest losses (OHEM). The log-odds are then
    no longer those of any mix of pairs: calibrate."""

    @property
    def distill(self) -> None:
        """There is no student of images."""
        return

    @model_validator(mode="after")
    def _consistent(self) -> "MatchTask":
        if self.features == "cosine" and self.hidden:
            raise ValueError("hidden layers are for features: elements; a cosine alone leaves nothing to combine")
        return self


TaskSettings = (
    ArcFaceTask | TripletTask | SupConTask | MultiSimilarityTask | PairTask | MatchTask | LivenessTask | TemporalTask
)
