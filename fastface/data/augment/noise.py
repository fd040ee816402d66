"""Pixels -> pixels with sensor noise, the same numbers in every backend."""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from fastface.data.augment.operator import Graph, Numbers, Operator, Parameters, between, rounded, within
from fastface.data.augment.philox import STREAMS, philox4x32
from fastface.data.compiled import Kernel, kernel

OFFSETS = 1 << 16  # where an image may begin in the table
NORMAL_BITS = 11  # the table is in units of 2^-11 standard deviations


@functools.cache
def normal_table(length: int) -> np.ndarray:
    """Return the first `length` of fixed standard normal numbers, in units of 2^-11: int16.

    Box and Muller, "A note on the generation of random normal deviates", 1958, on Philox with the place as key.
    """
    words = (philox4x32(np.arange((length + 1) // 2, dtype=np.uint64), STREAMS["noise/table"])[:2] + 0.5) * 2.0**-32
    radius, angle = np.sqrt(-2 * np.log(words[0])), 2 * np.pi * words[1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return rounded(pairs.reshape(-1)[:length] * (1 << NORMAL_BITS)).astype(np.int16)


@kernel("void(uint8[:,:,:,::1], int64[::1], int64[::1], int64[::1], int16[::1])")
def add_normal(
    images: np.ndarray, rows: np.ndarray, offsets: np.ndarray, factors: np.ndarray, table: np.ndarray
) -> None:
    """Add the table from an offset on, times a factor in units of 2^-8 levels."""
    for i in range(len(rows)):
        values = images[rows[i]].reshape(-1)
        part, factor = table[offsets[i] : offsets[i] + len(values)], np.int32(factors[i])
        for j in range(len(values)):
            value = np.int32(values[j]) + ((np.int32(part[j]) * factor + (1 << 18)) >> 19)
            values[j] = min(max(value, 0), 255)


class Noise(Operator):
    """Add normal noise to each value: a fixed table, read from a drawn offset on, times a drawn sign and sigma."""

    name: Literal["noise"] = "noise"
    sigma: Annotated[tuple[float, float], within(0, 60)] = (2.0, 12.0)
    """Standard deviation in levels of 0 to 255."""

    kernel: ClassVar[Kernel | None] = add_normal
    tolerance: ClassVar[int] = 1

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw offset and signed sigma."""
        sign = np.where(words[2] < 0.5, -1.0, 1.0)
        return {"offset": (words[0] * OFFSETS).astype(np.int64), "sigma": between(words[1], self.sigma) * sign}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give offset, and signed sigma in units of 2^-8: int64 [B] each."""
        return parameters["offset"], rounded(parameters["sigma"] * 256)

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Add, rounded to whole levels, and clip."""
        offset, factor = arguments
        normal = normal_table(image.size + OFFSETS)[offset : offset + image.size].reshape(image.shape).astype(np.int64)
        shift = NORMAL_BITS + 8
        return np.clip(image + ((normal * factor + (1 << shift - 1)) >> shift), 0, 255).astype(np.uint8)

    def apply(self, images: np.ndarray, rows: np.ndarray, arguments: tuple[np.ndarray, ...]) -> None:
        """Hand the kernel the table as well."""
        if add_normal.function is None:
            super().apply(images, rows, arguments)
        else:
            add_normal.function(images, rows, *arguments, normal_table(images[0].size + OFFSETS))

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give offset and sigma."""
        sigma = parameters["sigma"].astype(np.float32)
        return {"offset": parameters["offset"].astype(np.int32), "sigma": sigma}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Cut the table and add it."""
        fn, types = graph.fn, graph.types
        values = graph.height * graph.width * 3
        table = normal_table(values + OFFSETS).astype(np.float32) * np.float32(2.0**-NORMAL_BITS)
        part = fn.slice(types.Constant(table, device=graph.device), feeds["offset"], values, axes=[0])
        normal = fn.reshape(part, shape=[graph.height, graph.width, 3], layout="HWC")
        return fn.cast(images + normal * feeds["sigma"], dtype=types.UINT8)
