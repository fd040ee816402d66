"""Draws and decoded images -> the images changed in place, by the calling thread."""

from __future__ import annotations

import numpy as np

from fastface.data.augment.draw import Draws
from fastface.data.augment.operator import Operator


class HostWork:
    """What is to be done to the images of a batch, in pixels: made once, then done to any part of the batch.

    Preparing costs 3 us of Python a row for a whole batch of 256, and 10 us for a part of 32 (2 cores, 2026-11).
    """

    def __init__(self, draws: Draws, height: int, width: int) -> None:
        self._steps: list[tuple[Operator, np.ndarray, tuple[np.ndarray, ...]]] = []
        for operator, chosen, parameters in draws.operators:
            rows = np.flatnonzero(chosen)
            if len(rows):
                part = {name: values[rows] for name, values in parameters.items()}
                self._steps.append((operator, rows, operator.arguments(part, height, width)))

    def apply(self, images: np.ndarray, first: int = 0) -> None:
        """Change uint8 [b, H, W, 3], rows first to first + b of the batch, in place; without the GIL, mostly."""
        for operator, rows, arguments in self._steps:
            start, stop = np.searchsorted(rows, (first, first + len(images)))
            if start < stop:
                operator.apply(images, rows[start:stop] - first, tuple(values[start:stop] for values in arguments))


def apply_on_host(images: np.ndarray, draws: Draws) -> None:
    """Apply `draws`, all but the flip, to uint8 [B, H, W, 3] in place; the GIL is free while pixels are made."""
    HostWork(draws, *images.shape[1:3]).apply(images)


def apply_reference(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Return what the specification makes of uint8 [B, H, W, 3], image by image; all but the flip."""
    images = images.copy()
    height, width = images.shape[1:3]
    for operator, chosen, parameters in draws.operators:
        arguments = operator.arguments(parameters, height, width)
        for row in np.flatnonzero(chosen):
            images[row] = operator.reference(images[row], *(values[row] for values in arguments))
    return images
