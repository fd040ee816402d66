"""Decoded pixels in any of three layouts -> planes, mirrored and normalised: compiled by numba, or in numpy.

Layouts, all of 8-bit RGB images [B, H, W]:
    words   uint32 [B, H, W], red in the lowest byte: what libjpeg-turbo writes fastest (54 us for a 112 x 112 face
            where three bytes a pixel take 70; 1 core, 2026-11-24)
    pixels  uint8 [B, H, W, 3]: what augmentation and DALI work on
    planes  uint8 [B, 3, H, W]: what a cache keeps
Planes come out as float32, (x - mean) * inverse_std with a mean and a std for each colour, or as uint8, unchanged. No
step can be fused with another, so numba and numpy give the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastface.data.compiled import kernel

# (source, flip bool [B], out [B, 3, H, W], mean and inverse_std float32 [3]) -> nothing; `out` is float32 or uint8,
# contiguous
Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
# the same with the rows of the source to take, int64 [B], after it
RowsKernel = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]

assert sys.byteorder == "little", "words have red in the lowest byte, as little-endian machines read RGBX"


class Kernels(NamedTuple):
    """One implementation of all kernels."""

    name: str  # "numba" or "numpy"
    words: Kernel
    pixels: Kernel
    planes: RowsKernel
    pixels_of_words: Callable[[np.ndarray, np.ndarray], None]  # uint32 [B, H, W] into uint8 [B, H, W, 3]


def kernels(compiled: bool | None = None) -> Kernels:
    """Choose the implementation: None takes numba where it is installed, True insists on it, False takes numpy."""
    if compiled is not False:
        found = _numba_kernels()
        if found is not None:
            return found
        if compiled:
            raise ValueError(
                'numba is not installed or switched off: pip install "numba>=0.62", unset NUMBA_DISABLE_JIT'
            )
    return Kernels("numpy", _numpy_words, _numpy_pixels, _numpy_planes, _numpy_pixels_of_words)


def _numpy_words(words: np.ndarray, flip: np.ndarray, out: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> None:
    _numpy_pixels(words.view(np.uint8).reshape(*words.shape, 4)[..., :3], flip, out, mean, scale)


def _numpy_pixels(pixels: np.ndarray, flip: np.ndarray, out: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> None:
    """Work on few images at a time, to stay in the cache, but not on each: every call passes the GIL."""
    together = 8  # 1: 16,400 images/s in two threads, decoding included; 2: 18,200; 8: 19,100 (2 cores, 2026-11-24)
    planes = np.empty((together, 3, *pixels.shape[1:3]), np.uint8)
    m, s = _one_or_three(mean), _one_or_three(scale)
    for first in range(0, len(pixels), together):
        rows = slice(first, first + together)
        part = planes[: len(pixels[rows])]
        np.copyto(part, pixels[rows].transpose(0, 3, 1, 2))
        for row in np.flatnonzero(flip[rows]).tolist():
            part[row] = part[row, :, :, ::-1].copy()
        _numpy_finish(part, out[rows], m, s)


def _numpy_planes(
    planes: np.ndarray, rows: np.ndarray, flip: np.ndarray, out: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> None:
    m, s = _one_or_three(mean), _one_or_three(scale)
    for row, mirror, target in zip(rows.tolist(), flip.tolist(), out, strict=True):
        _numpy_finish(planes[row, :, :, ::-1] if mirror else planes[row], target, m, s)


def _one_or_three(values: np.ndarray) -> np.float32 | np.ndarray:
    """Return the one number that three equal ones are, which numpy is quicker with (2 to 8 %), else [3, 1, 1]."""
    red, green, blue = values.tolist()  # for eight images numpy's own comparison would cost as much as it saves
    return values[0] if red == green == blue else values[:, None, None]


def _numpy_finish(
    values: np.ndarray, target: np.ndarray, mean: np.float32 | np.ndarray, scale: np.float32 | np.ndarray
) -> None:
    np.copyto(target, values, casting="unsafe")
    if target.dtype == np.float32:
        np.subtract(target, mean, out=target)
        np.multiply(target, scale, out=target)


def _numpy_pixels_of_words(words: np.ndarray, pixels: np.ndarray) -> None:
    np.copyto(pixels, words.view(np.uint8).reshape(*words.shape, 4)[..., :3])


# For numba. What makes the loops vectorise: an index that cannot be negative, or numba asks each time whether to count
# from the end (mirroring: 9 us an image so, 3 us with uintp), and bytes turned into int32 before they become floats.


@kernel("void(uint32[:,:,::1], boolean[::1], float32[:,:,:,::1], float32[::1], float32[::1])")
def _words_to_float(words, flip, out, mean, scale):
    num_images, height, width = words.shape
    red_mean, green_mean, blue_mean = mean[0], mean[1], mean[2]
    red_scale, green_scale, blue_scale = scale[0], scale[1], scale[2]
    for i in range(num_images):
        for y in range(height):
            row, red, green, blue = words[i, y], out[i, 0, y], out[i, 1, y], out[i, 2, y]
            if flip[i]:
                for x in range(width):
                    word = row[np.uintp(width - 1 - x)]
                    red[x] = (np.float32(np.int32(word & 0xFF)) - red_mean) * red_scale
                    green[x] = (np.float32(np.int32((word >> 8) & 0xFF)) - green_mean) * green_scale
                    blue[x] = (np.float32(np.int32((word >> 16) & 0xFF)) - blue_mean) * blue_scale
            else:
                for x in range(width):
                    word = row[x]
                    red[x] = (np.float32(np.int32(word & 0xFF)) - red_mean) * red_scale
                    green[x] = (np.float32(np.int32((word >> 8) & 0xFF)) - green_mean) * green_scale
                    blue[x] = (np.float32(np.int32((word >> 16) & 0xFF)) - blue_mean) * blue_scale


@kernel("void(uint32[:,:,::1], boolean[::1], uint8[:,:,:,::1])")
def _words_to_bytes(words, flip, out):
    num_images, height, width = words.shape
    for i in range(num_images):
        for y in range(height):
            row, red, green, blue = words[i, y], out[i, 0, y], out[i, 1, y], out[i, 2, y]
            if flip[i]:
                for x in range(width):
                    word = row[np.uintp(width - 1 - x)]
                    red[x], green[x], blue[x] = word, word >> 8, word >> 16
            else:
                for x in range(width):
                    word = row[x]
                    red[x], green[x], blue[x] = word, word >> 8, word >> 16


@kernel("void(Array(uint8, 4, 'C', readonly=True), uint32[:,:,::1])")
def _words_of_pixels(pixels, words):
    num_images, height, width, _ = pixels.shape
    for i in range(num_images):
        source, target = pixels[i].ravel(), words[i].ravel()
        for x in range(np.uintp(height * width)):
            blue = np.uint32(source[3 * x + 2]) << np.uint32(16)
            target[x] = np.uint32(source[3 * x]) | (np.uint32(source[3 * x + 1]) << np.uint32(8)) | blue


@kernel(
    "void(Array(uint8, 4, 'C', readonly=True), int64[::1], boolean[::1], float32[:,:,:,::1], "
    "float32[::1], float32[::1])"
)
def _planes_to_float(planes, rows, flip, out, mean, scale):
    _, channels, height, width = planes.shape
    for i in range(len(rows)):
        for c in range(channels):
            own_mean, own_scale = mean[c], scale[c]
            for y in range(height):
                row, target = planes[rows[i], c, y], out[i, c, y]
                if flip[i]:
                    for x in range(width):
                        target[x] = (np.float32(np.int32(row[np.uintp(width - 1 - x)])) - own_mean) * own_scale
                else:
                    for x in range(width):
                        target[x] = (np.float32(np.int32(row[x])) - own_mean) * own_scale


@kernel("void(Array(uint8, 4, 'C', readonly=True), int64[::1], boolean[::1], uint8[:,:,:,::1])")
def _planes_to_bytes(planes, rows, flip, out):
    _, channels, height, width = planes.shape
    for i in range(len(rows)):
        for c in range(channels):
            for y in range(height):
                row, target = planes[rows[i], c, y], out[i, c, y]
                if flip[i]:
                    for x in range(width):
                        target[x] = row[np.uintp(width - 1 - x)]
                else:
                    for x in range(width):
                        target[x] = row[x]


@kernel("void(uint32[:,:,::1], uint8[:,:,:,::1])")
def _pixels_of_words(words, pixels):
    num_images, height, width = words.shape
    for i in range(num_images):
        for y in range(height):
            row, target = words[i, y], pixels[i, y]
            for x in range(width):
                word = row[x]
                target[x, 0], target[x, 1], target[x, 2] = word, word >> 8, word >> 16


def _numba_kernels() -> Kernels | None:
    """Compile the loops, once per machine; None where numba is missing or switched off."""
    made = [
        loops.function
        for loops in (_words_to_float, _words_to_bytes, _planes_to_float, _planes_to_bytes, _words_of_pixels)
    ]
    words_float, words_bytes, planes_float, planes_bytes, words_of = made
    pixels_of = _pixels_of_words.function
    if None in made or pixels_of is None:
        return None

    def either(to_float: Any, to_bytes: Any) -> Callable[..., None]:
        """Choose by the type of `out`, the last but two of the arguments; bytes need no arithmetic."""

        def chosen(*arguments: Any) -> None:
            if arguments[-3].dtype == np.float32:
                to_float(*arguments)
            else:
                to_bytes(*arguments[:-2])

        return chosen

    words_kernel = either(words_float, words_bytes)

    def pixels_kernel(
        source: np.ndarray, flip: np.ndarray, out: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> None:
        packed = np.empty((min(8, len(source)), *source.shape[1:3]), np.uint32)
        for i in range(0, len(source), 8):  # so few that their words stay in the cache
            part = source[i : i + 8]
            words_of(part, packed[: len(part)])  # type: ignore[misc]
            words_kernel(packed[: len(part)], flip[i : i + 8], out[i : i + 8], mean, scale)

    return Kernels("numba", words_kernel, pixels_kernel, either(planes_float, planes_bytes), pixels_of)
