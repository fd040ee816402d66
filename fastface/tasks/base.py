"""What a task is: one learning problem, from its batch to its loss to the network it ships."""

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from fastface.config import DataConfig
from fastface.data.batch import Batch
from fastface.data.index import Index
from fastface.data.plan import Plan


class Output(NamedTuple):
    """A NamedTuple, because accelerate turns bf16 outputs back to float32 only in tuples and dicts."""

    loss: Tensor
    """Scalar: what is optimised, the mean over the micro-batch."""
    terms: dict[str, Tensor]
    """Scalars that are only looked at."""


class Task(Protocol):
    """An nn.Module that owns one learning problem. The loop knows nothing else."""

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        """Say which records make up each step: as data.plan says, or as the problem needs."""
        ...

    def __call__(self, batch: Batch) -> Output: ...

    def deploy(self) -> nn.Module:
        """Return what export ships: [B, 3, H, W] float, normalised -> [B, embedding_size]."""
        ...


class Windowed(nn.Module):
    """A backbone that sees a fixed window of its input, so that a 112x96 network takes 112x112 images."""

    def __init__(self, backbone: nn.Module, window: tuple[int, int, int, int] | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.window = window

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(cut(images, self.window))


def cut(images: Tensor, window: tuple[int, int, int, int] | None) -> Tensor:
    """Cut x0, y0, x1, y1 px out of every image [B, C, H, W]."""
    if window is None:
        return images
    x0, y0, x1, y1 = window
    return images[:, :, y0:y1, x0:x1]
