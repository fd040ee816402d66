"""Counts of accepted pairs -> where a threshold lies, and in the end which key it is.

Every threshold of an evaluation is the highest score at which something holds that, once it holds, holds for all lower
ones: more than k impostors are accepted; FMR exceeds FNMR; all pairs are accepted. A search begins with all keys and
is narrowed by counts: those of rough scores say for each edge of a bin what is at least and at most accepted there,
those of a window are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastface.metrics.all_pairs.keys import BINS, HIGHEST, LOWEST, PER_ONE, bin_of, edge, key_of, score_of
from fastface.metrics.all_pairs.products import Product

Holds = Callable[[int, int], bool]
"""(genuine, impostor pairs accepted) -> whether it holds; true stays true for more of either."""


class Window(NamedTuple):
    """Keys to be counted exactly, a slot for each 2^shift of them; pairs with rough scores in its bins are rescored."""

    low: int
    shift: int
    slots: int
    first_bin: int
    last_bin: int  # inclusive
    keep: int  # 1: of the few pairs in its one slot, the keys themselves are kept


class Edges(NamedTuple):
    """Exact counts: pairs whose key is at least keys[k]."""

    keys: np.ndarray  # int64 [K], ascending
    accepted: np.ndarray  # int64 [2, K]: genuine, impostors

    def at(self, key: int) -> tuple[int, int] | None:
        """Return (genuine, impostors) accepted at a key, None where no edge is there."""
        k = int(np.searchsorted(self.keys, key))
        if k == len(self.keys) or self.keys[k] != key:
            return None
        return int(self.accepted[0, k]), int(self.accepted[1, k])


@dataclass
class Search:
    """The highest key at which `holds`: it is at least `low` and at most `high`."""

    holds: Holds
    low: int = LOWEST
    high: int = HIGHEST
    accepted: tuple[int, int] | None = None  # (genuine, impostors) at the key, once it is found
    above: tuple[int, int] | None = None  # and strictly above it

    @property
    def found(self) -> bool:
        return self.accepted is not None and self.above is not None

    @property
    def key(self) -> int:
        assert self.found
        return self.low

    def narrow(self, edges: Edges) -> None:
        """Take exact counts into account."""
        k = _last(self.holds, edges.accepted)
        if k >= 0:
            self.low = max(self.low, int(edges.keys[k]))
        if k + 1 < len(edges.keys):
            self.high = min(self.high, int(edges.keys[k + 1]) - 1)
        assert self.low <= self.high, "counts contradict each other"
        if self.low == self.high:
            self.accepted = self.accepted or edges.at(self.low)
            self.above = self.above or edges.at(self.low + 1)

    def narrow_roughly(self, fewest: np.ndarray, most: np.ndarray) -> None:
        """Take bounds into account: what is at least and at most accepted at the edge of each bin, [2, BINS + 1]."""
        low, high = _last(self.holds, fewest), _last(self.holds, most)
        if low >= 0:
            self.low = max(self.low, key_of(edge(low)))
        if high < BINS:
            self.high = min(self.high, key_of(edge(high + 1)) - 1)
        assert self.low <= self.high, "counts contradict each other"


def accepted_at_edges(coarse: np.ndarray, shift: int = 0) -> np.ndarray:
    """Sum counts [2, BINS] from each bin plus `shift` upwards: int64 [2, BINS + 1]."""
    sums = np.zeros((len(coarse), BINS + 1), coarse.dtype)
    sums[:, :BINS] = np.cumsum(coarse[:, ::-1], axis=1)[:, ::-1]
    return sums[:, (np.arange(BINS + 1) + shift).clip(0, BINS)]


def rough_bounds(coarse: np.ndarray, product: Product) -> tuple[np.ndarray, np.ndarray]:
    """Bound what is accepted at the edge of each bin by the counts [2, BINS] of rough scores."""
    bins = math.ceil(product.error() * PER_ONE)
    return accepted_at_edges(coarse, bins), accepted_at_edges(coarse, -bins)


def guesses(coarse: np.ndarray, totals: tuple[int, int], product: Product) -> tuple[np.ndarray, np.ndarray]:
    """Guess what is accepted among `totals` (genuine, impostor) pairs by the counts [2, BINS] of some of them, or all.

    Five standard deviations and 3 % to either side (rows that many others resemble make counts vary more than their
    number says); what turns out wrong costs another pass over the pairs, and nothing else.
    """
    sizes, all_of = coarse.sum(axis=1)[:, None], np.array(totals)[:, None]
    bins = math.ceil(product.error() * PER_ONE / 16)  # the bound is for the worst of all sums
    fewest, most = accepted_at_edges(coarse, bins), accepted_at_edges(coarse, -bins)
    part = sizes < all_of
    fewest = (fewest - part * _slack(fewest, sizes)).clip(0)
    most = np.minimum(most + part * _slack(most, sizes), sizes)
    most[sizes[:, 0] == 0] = 1  # of none, nothing is known
    scale = all_of / np.maximum(sizes, 1)
    return fewest * scale, most * scale


def _slack(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    rest = sizes - counts
    return 5 * np.sqrt(counts * (rest / np.maximum(sizes, 1))) + 0.03 * np.minimum(counts, rest) + 3


def window(low: int, high: int, product: Product, *, slots: int, pairs: float, keep: float) -> Window:
    """Cover the keys low .. high by at most so many slots, each of one key if there is room for that.

    Where fewer pairs than keys are expected, and at most `keep`, there is one slot, and the pairs' keys are kept.
    """
    kept = pairs <= min(keep, high - low)
    shift = (high - low).bit_length() if kept else ((high - low) // slots).bit_length()
    number = ((high - low) >> shift) + 1
    return Window(low, shift, number, *bins_of(low, min(low + (number << shift), HIGHEST + 1), product), int(kept))


def bins_of(low: int, high: int, product: Product) -> tuple[int, int]:
    """Return the first and the last bin in which a pair whose key is in low .. high may be found."""
    first, last = score_of(low), score_of(high)
    return bin_of(first - product.error(first)), bin_of(last + product.error(last))


def edges_of(covered: Window, counts: np.ndarray, kept: np.ndarray, coarse: np.ndarray) -> Edges:
    """Sum what a pass has counted: slots [2, slots + 2] (below, slots, above), kept pairs (2 * key + is impostor) [n].

    coarse [2, BINS] is of the same pass.
    """
    above = counts[:, -1] + coarse[:, covered.last_bin + 1 :].sum(axis=1)
    accepted = np.cumsum(np.concatenate([above[:, None], counts[:, -2:0:-1]], axis=1), axis=1)[:, ::-1]
    keys = covered.low + (np.arange(covered.slots + 1, dtype=np.int64) << covered.shift)
    if covered.keep and len(kept) == counts[:, 1].sum():  # or there were too many to be kept
        here = np.unique(kept >> 1)
        keys = np.unique(np.concatenate([keys, here, here + 1]))
        ranked = [np.sort(kept[kept & 1 == kind] >> 1) for kind in (0, 1)]
        beyond = [len(some) - np.searchsorted(some, keys) for some in ranked]
        accepted = above[:, None] + np.stack(beyond)
    return Edges(keys, np.ascontiguousarray(accepted))


def _last(holds: Holds, accepted: np.ndarray) -> int:
    """Return the last column of [2, K] at which it holds, -1 if none; it holds for all before that one."""
    low, high = -1, accepted.shape[1] - 1
    while low < high:
        middle = (low + high + 1) // 2
        genuine, impostors = accepted[:, middle].tolist()
        if holds(genuine, impostors):
            low = middle
        else:
            high = middle - 1
    return low
