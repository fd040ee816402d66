"""The table of decoders: (encoded bytes, draws) -> normalised float images, by a backend chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fastface.data.augment import Draws
from fastface.data.batch import Finisher
from fastface.data.normalisation import PerColour
from fastface.spelling import nearest


class Decoder(Protocol):
    """Decode, apply the draws, normalise; the same inputs give the same pixels on every CPU backend."""

    finish: Finisher
    callers: int  # how many threads may call at the same time, each with a whole micro-batch

    def __call__(self, blobs: list[np.ndarray], draws: Draws, out: Tensor) -> None:
        """Fill `out`, float32 or uint8 [B, 3, H, W] on the device, complete on return. Raises BadImage."""
        ...

    def close(self) -> None:
        """Let go of threads and buffers; no call may be running."""
        ...


def _torch(size: tuple[int, int], resize: bool, threads: int, finish: Finisher) -> Decoder:
    from fastface.data.decode_torch import TorchDecoder

    return TorchDecoder(size, resize, threads, finish)


def _dali_cpu(size: tuple[int, int], resize: bool, threads: int, finish: Finisher) -> Decoder:
    from fastface.data.decode_dali import DaliDecoder

    return DaliDecoder(size, resize, threads, finish, operator_device="cpu")


def _dali_gpu(size: tuple[int, int], resize: bool, threads: int, finish: Finisher) -> Decoder:
    from fastface.data.decode_dali import DaliDecoder

    return DaliDecoder(size, resize, threads, finish, operator_device="mixed")


DECODERS: dict[str, Callable[[tuple[int, int], bool, int, Finisher], Decoder]] = {
    "torch": _torch,  # libjpeg-turbo in threads; the arithmetic in a compiled kernel, or on the CUDA device
    "dali-cpu": _dali_cpu,  # NVIDIA DALI without a GPU: the same pixels to the bit
    "dali-gpu": _dali_gpu,  # NVIDIA DALI, decoding on the GPU
}


def build_decoder(
    name: str,
    *,
    size: tuple[int, int],
    resize: bool = False,
    threads: int,
    device: torch.device | str = "cpu",
    mean: PerColour = 127.5,
    std: PerColour = 127.5,
    compiled: bool | None = None,
) -> Decoder:
    """Build the decoder `name` of DECODERS for images of `size` (width, height) px, using `threads` threads.

    resize: cut and resize images of other sizes instead of refusing them. compiled: see kernels.kernels.
    ValueError: unknown name, package missing, or no GPU for dali-gpu.
    """
    if name not in DECODERS:
        raise ValueError(f"data.decoder {name!r} is unknown{nearest(name, DECODERS)}; known: {', '.join(DECODERS)}")
    if threads < 1:
        raise ValueError(f"data.threads is {threads}; decoding needs at least one thread")
    return DECODERS[name](size, resize, threads, Finisher(torch.device(device), mean, std, compiled))
