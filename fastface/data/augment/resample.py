"""uint8 images -> another size: antialiased bilinear in whole-number arithmetic, Pillow's or DALI's."""

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


# Pillow's BILINEAR: 32 bits less 8 of the value and 2 to spare. Equal to the bit, unless Pillow goes down before
# across, which release 13 does for some changes of shape and not for others: then a level apart at most.
PILLOW = Manner(False, 22, 0)
DALI = Manner(True, 14, 6)  # fn.resize, which works in float: 8 + 6 + 14 bits fit into 32


class Weights(NamedTuple):
    """What each of n new samples takes from the old ones: old[first[i] + k] * weight[i, k], summed over k."""

    first: np.ndarray  # int64 [n]
    weight: np.ndarray  # int64 [n, taps] in units of 2^-bits, 0 beyond the last


@functools.lru_cache(maxsize=1024)
def bilinear_weights(old: int, new: int, manner: Manner, part: tuple[float, float] | None = None) -> Weights:
    """Return the weights of a triangle that is two samples wide, old or new, whichever is wider.

    part: where the new samples begin and end among the old; None: all of them.
    """
    start, stop = (np.float32(end) for end in part or (0, old))  # as Pillow takes them
    scale = float(stop - start) / new
    support = max(scale, 1.0)
    centre = float(start) + (np.arange(new) + 0.5) * scale
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


class Part(NamedTuple):
    """A part of an image in px, in fractions of them where need be."""

    left: float
    top: float
    right: float
    bottom: float


def whole(image: np.ndarray) -> Part:
    """Return all of uint8 [h, w, 3]."""
    return Part(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))


def centred(image: np.ndarray, height: int, width: int) -> Part:
    """Return the largest centred part that has the aspect of [height, width], as tools/make_shards.py cuts it."""
    old_height, old_width = image.shape[:2]
    across, down = min(old_width, old_height * (width / height)), min(old_height, old_width / (width / height))
    left, top = (old_width - across) / 2, (old_height - down) / 2
    return Part(left, top, min(left + across, old_width), min(top + down, old_height))


def resize(image: np.ndarray, height: int, width: int, manner: Manner = PILLOW, part: Part | None = None) -> np.ndarray:
    """Resize uint8 [h, w, 3], or a part, to [height, width, 3], first across, then down. The specification."""
    _, bits, kept = manner
    left, top, right, bottom = part or whole(image)
    across = bilinear_weights(image.shape[1], width, manner, (left, right))
    down = bilinear_weights(image.shape[0], height, manner, (top, bottom))
    middle = _resample(image.astype(np.int64), 1, across, bits - kept)
    return _resample(middle, 0, down, bits + kept).astype(np.uint8)


def _resample(old: np.ndarray, axis: int, weights: Weights, shift: int) -> np.ndarray:
    (first, weight), size = weights, len(weights.first)
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


def resize_into(image: np.ndarray, out: np.ndarray, manner: Manner = PILLOW, part: Part | None = None) -> None:
    """Resize uint8 [h, w, 3] into uint8 [H, W, 3], both C-contiguous; without the GIL where numba is there."""
    (old_height, old_width, _), (height, width, _) = image.shape, out.shape
    left, top, right, bottom = part or whole(image)
    if image.shape == out.shape and (left, top, right, bottom) == whole(image):
        np.copyto(out, image)
    elif resize_loops.function is None:
        np.copyto(out, resize(image, height, width, manner, part))
    else:
        across = bilinear_weights(old_width, width, manner, (left, right))
        down = bilinear_weights(old_height, height, manner, (top, bottom))
        resize_loops.function(image, *across, *down, manner.bits, manner.kept, out)


def resize_all(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [B, h, w, 3] to [B, height, width, 3] as Pillow's BILINEAR does."""
    out = np.empty((len(images), height, width, 3), np.uint8)
    for image, target in zip(images, out, strict=True):
        resize_into(image, target)
    return out
