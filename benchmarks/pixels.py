"""JPEG bytes -> pixels -> batches, as documentations show it and as an expert does: what many peers leave to users."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.case import Batches
from fastface.data.index import Index
from fastface.data.shards import ShardReader

IN_CACHE = 8  # images finished together: 8 of 112 x 112 px in float32 are 1.2 MB, which a second-level cache holds


class Tars:
    """Give encoded images of work/shards at random: views of mapped tars, opened in the process that uses them."""

    def __init__(self, work: Path) -> None:
        self.work = work

    @cached_property
    def index(self) -> Index:
        return Index.open(self.work / "shards")

    @cached_property
    def reader(self) -> ShardReader:
        return ShardReader(self.index)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width, px."""
        assert self.index.image_size
        width, height = self.index.image_size
        return height, width

    def __len__(self) -> int:
        return self.index.num_samples

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.reader.view(index), int(self.index.label[index])

    def __getstate__(self) -> dict[str, Any]:
        return {"work": self.work}  # mappings do not travel

    def __repr__(self) -> str:
        return f"Tars({str(self.work)!r})"

    def take(self, records: np.ndarray) -> tuple[list[np.ndarray], Tensor]:
        """Return the encoded images of records (int64 [n]) and their labels, int64 [n]."""
        return self.reader.views(records), torch.from_numpy(self.index.labels_of(records))

    def shuffled(self, batch: int, seed: int = 0) -> Iterable[np.ndarray]:
        """Return one epoch of records, in random order, in batches of equal size."""
        order = np.random.default_rng(seed).permutation(len(self))
        return (order[start : start + batch] for start in range(0, len(order) - batch + 1, batch))


def documented() -> Any:
    """Return torchvision's transform from a PIL image to a mirrored and normalised tensor."""
    from torchvision import transforms as T

    return T.Compose([T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])


def one_thread(*_: Any) -> None:
    """Keep torch and OpenCV from starting threads of their own; also a worker's init function."""
    torch.set_num_threads(1)
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)


def mirrored(data: np.ndarray | bytes) -> np.ndarray:
    """Return a JPEG decoded to uint8 [H, W, 3], mirrored at random."""
    import cv2
    import simplejpeg

    image = simplejpeg.decode_jpeg(data)
    return cv2.flip(image, 1) if random.getrandbits(1) else image


def decode_planar(data: np.ndarray | bytes, out: np.ndarray) -> None:
    """Decode a JPEG into `out`, uint8 [3, H, W], mirrored at random. OpenCV's loops cost a tenth of numpy's."""
    import cv2

    cv2.split(mirrored(data), list(out))


def planar(data: np.ndarray | bytes) -> np.ndarray:
    """Return a JPEG decoded to uint8 [3, H, W], mirrored at random."""
    import cv2

    image = mirrored(data)
    out = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(out))
    return out


def split_channels(images: Tensor, out: Tensor) -> Tensor:
    """Turn uint8 [B, H, W, 3] into `out`, uint8 [B, 3, H, W]."""
    import cv2

    for image, planes in zip(images.numpy(), out.numpy(), strict=True):
        cv2.split(image, list(planes))
    return out


def normalise(images: Tensor, out: Tensor) -> Tensor:
    """Turn uint8 [B, 3, H, W] into `out`, float32 in [-1, 1], a few images at a time in the cache."""
    for source, target in zip(images.split(IN_CACHE), out.split(IN_CACHE), strict=True):
        target.copy_(source)
        target.sub_(127.5).mul_(1 / 127.5)
    return out


def normalised(batches: Iterable[Any]) -> Batches:
    """Normalise planar uint8 batches where they arrive, in recycled memory: new pages cost more than the arithmetic."""
    out = None
    for images, labels in batches:
        out = torch.empty(images.shape) if out is None else out
        yield normalise(images, out), labels
