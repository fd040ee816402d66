"""Decoded uint8 images -> the normalised float batch that training reads, in recycled memory."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastface.data.augment.resample import PILLOW, bilinear_weights, resize_all

# What a kernel does, as numpy would say it. No step can be fused with another, so all give the same bits:
#   out[i, c] = (float32(images[i, :, ::-1 if flip[i] else 1, c]) - mean) * inverse_std
Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, np.float32, np.float32], None]


class Batch(NamedTuple):
    """A micro-batch of one rank."""

    images: Tensor  # float32 [B, 3, H, W] on the device, RGB, (x - mean) / std
    labels: Tensor  # int64 [B] on the device
    records: np.ndarray  # int64 [B], index into the shard set
    step: int  # global step
    micro: int  # which of this rank's micro-batches of the step, from 0


class Buffer:
    """Memory of one batch, reused: touching it for the first time can cost as much as decoding into it."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self._in_use: torch.cuda.Event | None = None  # what the consumer's stream was still to do with it

    def images(self, rows: int, micro_batch: int, size: tuple[int, int], device: torch.device) -> Tensor:
        """Return float32 [rows, 3, H, W], whose size may change; wait until the consumer's CUDA work is done."""
        if self._in_use is not None:
            self._in_use.synchronize()
            self._in_use = None
        numbers = 3 * size[1] * size[0]
        if self._memory is None or len(self._memory) < micro_batch * numbers:
            self._memory = torch.empty(micro_batch * numbers, dtype=torch.float32, device=device)
        return self._memory[: rows * numbers].view(rows, 3, size[1], size[0])

    def release(self) -> None:
        """Note what the consumer has queued on its current stream; called from the consumer's thread."""
        if self._memory is not None and self._memory.is_cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._memory.device))
            self._in_use = event


class Finisher:
    """Turn uint8 images [B, H, W, 3] into out = (x - mean) * float32(1 / std), mirrored where `flip` says so.

    `out` is float32 [B, 3, H, W]; images of another size are resized to it. On a CPU a kernel runs in the
    calling thread, without the GIL. To a CUDA device the uint8 images travel, and the arithmetic is done there
    in a stream of this object's own; the call returns when `out` is ready for any stream.
    """

    def __init__(self, device: torch.device, mean: float, std: float, compiled: bool | None = None) -> None:
        if not std > 0:
            raise ValueError(f"std is {std}; pixels are divided by it, so it must be positive")
        self.device = device
        self.mean, self.inverse_std = np.float32(mean), np.float32(1 / std)
        self.kernel_name, self._kernel = planar_kernel(compiled)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, images: np.ndarray | Tensor, flip: np.ndarray, out: Tensor) -> None:
        """Fill `out`; images: uint8 [B, H, W, 3], an array, or a tensor that is pinned or on the device."""
        if self._stream is not None:
            self._on_device(torch.as_tensor(images), torch.from_numpy(flip), out)
            return
        assert isinstance(images, np.ndarray)
        self.on_host(images, flip, out.numpy())

    def on_host(self, images: np.ndarray, flip: np.ndarray, out: np.ndarray) -> None:
        """Fill the array `out`, float32 [B, 3, H, W] and contiguous, in the calling thread."""
        if images.shape[1:3] != out.shape[2:]:
            images = resize_all(images, *out.shape[2:])
        self._kernel(images, flip, out, self.mean, self.inverse_std)

    def _on_device(self, images: Tensor, flip: Tensor, out: Tensor) -> None:
        assert self._stream is not None
        with torch.cuda.stream(self._stream):
            planar = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            if planar.shape[2:] != out.shape[2:]:
                planar = resize_planes(planar, *out.shape[2:])
            mirror = flip.to(self.device)[:, None, None, None]
            out.copy_(torch.where(mirror, planar.flip(3), planar))
            out.sub_(float(self.mean)).mul_(float(self.inverse_std))
        self._stream.synchronize()  # a loader thread waits, not training; then the pinned memory is free


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


def planar_kernel(compiled: bool | None = None) -> tuple[str, Kernel]:
    """Choose ("numba" | "numpy", kernel): None takes numba where it is installed, True insists on it."""
    if compiled is not False:
        kernel = _numba_kernel()
        if kernel is not None:
            return "numba", kernel
        if compiled:
            raise ValueError(
                'numba is not installed or switched off: pip install "numba>=0.61", unset NUMBA_DISABLE_JIT'
            )
    return "numpy", _numpy_kernel


def _numpy_kernel(
    images: np.ndarray, flip: np.ndarray, out: np.ndarray, mean: np.float32, inverse_std: np.float32
) -> None:
    """Work image by image, so that all but the last pass stay in the cache."""
    _, height, width, _ = images.shape
    planes, work = np.empty((3, height, width), np.uint8), np.empty((3, height, width), np.float32)
    for image, mirror, target in zip(images, flip.tolist(), out, strict=True):
        np.copyto(planes, (image[:, ::-1] if mirror else image).transpose(2, 0, 1))
        np.copyto(work, planes)
        np.subtract(work, mean, out=work)
        np.multiply(work, inverse_std, out=target)


def _planar_loops(
    images: np.ndarray, flip: np.ndarray, out: np.ndarray, mean: np.float32, inverse_std: np.float32
) -> None:
    """Loop, for numba: with each pixel packed into a word first it vectorises (112 x 112: 10 us, not 30)."""
    num_images, height, width, _ = images.shape
    words = np.empty(width, np.int32)
    for i in range(num_images):
        for y in range(height):
            row, red, green, blue = images[i, y], out[i, 0, y], out[i, 1, y], out[i, 2, y]
            for x in range(width):
                words[x] = row[x, 0] | (np.int32(row[x, 1]) << 8) | (np.int32(row[x, 2]) << 16)
            if flip[i]:
                for x in range(width // 2):
                    words[x], words[width - 1 - x] = words[width - 1 - x], words[x]
            for x in range(width):
                word = words[x]
                red[x] = (np.float32(word & 0xFF) - mean) * inverse_std
                green[x] = (np.float32((word >> 8) & 0xFF) - mean) * inverse_std
                blue[x] = (np.float32((word >> 16) & 0xFF) - mean) * inverse_std


@functools.cache
def _numba_kernel() -> Kernel | None:
    """Compile `_planar_loops`: about 2 s, once per machine, kept beside this file or in numba's cache."""
    try:
        import numba
        from numba import types
    except ImportError:  # not installed, or it refuses this numpy
        return None
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return None
    images = types.Array(types.uint8, 4, "C", readonly=True)
    flip = types.Array(types.boolean, 1, "C", readonly=True)
    signature = types.void(images, flip, types.float32[:, :, :, ::1], types.float32, types.float32)
    try:
        return numba.njit(signature, nogil=True, cache=True)(_planar_loops)
    except Exception as error:  # numba names no type for "no folder to cache in" (RuntimeError, OSError, pickle errors)
        warnings.warn(
            f"numba cannot use its cache ({error}); compiling afresh, about 1 s. Set NUMBA_CACHE_DIR",
            stacklevel=2,
        )
        return numba.njit(signature, nogil=True)(_planar_loops)
