"""Task settings -> the task that learns: the one table of what fastface trains."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastface.config import DataConfig, ModelConfig
from fastface.fusion_settings import ContrastiveLoss, FusionTask
from fastface.heads.margin_head import MarginHead
from fastface.losses.compared import Compared
from fastface.losses.contrastive import contrastive_loss
from fastface.losses.margins import build_margin
from fastface.losses.multi_similarity import multi_similarity_loss
from fastface.losses.supcon import supcon_loss
from fastface.losses.triplet import triplet_loss
from fastface.models import Backbone, build_backbone
from fastface.models.fusion import Fusion
from fastface.models.matcher import Matcher
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
from fastface.tasks.match import Match
from fastface.tasks.metric import Comparison, Metric
from fastface.tasks.pair import Pair
from fastface.timing import Watch

Loss = ArcFaceTask | TripletTask | SupConTask | MultiSimilarityTask | PairTask | ContrastiveLoss
Window = tuple[int, int, int, int] | None


def network_size(data: DataConfig, model: ModelConfig) -> tuple[int, int]:
    """Width and height in px of what the network sees."""
    if model.window is None:
        return data.size
    x0, y0, x1, y1 = model.window
    if not (0 <= x0 < x1 <= data.size[0] and 0 <= y0 < y1 <= data.size[1]):
        raise ValueError(f"model.window {list(model.window)} does not lie inside data.size {list(data.size)}")
    return x1 - x0, y1 - y0


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
    fusion_start: Start | None = None,
) -> Task:
    """Build the network and what it learns by, for `num_classes` identities; task.distill says how from a teacher.

    embedding_sizes, embedding_mean, fusion_start: of data.embeddings, for the tasks that learn from them.
    """
    if isinstance(task, FusionTask):
        network: Any = build_fusion(task, embedding_sizes, fusion_start)
        return _learned(task.loss, network, None, network.embedding_size, num_classes, seed)
    if isinstance(task, MatchTask):
        return Match(
            build_matcher(task, embedding_sizes, embedding_mean),
            genuine=genuine_share(data.plan),
            keep_hardest=task.keep_hardest,
        )
    backbone = _backbone(model, data)
    built = _learned(task, backbone, model.window, model.embedding_size, num_classes, seed)
    if task.distill is not None:
        assert teacher is not None, "task.distill asks for a teacher"
        weight, size = task.distill.weight, model.embedding_size
        built.distillation = Distillation(teacher, weight=weight, embedding_size=size, seed=seed)
        built.collapsed_loss = None  # the loss of equal embeddings is then another one
    return built


def _backbone(model: ModelConfig, data: DataConfig) -> Backbone:
    backbone = build_backbone(
        model.backbone,
        embedding_size=model.embedding_size,
        input_size=network_size(data, model),
        dropout=model.dropout,
        drop_path=model.drop_path,
        pretrained=model.pretrained,
        stem=model.stem,
    )
    if set(data.scales) - {data.size} and not backbone.any_size:
        raise ValueError(
            f"data.scales needs a network that takes any size, and {model.backbone} ends in a layer made for one: take "
            "inception_resnet_v1, or low_resolution in data.augment for faces of mixed resolution"
        )
    return backbone


def _learned(
    task: Loss,
    backbone: Backbone,
    window: Window,
    embedding_size: int,
    num_classes: int,
    seed: int,
) -> Task:
    """Put a network under the loss that the settings ask for."""
    if isinstance(task, ArcFaceTask):
        return arcface(task, backbone, window, embedding_size, num_classes, seed)
    if isinstance(task, PairTask):
        return pair(task, backbone, window)
    return Metric(backbone, comparison_of(task), window, seed=seed, collapsed_loss=collapsed_loss_of(task))


def build_matcher(task: MatchTask, sizes: Sequence[int], mean: Tensor | None = None) -> Matcher:
    """Build what compares embeddings of these sizes, as it is before training."""
    return Matcher(
        sizes,
        features=task.features,
        hidden=task.hidden,
        dropout=task.dropout,
        scale=task.scale,
        bias=task.bias,
        mean=mean,
        pairs=task.pairs,
    )


def build_fusion(task: FusionTask, sizes: Sequence[int], start: Start | None = None) -> Fusion:
    """Build what fuses embeddings of these sizes, as it is before training."""
    return Fusion(
        sizes,
        network=task.network,
        embedding_size=task.embedding_size,
        hidden=task.hidden,
        batch_norm=task.batch_norm,
        dropout=task.dropout,
        learn_scales=task.learn_scales,
        quality=task.quality,
        set_size=task.set_size,
        pooling=task.pooling,
        start=None if start is None else start.map,
        log_norms=None if start is None else start.log_norms,
    )


def genuine_share(plan: PlanSettings) -> float:
    return plan.genuine if isinstance(plan, PairsPlan) else 0.5


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
