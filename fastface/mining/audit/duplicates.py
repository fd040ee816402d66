"""Thumbnails and pixels -> which images are the same picture: equal, encoded again, resized, mirrored, lit otherwise.

A perceptual hash proposes, the correlation of the pictures' detail decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import uniform_filter

from fastface.mining.audit.pixels import THUMB

BITS = 96
CHUNK = 65_536  # thumbnails at a time: 64 MB of float32
CROWD = 64  # of images that share a band, how many of the next each is compared with
SIDE = 48  # px at which pictures are compared
SHIFT = 2  # px of these by which one may lie beside the other
AROUND = 9  # px a side of the mean that is subtracted: what is left is detail, and no longer what all faces share
_ORDER = sorted(
    ((row, column) for row in range(THUMB) for column in range(THUMB) if row + column),
    key=lambda place: (sum(place), place),
)[:BITS]  # the lowest frequencies, without the mean
_ROWS, _COLUMNS = (np.array(axis) for axis in zip(*_ORDER, strict=True))


class Pairs(NamedTuple):
    """Pairs of images, first < second."""

    first: np.ndarray  # int64 [P]
    second: np.ndarray  # int64 [P]


class Proposed(NamedTuple):
    """What the hash finds."""

    pairs: Pairs
    bits: np.ndarray  # int [P]: in how many of 96 the hashes differ, mirrored or not
    crowded: int  # images in bands that more than CROWD share, where not all pairs were looked at


def medians(thumbnails: np.ndarray, most: int = CHUNK) -> np.ndarray:
    """Take the median of each coefficient over evenly spaced thumbnails, float32 [BITS].

    A hash says where an image is above the set's own medians: aligned faces are alike in what all faces share, and
    each bit is one in half of the images.
    """
    step = max(1, -(-len(thumbnails) // most))
    return np.median(_coefficients(np.asarray(thumbnails[::step])), axis=0)


def hashes(thumbnails: np.ndarray, middle: np.ndarray, *, mirrored: bool = False) -> np.ndarray:
    """Hash uint8 [N, THUMB, THUMB] -> uint8 [N, BITS / 8] by the signs of their DCT-II beside `middle`."""
    codes = np.empty((len(thumbnails), BITS // 8), np.uint8)
    for start in range(0, len(thumbnails), CHUNK):
        part = np.asarray(thumbnails[start : start + CHUNK])
        part = part[:, :, ::-1] if mirrored else part
        codes[start : start + CHUNK] = np.packbits(_coefficients(part) > middle, axis=1)
    return codes


def propose(codes: np.ndarray, mirrored: np.ndarray, usable: np.ndarray, radius: int) -> Proposed:
    """Find pairs whose hashes (uint8 [N, 12]), one of them perhaps mirrored, differ in at most `radius` bits.

    Hashes that are equal in one of several bands are compared: bands of about log2(2 N) bits, so that few images share
    one by chance. Whatever differs in fewer bits than there are bands is found for certain, except in crowds.
    """
    size = len(codes)
    owner = np.concatenate([np.flatnonzero(usable)] * 2)
    turned = np.arange(len(owner)) >= len(owner) // 2
    both = np.concatenate([codes[usable], mirrored[usable]])
    width = int(np.clip(np.ceil(np.log2(max(len(both), 2))), 12, 24))
    found, crowded = [np.empty(0, np.int64)], 0
    for start in range(0, BITS - width + 1, width):
        band = _band(both, start, width)
        # Within a band, hashes that are alike elsewhere lie side by side.
        order = np.lexsort((*both.T[::-1], band))
        ranked = band[order]
        left = np.arange(len(order) - 1)
        for shift in range(1, CROWD + 1):
            left = left[left < len(order) - shift]
            left = left[ranked[left] == ranked[left + shift]]
            if not len(left):
                break
            a, b = order[left], order[left + shift]
            good = (owner[a] != owner[b]) & ~(turned[a] & turned[b])
            a, b = a[good], b[good]
            near = np.bitwise_count(both[a] ^ both[b]).sum(axis=1, dtype=np.int64) <= radius
            low, high = np.minimum(owner[a], owner[b])[near], np.maximum(owner[a], owner[b])[near]
            found.append(np.unique(low * size + high))
        else:
            crowded += len(left)
    keys = np.unique(np.concatenate(found))
    pairs = Pairs(keys // size, keys % size) if size else Pairs(keys, keys)
    straight = np.bitwise_count(codes[pairs.first] ^ codes[pairs.second]).sum(axis=1, dtype=np.int64)
    across = np.bitwise_count(codes[pairs.first] ^ mirrored[pairs.second]).sum(axis=1, dtype=np.int64)
    return Proposed(pairs, np.minimum(straight, across), crowded)


def thumbnail_correlation(thumbnails: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Correlate the thumbnails of pairs, straight and mirrored, and return the larger, float32 [P]."""
    best = np.empty(len(pairs.first), np.float32)
    for start in range(0, len(pairs.first), CHUNK):
        part = slice(start, start + CHUNK)
        a, b = (np.asarray(thumbnails[side[part]], np.float32) for side in pairs)
        first, straight, across = (_unit(x.reshape(len(x), -1)) for x in (a, b, b[:, :, ::-1]))
        best[part] = np.maximum((first * straight).sum(1), (first * across).sum(1))
    return best


def detail(image: np.ndarray) -> np.ndarray:
    """Shrink uint8 [H, W, 3] to grey [SIDE, SIDE] less the mean around each pixel, float32.

    Of LFW's pairs of 48 x 48 px that correlate to 0.95 as they are, two strangers in one pose correlate to 0.73 in
    detail, and what is one photograph to 0.86 or more.
    """
    picture = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    light = np.asarray(picture, np.float32)
    return light - uniform_filter(light, AROUND)


def correlation(first: np.ndarray, second: np.ndarray) -> tuple[float, bool]:
    """Correlate two details [SIDE, SIDE] at the best shift of up to SHIFT px; and say whether mirrored."""
    inner = SIDE - 2 * SHIFT
    target = _unit(first[SHIFT : SHIFT + inner, SHIFT : SHIFT + inner].reshape(1, -1))[0]
    best = []
    for picture in (second, second[:, ::-1]):
        windows = np.lib.stride_tricks.sliding_window_view(picture, (inner, inner))
        best.append(float((_unit(windows.reshape(-1, inner * inner)) @ target).max()))
    return max(best), best[1] > best[0]


def equal_groups(keys: np.ndarray) -> list[np.ndarray]:
    """List the groups of places whose keys (uint64 [N]; 0: none) are equal, two or more each."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    cuts = np.flatnonzero(np.diff(ranked)) + 1
    starts, ends = np.concatenate([[0], cuts]), np.concatenate([cuts, [len(ranked)]])
    many = np.flatnonzero(ends - starts > 1)
    return [order[starts[k] : ends[k]] for k in many if ranked[starts[k]]]


def groups_of(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Join pairs that share an image, and list the groups in order."""
    above: dict[int, int] = {}

    def root(i: int) -> int:
        while above.setdefault(i, i) != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        above[high] = low
    groups: dict[int, list[int]] = {}
    for i in sorted(above):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def _band(codes: np.ndarray, start: int, width: int) -> np.ndarray:
    """Read `width` bits of each code as a number, uint32 [N]."""
    numbers = np.empty(len(codes), np.uint32)
    for first in range(0, len(codes), CHUNK):
        bits = np.unpackbits(codes[first : first + CHUNK], axis=1)[:, start : start + width]
        numbers[first : first + CHUNK] = bits.astype(np.uint32) @ (1 << np.arange(width, dtype=np.uint32))
    return numbers


def _coefficients(thumbnails: np.ndarray) -> np.ndarray:
    wide = np.asarray(dctn(thumbnails.astype(np.float32), axes=(1, 2), norm="ortho"))
    return wide[:, _ROWS, _COLUMNS]


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6))
