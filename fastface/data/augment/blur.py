"""Sharp images -> images out of focus or moved while they were taken: gaussian_blur and motion_blur."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from fastface.data.augment.operator import Graph, Numbers, Operator, Parameters, between, rounded, within
from fastface.data.compiled import Kernel, kernel

BITS = 14  # of a weight's fraction
KEPT = 6  # fraction bits kept between the two passes of a separable blur: 8 + 6 + 14 fit into 32


def mirrored(size: int, radius: int) -> np.ndarray:
    """Return the numbers of `size` samples and `radius` more at both ends, mirrored at the outermost: int64."""
    places = np.arange(-radius, size + radius) % max(2 * (size - 1), 1)
    return np.minimum(places, 2 * (size - 1) - places)


@kernel("void(uint8[:,:,:,::1], int64[::1], int64[:,::1], int64[::1], int64[::1])")
def blur_separably(
    images: np.ndarray, rows: np.ndarray, weights: np.ndarray, columns: np.ndarray, lines: np.ndarray
) -> None:
    """Convolve with weights, int64 [n, 2 R + 1] in units of 2^-14; `columns` and `lines` are `mirrored`."""
    _, height, width, _ = images.shape
    length, taps = width * 3, weights.shape[1]
    padded = np.empty(3 * len(columns), np.int32)
    middle, total = np.empty((height, length), np.int32), np.empty(length, np.int32)
    for i in range(len(rows)):
        image = images[rows[i]]
        for y in range(height):
            for x in range(len(columns)):
                for c in range(3):
                    padded[3 * x + c] = image[y, columns[x], c]
            total[:] = 1 << 7
            for k in range(taps):
                w = np.int32(weights[i, k])
                if w != 0:
                    part = padded[3 * k : 3 * k + length]
                    for j in range(length):
                        total[j] += w * part[j]
            for j in range(length):
                middle[y, j] = total[j] >> 8
        for y in range(height):
            total[:] = 1 << 19
            for k in range(taps):
                w = np.int32(weights[i, k])
                if w != 0:
                    near = middle[lines[y + k]]
                    for j in range(length):
                        total[j] += w * near[j]
            row = image[y].reshape(-1)
            for j in range(length):
                row[j] = total[j] >> 20


class Mirrored(Operator):
    """Operators that weigh the pixels around each; the image goes on mirrored beyond its edge."""

    kernel: ClassVar[Kernel]

    def apply(self, images: np.ndarray, rows: np.ndarray, arguments: tuple[np.ndarray, ...]) -> None:
        """Tell the kernel where the mirror is."""
        function = self.kernel.function
        if function is None:
            return super().apply(images, rows, arguments)
        _, height, width, _ = images.shape
        radius = arguments[0].shape[1] // 2
        function(images, rows, *arguments, mirrored(width, radius), mirrored(height, radius))


class GaussianBlur(Mirrored):
    """Blur with a Gaussian."""

    name: Literal["gaussian_blur"] = "gaussian_blur"
    sigma_px: Annotated[tuple[float, float], within(0.05, 20)] = (0.4, 2.0)
    """Standard deviation in px."""

    kernel: ClassVar[Kernel] = blur_separably
    tolerance: ClassVar[int] = 1

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw sigma."""
        return {"sigma": between(words[0], self.sigma_px)}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give weights in units of 2^-14 that reach 3 sigma and add up to 1: int64 [B, 2 R + 1]."""
        sigma = parameters["sigma"][:, None]
        reach = np.ceil(3 * sigma)
        radius = int(reach.max())
        places = np.arange(-radius, radius + 1)
        weights = np.exp(-0.5 * (places / sigma) ** 2) * (np.abs(places) <= reach)
        weights = rounded(weights / weights.sum(1, keepdims=True) * (1 << BITS))
        weights[:, radius] += (1 << BITS) - weights.sum(1)
        return (weights,)

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Convolve along x, keep 6 bits of the fraction, convolve along y, round."""
        (weights,) = arguments
        radius = len(weights) // 2
        padded = image[:, mirrored(image.shape[1], radius)].astype(np.int64)
        across = np.full(image.shape, 1 << BITS - KEPT - 1)
        for k, weight in enumerate(weights):
            across += weight * padded[:, k : k + image.shape[1]]
        padded = (across >> BITS - KEPT)[mirrored(len(image), radius)]
        down = np.full(image.shape, 1 << BITS + KEPT - 1)
        for k, weight in enumerate(weights):
            down += weight * padded[k : k + len(image)]
        return (down >> BITS + KEPT).astype(np.uint8)

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give sigma and how far it reaches."""
        sigma = parameters["sigma"]
        return {
            "sigma": sigma.astype(np.float32),
            "window_size": (2 * np.ceil(3 * sigma) + 1).astype(np.int32),
        }

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Blur."""
        return graph.fn.gaussian_blur(images, **feeds)


@kernel("void(uint8[:,:,:,::1], int64[::1], int64[:,:,::1], int64[::1], int64[::1])")
def convolve(images: np.ndarray, rows: np.ndarray, weights: np.ndarray, columns: np.ndarray, lines: np.ndarray) -> None:
    """Correlate with weights, int64 [n, k, k] in units of 2^-14, most of them 0."""
    _, height, width, _ = images.shape
    length, taps = width * 3, weights.shape[1]
    padded, total = np.empty((height, 3 * len(columns)), np.int32), np.empty(length, np.int32)
    for i in range(len(rows)):
        image = images[rows[i]]
        for y in range(height):
            for x in range(len(columns)):
                for c in range(3):
                    padded[y, 3 * x + c] = image[y, columns[x], c]
        for y in range(height):
            total[:] = 1 << 13
            for down in range(taps):
                line = padded[lines[y + down]]
                for across in range(taps):
                    w = np.int32(weights[i, down, across])
                    if w != 0:
                        part = line[3 * across : 3 * across + length]
                        for j in range(length):
                            total[j] += w * part[j]
            row = image[y].reshape(-1)
            for j in range(length):
                row[j] = total[j] >> 14


class MotionBlur(Mirrored):
    """Blur along a line, as a moving camera or head does."""

    name: Literal["motion_blur"] = "motion_blur"
    length_px: Annotated[tuple[float, float], within(1, 40)] = (2.0, 8.0)
    """Length of the line in px."""

    kernel: ClassVar[Kernel] = convolve
    tolerance: ClassVar[int] = 1

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw length and direction."""
        return {"length": between(words[0], self.length_px), "angle": words[1] * np.pi}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give weights in units of 2^-14 that add up to 1, int64 [B, k, k]: 64 points shared among their pixels."""
        length, angle = parameters["length"], parameters["angle"]
        radius = int(np.ceil((self.length_px[1] - 1) / 2)) + 1  # the same for all batches: DALI's graph has one size
        side = 2 * radius + 1
        along = (np.arange(64) + 0.5) / 64 - 0.5
        reach = (length - 1)[:, None] * along + 0.0
        x, y = reach * np.cos(angle)[:, None] + radius, reach * np.sin(angle)[:, None] + radius
        column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        weights = np.zeros((len(length), side, side))
        which = np.broadcast_to(np.arange(len(length))[:, None], x.shape)
        for down, share_y in ((0, row + 1 - y), (1, y - row)):
            for across, share_x in ((0, column + 1 - x), (1, x - column)):
                np.add.at(weights, (which, row + down, column + across), share_y * share_x / 64)
        weights = rounded(weights * (1 << BITS))
        weights[:, radius, radius] += (1 << BITS) - weights.sum((1, 2))
        return (weights,)

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Add up the shifted images."""
        (weights,) = arguments
        height, width, _ = image.shape
        radius = len(weights) // 2
        padded = image[mirrored(height, radius)][:, mirrored(width, radius)].astype(np.int64)
        total = np.full(image.shape, 1 << BITS - 1, np.int64)
        for y, x in np.argwhere(weights):
            total += weights[y, x] * padded[y : y + height, x : x + width]
        return (total >> BITS).astype(np.uint8)

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give the weights."""
        return {"weights": (self.arguments(parameters, height, width)[0] * 2.0**-BITS).astype(np.float32)}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Filter."""
        weights = feeds["weights"] if graph.device == "cpu" else feeds["weights"].gpu()
        return graph.fn.filter(images, weights)
