"""Draws and decoded images -> the images changed in place, by the calling thread."""

from __future__ import annotations

import numpy as np

from fastface.data.augment.draw import Draws


def apply_on_host(images: np.ndarray, draws: Draws) -> None:
    """Apply `draws`, all but the flip, to uint8 [B, H, W, 3] in place; the GIL is free while pixels are made."""
    height, width = images.shape[1:3]
    for operator, chosen, parameters in draws.operators:
        rows = np.flatnonzero(chosen)
        if len(rows):
            part = {name: values[rows] for name, values in parameters.items()}
            operator.apply(images, rows, operator.arguments(part, height, width))


def apply_reference(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Return what the specification makes of uint8 [B, H, W, 3], image by image; all but the flip."""
    images = images.copy()
    height, width = images.shape[1:3]
    for operator, chosen, parameters in draws.operators:
        arguments = operator.arguments(parameters, height, width)
        for row in np.flatnonzero(chosen):
            images[row] = operator.reference(images[row], *(values[row] for values in arguments))
    return images
