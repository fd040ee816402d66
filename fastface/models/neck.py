"""Feature map or pooled vector -> embedding: what all face networks here share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def outside_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switch autocast off for a few layers, and do nothing where it is off already.

    Doing nothing matters to exporters, which would otherwise record an autocast region in the graph.
    """
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def embedding_norm(embedding_size: int) -> nn.BatchNorm1d:
    """Return the BatchNorm that ends a face network; its scale stays 1 and is not trained.

    The margin loss normalises embeddings, so a learned scale per dimension would only let the network stretch
    the axes of the hypersphere; InsightFace freezes it in its residual networks.
    """
    norm = nn.BatchNorm1d(embedding_size, eps=1e-5)
    norm.weight.requires_grad_(False)
    return norm


class Backbone(nn.Module):
    """Tell what every network here knows of itself: name, sizes, and which of its parts are which.

    embedding_size; input_size: (width, height) px. any_size: whether the built network also takes images of
    other sizes, from min_side px up. neck_modules: the children after the last feature map, which start anew when
    a network moves to another task; the others are its body. may_be_new: with what the names of the tensors begin
    that a file of weights may lack. notes: what there is to say about how it was built or filled, for the log.
    """

    any_size = False
    min_side = 16
    may_be_new: tuple[str, ...] = ()
    neck_modules: tuple[str, ...]

    def __init__(self, name: str, embedding_size: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        if embedding_size < 1:
            raise ValueError(f"{name}: embedding_size is {embedding_size}; it must be at least 1 (512 is usual)")
        if len(input_size) != 2 or min(input_size) < self.min_side:
            raise ValueError(
                f"{name}: input_size is {input_size}; give (width, height) of at least {self.min_side} px each"
            )
        self.name = name
        self.embedding_size = embedding_size
        self.input_size: tuple[int, int] = (input_size[0], input_size[1])
        self.notes: list[str] = []

    def adapted(self, tensors: dict[str, Tensor], classes: Sequence[str] | None) -> dict[str, Tensor]:
        """Return those tensors of another network's that this one can start from, by the names they have here.

        classes: what the other one tells apart, where it ends in a classifier and says so.
        """
        return tensors

    def body_names(self) -> set[str]:
        """Name the parameters of the body: what to freeze while a new neck learns."""
        neck = tuple(f"{name}." for name in self.neck_modules)
        return {name for name, _ in self.named_parameters() if not name.startswith(neck)}


class EmbeddingNeck(nn.Module):
    """Turn features of a fixed shape into embeddings: "option E" of ArcFace (CVPR 2019, section 3.1).

    `shape` is (C, H, W) for a feature map: BatchNorm, dropout, flatten, linear, BatchNorm; or (F,) for the
    pooled vector of a token model, already normalised by it: dropout, linear, BatchNorm. Global pooling of a
    map is avoided on purpose: on aligned faces the position of a feature carries information (MobileFaceNets,
    CCBR 2018, section 3.1).
    """

    def __init__(self, shape: tuple[int, ...], embedding_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        assert len(shape) in (1, 3), shape
        self.bn = nn.BatchNorm2d(shape[0], eps=1e-5) if len(shape) == 3 else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(math.prod(shape), embedding_size)
        self.features = embedding_norm(embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.bn(x)).flatten(1)  # [B, C*H*W]
        with outside_autocast(x.device.type):
            return self.features(self.fc(x.to(self.fc.weight.dtype)))  # [B, embedding_size]
