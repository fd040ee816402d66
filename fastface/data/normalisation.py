"""Mean and std of pixels, one number or one for each of red, green and blue -> the forms that arithmetic takes."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

PerColour = float | tuple[float, float, float]
"""One number for all colours, or red's, green's and blue's."""


def three(value: PerColour) -> tuple[float, float, float]:
    """Return red's, green's and blue's number."""
    return value if isinstance(value, tuple) else (value, value, value)


def in_words(value: PerColour) -> str:
    """Write a number as 127.5, three as [123.675, 116.28, 103.53]."""
    return f"[{', '.join(f'{v:.6g}' for v in value)}]" if isinstance(value, tuple) else f"{value:.6g}"


def as_float32(mean: PerColour, std: PerColour) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and 1 / std of the three colours, float32 [3] each: pixels become (x - mean) * (1 / std).

    ValueError where std is not positive.
    """
    if not min(three(std)) > 0:
        raise ValueError(f"std is {in_words(std)}; pixels are divided by it, so it must be positive")
    return np.array(three(mean), np.float32), (1 / np.array(three(std), np.float64)).astype(np.float32)


@cache
def factor(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> float | Tensor:
    """Return what images [B, 3, H, W] are combined with: a number if the three are equal, else [3, 1, 1].

    A number is one pass over memory without a second operand; tensors are made once, which on a GPU takes a copy.
    """
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, dtype=torch.float64).to(device, dtype).view(3, 1, 1)


def normalised(images: Tensor, mean: PerColour, std: PerColour) -> Tensor:
    """Return float32 (x - mean) / std of uint8 images, the same bits as a loader's; others are returned as they are."""
    return normalise_(images.float(), *as_float32(mean, std)) if images.dtype == torch.uint8 else images


def normalise_(images: Tensor, mean: np.ndarray, inverse_std: np.ndarray) -> Tensor:
    """Bring float32 images [B, 3, H, W] to (x - mean) * inverse_std in place; both float32 [3]."""
    first, second = (factor(tuple(values.tolist()), images.device) for values in (mean, inverse_std))
    return images.sub_(first).mul_(second)
