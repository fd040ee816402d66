"""Task settings -> the task that learns: the one table of what fastface trains."""

from fastface.config import DataConfig, ModelConfig
from fastface.heads.margin_head import MarginHead
from fastface.losses.margins import build_margin
from fastface.models import Backbone, build_backbone
from fastface.task_settings import ArcFaceTask, TaskSettings
from fastface.tasks.arcface import ArcFace
from fastface.tasks.base import Task


def network_size(data: DataConfig, model: ModelConfig) -> tuple[int, int]:
    """Width and height in px of what the network sees."""
    if model.window is None:
        return data.size
    x0, y0, x1, y1 = model.window
    if not (0 <= x0 < x1 <= data.size[0] and 0 <= y0 < y1 <= data.size[1]):
        raise ValueError(f"model.window {list(model.window)} does not lie inside data.size {list(data.size)}")
    return x1 - x0, y1 - y0


def build_task(task: TaskSettings, model: ModelConfig, data: DataConfig, *, num_classes: int, seed: int) -> Task:
    """Build the network and what it learns by, for `num_classes` identities."""
    if set(data.scales) - {data.size}:
        raise ValueError(
            "data.scales needs a network that takes any size; those of task arcface end in a layer made for one: "
            "take low_resolution in data.augment for faces of mixed resolution"
        )
    backbone = build_backbone(
        model.backbone,
        embedding_size=model.embedding_size,
        input_size=network_size(data, model),
        dropout=model.dropout,
        pretrained=model.pretrained,
        stem=model.stem,
    )
    assert isinstance(task, ArcFaceTask)
    return arcface(task, backbone, model, num_classes, seed)


def arcface(task: ArcFaceTask, backbone: Backbone, model: ModelConfig, num_classes: int, seed: int) -> ArcFace:
    margin = build_margin(gradient=task.gradient, **task.margin.model_dump())
    head = MarginHead(
        num_classes,
        model.embedding_size,
        margin=margin,
        s=task.s,
        sub_centres=task.sub_centres,
        sample_rate=task.sample_rate,
        filter_above=task.filter_above,
        keep_hardest=task.keep_hardest,
        memory_mb=task.head_memory_mb,
        seed=seed,
    )
    return ArcFace(
        backbone,
        head,
        model.window,
        margin_ramp_epochs=task.margin_ramp_epochs,
        keep_hardest_after_epochs=task.keep_hardest_after_epochs,
    )
