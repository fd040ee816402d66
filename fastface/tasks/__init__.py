"""Task settings -> the task that learns: the one table of what fastface trains."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from fastface.config import DataConfig, ModelConfig
from fastface.data.attacks import ClassTargets
from fastface.fusion_settings import ContrastiveLoss, FusionTask
from fastface.heads.margin_head import MarginHead
from fastface.liveness_settings import AMSoftmaxLoss, FocalLoss, LivenessTask
from fastface.losses.compared import Compared
from fastface.losses.contrastive import contrastive_loss
from fastface.losses.liveness import am_softmax, cross_entropy, focal
from fastface.losses.margins import build_margin
from fastface.losses.multi_similarity import multi_similarity_loss
from fastface.losses.supcon import supcon_loss
from fastface.losses.triplet import triplet_loss
from fastface.models import Backbone
from fastface.plan_settings import PairsPlan, PlanSettings
from fastface.task_settings import (
    ArcFaceTask,
    MatchTask,
    MultiSimilarityTask,
    PairTask,
    SupConTask,
    TaskSettings,
    TripletTask,
    TripletTerm,
)
from fastface.tasks.arcface import ArcFace
from fastface.tasks.base import Task
from fastface.tasks.distill import Distillation, Teacher
from fastface.tasks.fusion import Start
from fastface.tasks.liveness import ClassLoss, Liveness
from fastface.tasks.match import Match
from fastface.tasks.metric import Comparison, Metric
from fastface.tasks.networks import (
    backbone_of,
    build_fusion,
    build_liveness_network,
    build_matcher,
    build_temporal_network,
    network_size,
)
from fastface.tasks.pair import Pair
from fastface.tasks.temporal import Temporal
from fastface.temporal_settings import TemporalTask
from fastface.timing import Watch

ImageTask = ArcFaceTask | TripletTask | SupConTask | MultiSimilarityTask | PairTask
Loss = ImageTask | ContrastiveLoss
Window = tuple[int, int, int, int] | None


def build_task(
    task: TaskSettings | FusionTask,
    model: ModelConfig,
    data: DataConfig,
    *,
    num_classes: int,
    seed: int,
    teacher: Teacher | None = None,
    embedding_sizes: Sequence[int] = (),
    embedding_mean: Tensor | None = None,
    classes: ClassTargets | None = None,
    fusion_start: Start | None = None,
) -> Task:
    """Build the network and what it learns by, for `num_classes` identities; task.distill says how from a teacher.

    embedding_sizes, embedding_mean, fusion_start: of data.embeddings, for the tasks that learn from them. classes: for
    a task that tells live from spoof.
    """
    given = Given(model, data, num_classes, seed, embedding_sizes, embedding_mean, classes, fusion_start)
    built = BUILDERS[task.kind](task, given)
    if task.distill is not None:
        assert teacher is not None, "task.distill asks for a teacher"
        weight, size = task.distill.weight, model.embedding_size
        built.distillation = Distillation(teacher, weight=weight, embedding_size=size, seed=seed)
        built.collapsed_loss = None  # the loss of equal embeddings is then another one
    return built


class Given(NamedTuple):
    """What a task is built of beside its own settings, see `build_task`."""

    model: ModelConfig
    data: DataConfig
    num_classes: int
    seed: int
    embedding_sizes: Sequence[int]
    embedding_mean: Tensor | None
    classes: ClassTargets | None
    fusion_start: Start | None


def _recognition(task: ImageTask, given: Given) -> Task:
    model, seed = given.model, given.seed
    backbone = backbone_of(model, given.data, network_size(given.data, model))
    return _learned(task, backbone, model.window, model.embedding_size, given.num_classes, seed)


def _fusion(task: FusionTask, given: Given) -> Task:
    network: Any = build_fusion(task, given.embedding_sizes, given.fusion_start)
    return _learned(task.loss, network, None, network.embedding_size, given.num_classes, given.seed)


def _learned(task: Loss, backbone: Backbone, window: Window, embedding_size: int, num_classes: int, seed: int) -> Task:
    """Put a network under the loss that the settings ask for."""
    if isinstance(task, ArcFaceTask):
        return arcface(task, backbone, window, embedding_size, num_classes, seed)
    if isinstance(task, PairTask):
        return pair(task, backbone, window)
    return Metric(backbone, comparison_of(task), window, seed=seed, collapsed_loss=collapsed_loss_of(task))


def _match(task: MatchTask, given: Given) -> Match:
    matcher = build_matcher(task, given.embedding_sizes, given.embedding_mean)
    return Match(matcher, genuine=genuine_share(given.data.plan), keep_hardest=task.keep_hardest)


def genuine_share(plan: PlanSettings) -> float:
    return plan.genuine if isinstance(plan, PairsPlan) else 0.5


def _liveness(task: LivenessTask, given: Given) -> Liveness:
    classes, data, model = given.classes, given.data, given.model
    assert classes is not None, "task liveness learns the classes of a shard set"
    return Liveness(
        build_liveness_network(task, model, data, classes.names),
        model.window,
        classes=classes,
        class_loss=class_loss_of(task),
        keep_hardest=task.keep_hardest,
        keep_hardest_after_epochs=task.keep_hardest_after_epochs,
        fourier_weight=task.fourier_weight,
        mean=data.mean,
        std=data.std,
        patch_px=task.patch_px,
        seed=given.seed,
    )


def _temporal(task: TemporalTask, given: Given) -> Temporal:
    classes = given.classes
    assert classes is not None, "task temporal learns the classes of a shard set"
    network = build_temporal_network(task, given.model, given.data, classes.names)
    return Temporal(network, given.model.window, classes=classes, class_loss=class_loss_of(task))


def class_loss_of(task: LivenessTask | TemporalTask) -> ClassLoss:
    """Return the loss of each sample that the settings ask for."""
    loss = task.loss
    if isinstance(loss, FocalLoss):
        return partial(focal, gamma=loss.gamma)
    if isinstance(loss, AMSoftmaxLoss):
        return partial(am_softmax, s=loss.s, m=loss.m)
    return partial(cross_entropy, smoothing=loss.smoothing)


BUILDERS: dict[str, Callable[[Any, Given], Task]] = {
    "recognition": _recognition,
    "match": _match,
    "fusion": _fusion,
    "liveness": _liveness,
    "temporal": _temporal,
}
"""By `kind` of the task's section."""


def pair(task: PairTask, backbone: Backbone, window: Window) -> Pair:
    return Pair(
        backbone,
        window,
        loss=task.loss,
        scale=task.scale_logits,
        bias=task.bias,
        learn_scale=task.learn_scale,
        margin=task.margin,
        distance=task.distance,
        keep_hardest=task.keep_hardest,
    )


def comparison_of(task: TripletTerm | SupConTask | MultiSimilarityTask | ContrastiveLoss) -> Comparison:
    """Return the loss of a step's rows that the settings ask for."""
    if isinstance(task, ContrastiveLoss):
        options = {"margin": task.margin, "distance": task.distance, "mining": task.mining}
        return lambda embedding, labels, *, key, epoch, watch: contrastive_loss(embedding, labels, **options)
    if isinstance(task, SupConTask):
        return lambda embedding, labels, *, key, epoch, watch: supcon_loss(
            embedding, labels, temperature=task.temperature
        )
    if isinstance(task, MultiSimilarityTask):
        given = {"alpha": task.alpha, "beta": task.beta, "base": task.base, "epsilon": task.epsilon}
        return lambda embedding, labels, *, key, epoch, watch: multi_similarity_loss(embedding, labels, **given)

    def triplets(embedding: Tensor, labels: Tensor, *, key: int, epoch: float, watch: Watch) -> Compared:
        late = task.hardest_after_epochs is not None and epoch >= task.hardest_after_epochs
        return triplet_loss(
            embedding,
            labels,
            margin=task.margin,
            distance=task.distance,
            mining="hardest" if late else task.mining,
            soft=task.soft,
            chunk=task.chunk,
            key=key,
            watch=watch,
        )

    return triplets


def collapsed_loss_of(task: TripletTerm | SupConTask | MultiSimilarityTask | ContrastiveLoss) -> float | None:
    if isinstance(task, TripletTerm):
        return math.log(2) if task.soft else task.margin
    return None


def arcface(
    task: ArcFaceTask, backbone: Backbone, window: Window, embedding_size: int, num_classes: int, seed: int
) -> ArcFace:
    margin = build_margin(gradient=task.gradient, **task.margin.model_dump())
    head = MarginHead(
        num_classes,
        embedding_size,
        margin=margin,
        s=task.s,
        sub_centres=task.sub_centres,
        sample_rate=task.sample_rate,
        filter_above=task.filter_above,
        keep_hardest=task.keep_hardest,
        memory_mb=task.head_memory_mb,
        seed=seed,
    )
    head.learning.requires_grad_(not task.freeze_centres)
    return ArcFace(
        backbone,
        head,
        window,
        triplet=comparison_of(task.triplet) if task.triplet is not None else None,
        triplet_weight=task.triplet_weight,
        seed=seed,
        margin_ramp_epochs=task.margin_ramp_epochs,
        keep_hardest_after_epochs=task.keep_hardest_after_epochs,
    )
