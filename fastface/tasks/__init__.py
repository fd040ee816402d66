"""Task settings -> the task that learns: the one table of what fastface trains."""

from fastface.config import ArcFaceTask, DataConfig, ModelConfig
from fastface.heads.margin_head import MarginHead
from fastface.models import build_backbone
from fastface.tasks.arcface import ArcFace


def network_size(data: DataConfig, model: ModelConfig) -> tuple[int, int]:
    """Width and height in px of what the network sees."""
    if model.window is None:
        return data.size
    x0, y0, x1, y1 = model.window
    if not (0 <= x0 < x1 <= data.size[0] and 0 <= y0 < y1 <= data.size[1]):
        raise ValueError(f"model.window {list(model.window)} does not lie inside data.size {list(data.size)}")
    return x1 - x0, y1 - y0


def build_task(task: ArcFaceTask, model: ModelConfig, data: DataConfig, num_classes: int) -> ArcFace:
    """Build the network and its head for `num_classes` identities."""
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
    head = MarginHead(num_classes, model.embedding_size, margin=task.margin, m=task.m, s=task.s, gradient=task.gradient)
    return ArcFace(backbone, head, model.window)
