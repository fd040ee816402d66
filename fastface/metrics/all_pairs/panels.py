"""Embeddings in memory or in a mapped file -> panels of unit length in identity order, kept as memory allows."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastface.metrics.all_pairs.keys import BINS, MIDDLE, PER_ONE
from fastface.metrics.all_pairs.products import UNIT, half_of
from fastface.metrics.scores import unit, usable

SCANNED = 2_048  # rows at a time: of 512 values 8 MB in float64


class Rows(NamedTuple):
    """The rows that have a direction, in the order of their labels, so that an identity's rows lie together."""

    source: np.ndarray  # float32 or float16 [N, D], as given
    order: np.ndarray  # int64 [M]: positions in source
    inverse: np.ndarray  # float64 [M]: 1 / length
    stop: np.ndarray  # int64 [M]: one past the last row of the identity
    residual: float  # largest distance of a unit row from itself in half precision; 0 where not asked for
    genuine: int  # genuine pairs of all N rows, failures included
    pairs: int  # pairs of all N rows

    @property
    def impostors(self) -> int:
        return self.pairs - self.genuine

    @property
    def finite(self) -> tuple[int, int]:
        """Genuine and impostor pairs that have a score."""
        genuine = int((self.stop - np.arange(len(self.stop)) - 1).sum())
        return genuine, len(self.order) * (len(self.order) - 1) // 2 - genuine

    def part(self, number: int, seed: int = 0) -> Rows:
        """Draw whole identities until there are so many rows, or hardly more."""
        sizes = np.diff(np.append(0, np.unique(self.stop)))
        identity = np.repeat(np.arange(len(sizes)), sizes)
        drawn = np.random.Generator(np.random.Philox(seed)).permutation(len(sizes))
        chosen = np.zeros(len(sizes), bool)
        chosen[drawn[: int(np.searchsorted(np.cumsum(sizes[drawn]), number)) + 1]] = True
        places, sizes = np.flatnonzero(chosen[identity]), sizes[chosen]
        stop = np.repeat(np.cumsum(sizes), sizes)
        genuine = int((sizes * (sizes - 1) // 2).sum())
        pairs = len(places) * (len(places) - 1) // 2
        return Rows(self.source, self.order[places], self.inverse[places], stop, self.residual, genuine, pairs)


def scan(rows: np.ndarray, labels: np.ndarray, device: torch.device, *, half: bool) -> Rows:
    """Read all rows once: their lengths, which are usable, and what half precision makes of them.

    Raises ValueError where rows or labels are not what they should be, or a kind of pair is missing.
    """
    labels = np.asarray(labels)
    if rows.ndim != 2 or labels.shape != (len(rows),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"rows {rows.shape} and labels {labels.shape} of {labels.dtype} must be [N, D] and integers [N]."
        )
    if rows.dtype not in (np.float32, np.float16):
        raise ValueError(f"rows are {rows.dtype}; all-pairs figures are defined for float32 (or float16) embeddings.")
    lengths, good, residual = np.empty(len(rows)), np.empty(len(rows), bool), 0.0
    for start in range(0, len(rows), SCANNED):
        block = np.asarray(rows[start : start + SCANNED], np.float32)
        here = usable(block)
        good[start : start + SCANNED] = here
        lengths[start : start + SCANNED] = np.linalg.norm(block.astype(np.float64), axis=1)
        if half and here.any():
            exact = torch.from_numpy(unit(block[here]))
            off = (exact - exact.to(half_of(device)).double()).norm(dim=1).max()
            residual = max(residual, float(off) + 2 * UNIT)  # rows become float32 first
    counts = np.unique(labels, return_counts=True)[1].astype(np.int64)
    genuine, pairs = int((counts * (counts - 1) // 2).sum()), len(rows) * (len(rows) - 1) // 2
    if not genuine or genuine == pairs:
        what = f"all {pairs:,} pairs are {'genuine' if genuine else 'impostor'}" if pairs else "there are no pairs"
        raise ValueError(f"Verification needs genuine and impostor pairs, but of {len(rows):,} embeddings {what}.")
    if good.sum() < 2:
        raise ValueError("No pair has a finite score: embeddings failed (zero or not finite); check the model.")
    order = np.flatnonzero(good)
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.unique(labels[order], return_counts=True)[1]
    return Rows(rows, order, 1 / lengths[order], np.repeat(np.cumsum(sizes), sizes), residual, genuine, pairs)


def digest(rows: np.ndarray, labels: np.ndarray) -> str:
    """Return the sha256 of all rows and labels: what a kept state belongs to."""
    seen = hashlib.sha256(f"{rows.shape} {rows.dtype}".encode())
    for start in range(0, len(rows), SCANNED):
        seen.update(np.ascontiguousarray(rows[start : start + SCANNED]).data)
    seen.update(np.ascontiguousarray(labels, np.int64).data)
    return seen.hexdigest()


class Panel(NamedTuple):
    """Some rows in identity order, ready to be compared."""

    first: int  # position of its first row
    unit: Tensor  # [n, D] of length 1, in the product's type, on its device
    raw: Tensor  # float32 [n, D] as given, on that device
    inverse: Tensor  # float64 [n], on that device: 1 / length
    stop: np.ndarray  # int64 [n]: one past the last row of the identity


class Panels:
    """Panels of `side` rows, of which those used last are kept, up to `memory_mb`; any thread may ask."""

    def __init__(self, rows: Rows, side: int, kind: torch.dtype, device: torch.device, memory_mb: int) -> None:
        self.rows, self.side, self.kind, self.device = rows, side, kind, device
        width = rows.source.shape[1]
        each = side * width * (4 + torch.empty(0, dtype=kind).element_size())
        self.room = max(memory_mb * 10**6 // max(each, 1), 4)
        self.number = -(-len(rows.order) // side)
        self._kept: OrderedDict[int, Panel] = OrderedDict()
        self._lock = threading.Lock()

    def units(self) -> list[tuple[int, int]]:
        """List the couples of panels, i <= j, in an order in which those that are kept are used often."""
        block = max(self.room // 2, 1)
        couples = [(i, j) for i in range(self.number) for j in range(i, self.number)]
        return sorted(couples, key=lambda ij: (ij[0] // block, ij[1] // block, ij))

    def __getitem__(self, number: int) -> Panel:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        panel = self._load(number)
        with self._lock:
            self._kept[number] = panel
            while len(self._kept) > self.room:
                self._kept.popitem(last=False)
        return panel

    def _load(self, number: int) -> Panel:
        first = number * self.side
        places = slice(first, first + self.side)
        order, inverse = self.rows.order[places], self.rows.inverse[places]
        if order[-1] - order[0] == len(order) - 1 and (np.diff(order) == 1).all():
            raw = np.ascontiguousarray(self.rows.source[order[0] : order[-1] + 1], np.float32)
        else:
            raw = self.rows.source[order].astype(np.float32, copy=False)
        scaled = np.empty(raw.shape, np.float32)
        for start in range(0, len(raw), 256):  # so few that their float64 stays in the cache
            some = slice(start, start + 256)
            np.multiply(raw[some].astype(np.float64), inverse[some, None], out=scaled[some], casting="same_kind")
        host = raw if raw.flags.writeable else raw.copy()  # torch shares no memory that must not be written to
        return Panel(
            first,
            torch.from_numpy(scaled).to(self.device, self.kind),
            torch.from_numpy(host).to(self.device),
            torch.from_numpy(inverse).to(self.device),
            self.rows.stop[places],
        )


def genuine_bins(rows: Rows) -> np.ndarray:
    """Count the genuine pairs by the bins of their scores in float32: int64 [BINS]."""
    counts, step = np.zeros(BINS, np.int64), 256
    for start in range(0, len(rows.order), step):
        end = int(rows.stop[min(start + step, len(rows.order)) - 1])
        some = unit(rows.source[rows.order[start:end]].astype(np.float32)).astype(np.float32)
        stop = rows.stop[start : start + step] - start
        scores = some[:step] @ some.T
        column = np.arange(scores.shape[1])
        genuine = scores[(column > np.arange(len(scores))[:, None]) & (column < stop[:, None])]
        counts += np.bincount((genuine * PER_ONE + MIDDLE).astype(np.int64), minlength=BINS)
    return counts
