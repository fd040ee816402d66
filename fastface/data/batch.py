"""Decoded uint8 images -> the batch that training reads, in recycled memory."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastface.data.augment.resample import PILLOW, bilinear_weights, resize_all
from fastface.data.kernels import kernels
from fastface.data.normalisation import PerColour, as_float32, normalise_


class Batch(NamedTuple):
    """A micro-batch of one rank."""

    images: Tensor  # [B, 3, H, W] on the device, RGB: float32, (x - mean) / std, or uint8 as decoded; or see embeddings
    labels: Tensor  # int64 [B] on the device
    records: np.ndarray  # int64 [B], index into the shard set
    step: int  # global step
    micro: int  # which of this rank's micro-batches of the step, from 0

    @property
    def embeddings(self) -> Tensor:
        """Of an EmbeddingLoader: what a model made of the images, float32 [B, D], in their place."""
        return self.images


class Buffer:
    """Memory of one batch, reused: touching it for the first time can cost as much as decoding into it."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self._dtype = dtype
        self._memory: Tensor | None = None
        self._in_use: torch.cuda.Event | None = None  # what the consumer's stream was still to do with it

    def images(self, rows: int, micro_batch: int, size: tuple[int, int], device: torch.device) -> Tensor:
        """Return [rows, 3, H, W]; wait on a CUDA device until the consumer's work on it is done."""
        if self._in_use is not None:
            self._in_use.synchronize()
            self._in_use = None
        image = 3 * size[0] * size[1]
        if self._memory is None or self._memory.numel() < micro_batch * image:
            self._memory = torch.empty(micro_batch * image, dtype=self._dtype, device=device)
        return self._memory[: rows * image].view(rows, 3, size[1], size[0])

    def release(self) -> None:
        """Note what the consumer has queued on its current stream; called from the consumer's thread."""
        if self._memory is not None and self._memory.is_cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._memory.device))
            self._in_use = event


class Finisher:
    """Turn uint8 images, whatever their layout, into what a loader delivers, mirrored where `flip` says so.

    `out` is [B, 3, H, W], contiguous: float32, (x - mean) * float32(1 / std), each one number or one for every colour,
    or uint8, as decoded; pixels of another size are resized to it. On a CPU a kernel runs in the calling thread,
    without the GIL. To a CUDA device the uint8 planes travel, and the arithmetic is done there in a stream of this
    object's own; a call returns when `out` is ready for any stream.
    """

    def __init__(self, device: torch.device, mean: PerColour, std: PerColour, compiled: bool | None = None) -> None:
        self.device = device
        self.mean, self.inverse_std = as_float32(mean, std)
        self.kernels = kernels(compiled)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pinned: deque[Tensor] = deque()  # planes no call is using; append and pop are atomic

    @contextlib.contextmanager
    def target(self, out: Tensor) -> Iterator[np.ndarray]:
        """Give the array to be filled with planes; what was filled is in `out`, on its device, afterwards."""
        if self._stream is None:
            yield out.numpy()
            return
        try:
            planes = self._pinned.pop()
        except IndexError:
            planes = torch.empty(out.shape, dtype=torch.uint8, pin_memory=True)
        if planes.shape[0] < out.shape[0] or planes.shape[1:] != out.shape[1:]:
            planes = torch.empty(out.shape, dtype=torch.uint8, pin_memory=True)
        rows = planes[: len(out)]
        yield rows.numpy()
        with self.stream():
            planes_there = rows.to(self.device, non_blocking=True)
        self.from_device(planes_there, out)
        self._pinned.append(planes)

    def from_device(self, planes: Tensor, out: Tensor, flip: Tensor | None = None) -> None:
        """Finish uint8 [B, 3, H, W] of any memory layout that is on the device already."""
        with self.stream():
            if planes.shape[2:] != out.shape[2:]:
                planes = resize_planes(planes, *out.shape[2:])
            if flip is not None:
                planes = torch.where(flip[:, None, None, None], planes.flip(3), planes)
            out.copy_(planes)
            if out.dtype == torch.float32:
                normalise_(out, self.mean, self.inverse_std)
        if self._stream is not None:
            self._stream.synchronize()  # a loader thread waits, not training; then pinned memory is free again

    def stream(self) -> contextlib.AbstractContextManager[object]:
        """Queue what follows on the device in this object's stream; nothing on a CPU."""
        return torch.cuda.stream(self._stream)

    def words(self, words: np.ndarray, flip: np.ndarray, out: np.ndarray) -> None:
        """Finish uint32 [B, H, W] into planes."""
        self.kernels.words(words, flip, out, self.mean, self.inverse_std)

    def pixels(self, pixels: np.ndarray, flip: np.ndarray, out: np.ndarray) -> None:
        """Finish uint8 [B, H, W, 3] into planes, of another size perhaps."""
        if pixels.shape[1:3] != out.shape[2:]:
            pixels = resize_all(pixels, *out.shape[2:])
        self.kernels.pixels(pixels, flip, out, self.mean, self.inverse_std)

    def planes(self, planes: np.ndarray, rows: np.ndarray, flip: np.ndarray, out: np.ndarray) -> None:
        """Finish the rows (int64 [B]) of uint8 [N, 3, H, W] into planes."""
        self.kernels.planes(planes, rows, flip, out, self.mean, self.inverse_std)


def resize_planes(planes: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 [B, 3, h, w] on any device as `resize` does, to the bit: float64 holds every sum exactly."""
    for axis, size in ((3, width), (2, height)):
        first, weight = bilinear_weights(planes.shape[axis], size, PILLOW)
        matrix = np.zeros((size, planes.shape[axis] + weight.shape[1]), np.float64)
        np.put_along_axis(matrix, first[:, None] + np.arange(weight.shape[1]), weight * 2.0**-PILLOW.bits, 1)
        on_device = torch.from_numpy(matrix[:, : planes.shape[axis]]).to(planes.device)
        mixed = torch.einsum("bchw,vw->bchv" if axis == 3 else "bchw,vh->bcvw", planes.double(), on_device)
        planes = mixed.add_(0.5).floor_().clamp_(0, 255)
    return planes
