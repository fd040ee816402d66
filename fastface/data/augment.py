"""Slots -> Draws: the random parameters of every sample, drawn on the host for a decoder to apply."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastface.data.plan import Slots

# One stream of random numbers per field: a new field takes a new number, and changes nothing for the others.
STREAMS = {"flip": 0}
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


class Draws(NamedTuple):
    """What is done to each image of a batch; a decoder applies it and draws nothing itself."""

    flip: np.ndarray  # bool [B], mirror left to right

    def rows(self, start: int, stop: int) -> Draws:
        """Return the draws of rows [start, stop)."""
        return Draws(self.flip[start:stop])


class Augment:
    """Draw the parameters of every slot from its key alone: ranks, threads and batch sizes change nothing."""

    def __init__(self, flip: float = 0.5) -> None:
        if not 0 <= flip <= 1:
            raise ValueError(f"augment.flip is {flip}; it is the probability of mirroring an image, from 0 to 1")
        self.flip = flip

    def draw(self, slots: Slots) -> Draws:
        """Return the draws of each row of `slots`."""
        if self.flip in (0, 1):  # nothing random about it; the numbers would give the same
            return Draws(flip=np.full(len(slots.keys), bool(self.flip)))
        return Draws(flip=uniform(slots.keys, "flip")[:, 0] < self.flip)


def uniform(keys: np.ndarray, field: str) -> np.ndarray:
    """Return four multiples of 2^-32 in [0, 1) for each key, on the stream of `field`: float64 [B, 4]."""
    return philox4x32(keys, STREAMS[field]) * 2.0**-32


def philox4x32(keys: np.ndarray, stream: int, block: int = 0) -> np.ndarray:
    """Run Philox4x32-10 for each key with the counter (block, stream, 0, 0): uint32 [B, 4].

    keys: uint64 [B], low word first. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    SC 2011; numpy's own Philox is the 64-bit variant and takes one key at a time.
    """
    counter = np.zeros((4, len(keys)), np.uint64)
    counter[0], counter[1] = block, stream
    return philox_rounds(counter, np.stack([keys & LOW, keys >> SHIFT])).T.astype(np.uint32)


def philox_rounds(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Encrypt counters, uint64 [4, B] of 32-bit values, under keys, uint64 [2, B] likewise, in ten rounds."""
    multipliers = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
    weyl = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
    even, odd = counter[0::2], counter[1::2]  # words 0 and 2, words 1 and 3
    for _ in range(10):
        product = even * multipliers  # the 64-bit products of both halves at once
        even = (product[::-1] >> SHIFT) ^ odd ^ key
        odd = product[::-1] & LOW
        key = (key + weyl) & LOW
    result = np.empty_like(counter)
    result[0::2], result[1::2] = even, odd
    return result
