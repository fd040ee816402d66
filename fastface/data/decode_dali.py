"""Encoded bytes -> images by NVIDIA DALI, on the CPU or on the GPU, from one pipeline definition."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastface.data.augment import Draws
from fastface.data.augment.graph import augmented, graph_inputs, resized
from fastface.data.augment.operator import Graph
from fastface.data.batch import Finisher
from fastface.data.decode_torch import decode_into, decode_resized

# A calling thread runs a pipeline of its own to the end of each micro-batch, instead of all feeding one
# pipeline that runs ahead. On 2 cores, 2026-11, two pipelines with one thread each decode and mirror 11,900
# images/s, one with two threads 6,700; and an error belongs to the micro-batch that caused it.
PADDING = 1 << 20  # bytes of scratch memory per thread; DALI's default of 16 MiB is for photographs


class DaliDecoder:
    """Decode, augment and mirror in DALI, normalise as all backends do.

    On the CPU decoded and mirrored pixels equal TorchDecoder's; augmented ones are within the operators' tolerances.
    """

    def __init__(
        self, size: tuple[int, int], resize: bool, threads: int, finish: Finisher, operator_device: str
    ) -> None:
        self.size, self.resize = size, resize  # (width, height) px
        self.finish = finish
        self.operator_device = operator_device
        if operator_device == "mixed" and finish.device.type != "cuda":
            raise ValueError(f"data.decoder dali-gpu needs a CUDA device, not {finish.device}; take dali-cpu or torch")
        _import_dali()
        # Two callers keep the GPU busy while one hands over; how many are best has not been measured.
        self.callers = threads if operator_device == "cpu" else min(2, threads)
        self._threads = max(1, threads // self.callers)
        self._free: deque[Any] = deque()  # pipelines no call is using; append and pop are atomic

    def __call__(self, blobs: list[np.ndarray], draws: Draws, out: Tensor) -> None:
        """Fill `out`, [B, 3, H, W]. Raises BadImage, or RuntimeError where no image is to blame."""
        try:
            batch_size, operators, pipeline = self._free.pop()
        except IndexError:
            batch_size, operators, pipeline = 0, [], None
        inputs = graph_inputs(draws, self.size[1], self.size[0])
        wanted = [drawn.operator for drawn in draws.operators]
        if batch_size < len(blobs) or operators != wanted:
            batch_size, pipeline = len(blobs), self._build(len(blobs), draws, inputs)
        images = self._run(pipeline, blobs, draws, inputs)
        if isinstance(images, Tensor):
            self.finish.from_device(images.permute(0, 3, 1, 2), out)
        else:
            with self.finish.target(out) as planes:
                self.finish.pixels(images, np.zeros(len(blobs), np.bool_), planes)  # mirrored already
        self._free.append((batch_size, wanted, pipeline))  # not reached after an error: no pipeline survives one

    def _run(
        self, pipeline: Any, blobs: list[np.ndarray], draws: Draws, inputs: dict[str, np.ndarray]
    ) -> np.ndarray | Tensor:
        try:
            (images,) = pipeline.run(encoded=blobs, mirror=draws.flip.astype(np.int32), **inputs)
            tensor = images.as_tensor()  # one block of memory, valid until the pipeline runs again
            if list(tensor.shape()) != [len(blobs), self.size[1], self.size[0], 3]:
                raise RuntimeError(f"images are {tensor.shape()}")
        except Exception as error:  # DALI raises RuntimeError or, for mixed sizes, whatever as_tensor says
            self._blame(blobs)
            raise RuntimeError(f"DALI failed though every image of the micro-batch decodes: {error}") from error
        return np.asarray(tensor) if self.operator_device == "cpu" else torch.from_dlpack(tensor)

    def _blame(self, blobs: list[np.ndarray]) -> None:
        """Raise BadImage for the first image that libjpeg-turbo refuses; DALI does not always name it."""
        decode = decode_resized if self.resize else decode_into
        image = np.empty((self.size[1], self.size[0], 4), np.uint8)
        for row, blob in enumerate(blobs):
            decode(blob, image, row)

    def _build(self, batch_size: int, draws: Draws, inputs: dict[str, np.ndarray]) -> Any:
        dali, fn, types = _import_dali()
        on_gpu = self.operator_device == "mixed"
        # on the GPU, DALI's default repeats chroma samples where libjpeg-turbo interpolates
        options: dict[str, Any] = {"jpeg_fancy_upsampling": True, "affine": False}
        if on_gpu:
            options |= {"device_memory_padding": PADDING, "host_memory_padding": PADDING}
            options |= {"preallocate_width_hint": self.size[0], "preallocate_height_hint": self.size[1]}
        device_id = (self.finish.device.index or 0) if on_gpu else None
        graph = Graph(fn, types, dali.math, self.size[1], self.size[0], "gpu" if on_gpu else "cpu")

        @dali.pipeline_def(
            batch_size=batch_size,
            num_threads=self._threads,
            device_id=device_id,
            prefetch_queue_depth=1,
            exec_pipelined=False,
            exec_async=False,
            enable_conditionals=True,
        )
        def pipeline() -> Any:
            encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, batch=True, no_copy=True)
            mirror = fn.external_source(name="mirror", dtype=types.INT32, ndim=0, batch=True)
            images = fn.decoders.image(encoded, device=self.operator_device, output_type=types.RGB, **options)
            if self.resize:
                images = resized(images, encoded, graph)
            return fn.flip(augmented(images, draws, inputs, graph), horizontal=mirror)

        built = pipeline()
        built.build()
        return built

    def close(self) -> None:
        """Let go of the pipelines."""
        self._free.clear()


def _import_dali() -> tuple[Any, Any, Any]:
    try:
        from nvidia import dali
        from nvidia.dali import fn, types
    except ImportError as error:
        raise ValueError(
            f"data.decoder dali-cpu and dali-gpu need NVIDIA DALI on Linux ({error}): "
            f'pip install "fastface[cuda13]" or "fastface[cuda12]", or take data.decoder torch'
        ) from None
    return dali, fn, types
