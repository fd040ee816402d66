"""Settings -> the network of a task, as it is before training: what training and loading a checkpoint share."""

from collections.abc import Sequence

from torch import Tensor

from fastface.config import DataConfig, ModelConfig
from fastface.fusion_settings import FusionTask
from fastface.liveness_settings import AMSoftmaxLoss, LivenessTask
from fastface.models import Backbone, build_backbone
from fastface.models.fusion import Fusion
from fastface.models.liveness import LivenessNetwork
from fastface.models.matcher import Matcher
from fastface.models.temporal import TemporalNetwork
from fastface.plan_settings import ClipsPlan
from fastface.task_settings import MatchTask
from fastface.tasks.fusion import Start
from fastface.temporal_settings import TemporalTask


def network_size(data: DataConfig, model: ModelConfig) -> tuple[int, int]:
    """Width and height in px of what the network sees."""
    if model.window is None:
        return data.size
    x0, y0, x1, y1 = model.window
    if not (0 <= x0 < x1 <= data.size[0] and 0 <= y0 < y1 <= data.size[1]):
        raise ValueError(f"model.window {list(model.window)} does not lie inside data.size {list(data.size)}")
    return x1 - x0, y1 - y0


def backbone_of(model: ModelConfig, data: DataConfig, input_size: tuple[int, int]) -> Backbone:
    """Build the backbone of these settings for images of input_size (width, height) px."""
    backbone = build_backbone(
        model.backbone,
        embedding_size=model.embedding_size,
        input_size=input_size,
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


def build_liveness_network(
    task: LivenessTask, model: ModelConfig, data: DataConfig, classes: Sequence[str]
) -> LivenessNetwork:
    """Build a network of these classes, as it is before training."""
    size, patch = network_size(data, model), task.patch_px
    if patch is not None and patch >= min(size):
        raise ValueError(f"task.patch_px {patch} must be below the sides of the image, {size[0]}x{size[1]} px")
    body = backbone_of(model, data, size if patch is None else (patch, patch))
    scale = task.loss.s if isinstance(task.loss, AMSoftmaxLoss) else None
    return LivenessNetwork(body, classes, scale=scale, features=task.fourier_weight > 0)


def build_temporal_network(
    task: TemporalTask, model: ModelConfig, data: DataConfig, classes: Sequence[str]
) -> TemporalNetwork:
    """Build a network of clips of these classes, as it is before training."""
    if not isinstance(data.plan, ClipsPlan):
        raise ValueError(f"task temporal learns from clips, data.plan is {data.plan.name}: set data.plan.name: clips")
    if data.plan.frames < 2:
        raise ValueError(
            f"task temporal looks at several frames: set data.plan.frames to 2 or more, not {data.plan.frames}"
        )
    if task.freeze_backbone and model.weights is None:
        raise ValueError(
            "task.freeze_backbone keeps what model.weights filled, and nothing is named there: set model.weights to a "
            "run, or freeze_backbone to false (optim.freeze_epochs keeps model.pretrained for a while)"
        )
    return TemporalNetwork(
        backbone_of(model, data, network_size(data, model)),
        classes,
        frames=data.plan.frames,
        over=task.over,
        hidden=task.hidden,
        layers=task.layers,
        dropout=task.dropout,
        readout=task.readout,
        differences=task.differences,
        frozen=task.freeze_backbone,
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
