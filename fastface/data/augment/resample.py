"""uint8 images -> another size: antialiased bilinear in whole-number arithmetic, Pillow's to the bit or DALI's."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from fastface.data.compiled import kernel


class Manner(NamedTuple):
    """How what is beyond the edge and what is below a whole level count."""

    clamped: bool  # repeat the outermost sample; else leave out what lies outside, and weigh up the rest
    bits: int  # of a weight's fraction
    kept: int  # fraction bits kept between the pass across and the pass down


PILLOW = Manner(False, 22, 0)  # Pillow's BILINEAR to the bit: 32 bits less 8 of the value and 2 to spare
DALI = Manner(True, 14, 6)  # fn.resize, which works in float: 8 + 6 + 14 bits fit into 32


class Weights(NamedTuple):
    """What each of n new samples takes from the old ones: old[first[i] + k] * weight[i, k], summed over k."""

    first: np.ndarray  # int64 [n]
    weight: np.ndarray  # int64 [n, taps] in units of 2^-bits, 0 beyond the last


@functools.lru_cache(maxsize=1024)
def bilinear_weights(old: int, new: int, manner: Manner) -> Weights:
    """Return the weights of a triangle that is two samples wide, old or new, whichever is wider."""
    scale = old / new
    support = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), old)
    taps = int((last - first).max())
    places = first[:, None] + np.arange(taps)
    weight = np.maximum(1 - np.abs((places - centre[:, None] + 0.5) * (1 / support)), 0)
    weight[places >= last[:, None]] = 0
    if manner.clamped:
        whole = np.arange(-int(support) - 2, old + int(support) + 2)
        every = np.maximum(1 - np.abs((whole - centre[:, None] + 0.5) / support), 0)
        weight[:, 0] += (every * (whole < first[:, None])).sum(1)
        rows = np.arange(new)
        weight[rows, last - first - 1] += (every * (whole >= last[:, None])).sum(1)
    total = np.zeros(new)
    for tap in range(taps):  # in this order: the last bit of the sum depends on it
        total += weight[:, tap]
    weight = np.floor(weight * (1 / total)[:, None] * (1 << manner.bits) + 0.5).astype(np.int64)
    if manner.clamped:
        weight[np.arange(new), weight.argmax(1)] += (1 << manner.bits) - weight.sum(1)
    return Weights(first, weight)


def resize(image: np.ndarray, height: int, width: int, manner: Manner = PILLOW) -> np.ndarray:
    """Resize uint8 [h, w, 3] to [height, width, 3], first across, then down. The specification."""
    _, bits, kept = manner
    middle = _resample(image.astype(np.int64), 1, width, manner, bits - kept)
    return _resample(middle, 0, height, manner, bits + kept).astype(np.uint8)


def _resample(old: np.ndarray, axis: int, size: int, manner: Manner, shift: int) -> np.ndarray:
    first, weight = bilinear_weights(old.shape[axis], size, manner)
    old = np.moveaxis(old, axis, 0)
    new = np.full((size, *old.shape[1:]), 1 << shift - 1)
    for i in range(size):
        for k in np.flatnonzero(weight[i]):
            new[i] += weight[i, k] * old[first[i] + k]
    return np.moveaxis(new >> shift, 0, axis)


@kernel("void(uint8[:,:,::1], int64[::1], int64[:,::1], int64[::1], int64[:,::1], int64, int64, uint8[:,:,::1])")
def resize_loops(
    image: np.ndarray,
    first_across: np.ndarray,
    across: np.ndarray,
    first_down: np.ndarray,
    down: np.ndarray,
    bits: int,
    kept: int,
    out: np.ndarray,
) -> None:
    """Do as `resize` does."""
    height, width = image.shape[0], len(first_across)
    middle, total = np.empty((height, width * 3), np.int32), np.empty(width * 3, np.int32)
    shift = np.int32(bits - kept)
    half = np.int32(1) << (shift - np.int32(1))
    for y in range(height):
        row, target = image[y], middle[y]
        for x in range(width):
            r, g, b = half, half, half
            start = first_across[x]
            for k in range(across.shape[1]):
                w = np.int32(across[x, k])
                if w != 0:
                    r += w * np.int32(row[start + k, 0])
                    g += w * np.int32(row[start + k, 1])
                    b += w * np.int32(row[start + k, 2])
            target[3 * x], target[3 * x + 1], target[3 * x + 2] = r >> shift, g >> shift, b >> shift
    shift = np.int32(bits + kept)
    half = np.int32(1) << (shift - np.int32(1))
    for y in range(len(first_down)):
        total[:] = half
        for k in range(down.shape[1]):
            w = np.int32(down[y, k])
            if w != 0:
                near = middle[first_down[y] + k]
                for j in range(width * 3):
                    total[j] += w * near[j]
        row = out[y].reshape(-1)
        for j in range(width * 3):
            row[j] = total[j] >> shift


def resize_into(image: np.ndarray, out: np.ndarray, manner: Manner = PILLOW) -> None:
    """Resize uint8 [h, w, 3] into uint8 [H, W, 3], both C-contiguous; without the GIL where numba is there."""
    (old_height, old_width, _), (height, width, _) = image.shape, out.shape
    if image.shape == out.shape:
        np.copyto(out, image)
    elif resize_loops.function is None:
        np.copyto(out, resize(image, height, width, manner))
    else:
        across, down = bilinear_weights(old_width, width, manner), bilinear_weights(old_height, height, manner)
        resize_loops.function(image, *across, *down, manner.bits, manner.kept, out)
