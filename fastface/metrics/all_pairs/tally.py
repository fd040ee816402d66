"""A tile of rough scores -> counts of its pairs by bin, and exactly by key where a window asks for it.

Two ways with equal counts: loops compiled by numba for a CPU, and torch's operations for any device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastface.metrics.all_pairs.kernels import NEAR_ZERO, Kernels
from fastface.metrics.all_pairs.keys import BINS, MIDDLE, PER_ONE, keys_of
from fastface.metrics.all_pairs.panels import Panel
from fastface.metrics.all_pairs.search import Edges, Window, edges_of
from fastface.metrics.scores import pair_scores

RESCORED = 65_536  # pairs at a time on a device: 65,536 x 512 float64 take 268 MB a side
KEPT = 2**22  # keys kept by windows of few pairs, 64 MB: of one worker, and of all together


class Counts(NamedTuple):
    """What a number of pairs come to; counts of disjoint pairs add up."""

    coarse: np.ndarray  # int64 [2, BINS]: genuine, impostor pairs by the bin of their rough score
    windows: np.ndarray  # int64 [sum over windows of 2 * (slots + 2)], see `slots_of`
    rescored: np.ndarray  # int64 [1]: pairs scored in float64
    kept: np.ndarray  # int64 [n, 2]: window, 2 * key + is impostor; incomplete where there are more than `KEPT`

    def __add__(self, other: object) -> Counts:
        assert isinstance(other, Counts)
        kept = np.concatenate([self.kept, other.kept])[:KEPT]
        coarse, windows = self.coarse + other.coarse, self.windows + other.windows
        return Counts(coarse, windows, self.rescored + other.rescored, kept)


def no_counts(windows: list[Window]) -> Counts:
    size = sum(2 * (window.slots + 2) for window in windows)
    empty = np.zeros((0, 2), np.int64)
    return Counts(np.zeros((2, BINS), np.int64), np.zeros(size, np.int64), np.zeros(1, np.int64), empty)


def edges_of_window(counts: Counts, windows: list[Window], number: int) -> Edges:
    """Sum the counts of one window of a pass."""
    covered = windows[number]
    offset = sum(2 * (window.slots + 2) for window in windows[:number])
    slots = counts.windows[offset : offset + 2 * (covered.slots + 2)].reshape(2, -1)
    return edges_of(covered, slots, counts.kept[counts.kept[:, 0] == number, 1], counts.coarse)


class Tally:
    """Counts of one worker. `dimension` is D, `loops` the compiled kernels or None for torch's operations."""

    def __init__(self, windows: list[Window], dimension: int, device: torch.device, loops: Kernels | None) -> None:
        self.windows, self.device, self.loops = windows, device, loops
        # Two float64 sums of D products of unit vectors in whatever order, and two ways of scaling them, differ by
        # less: each sum is off by D 2^-53 at most (Higham, as in products.py), lengths and divisions by D + 6.
        self.unit_error = (4 * dimension + 32) * 2.0**-53
        near = np.zeros(BINS, bool)
        for window in windows:
            near[window.first_bin : window.last_bin + 1] = True
        self.near = torch.from_numpy(near).to(device)
        sizes = np.array([2 * (window.slots + 2) for window in windows], np.int64)
        self.table = np.array([(*window, o) for window, o in zip(windows, np.cumsum(sizes) - sizes, strict=True)])
        self.table = self.table.astype(np.int64).reshape(len(windows), 7)
        self.total = no_counts(windows)
        self._coarse = np.zeros((2, BINS), np.uint32)
        self._since = 0  # pairs in it
        self._device_coarse = torch.zeros(2 * BINS, dtype=torch.int64, device=device)
        self._device_windows = torch.zeros(len(self.total.windows), dtype=torch.int64, device=device)
        self._scratch: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []

    def add(self, scores: Tensor, first: np.ndarray, stop: np.ndarray, a: Panel, b: Panel) -> None:
        """Count a tile of rough scores [m, n] of the rows of `a` and `b`, which are cut to it.

        Pairs of row i are those with columns first[i] and beyond, genuine as long as the column is below stop[i].
        """
        if self.loops is None:
            self._add_by_torch(scores, first, stop, a, b)
            return
        m, n = scores.shape
        if not self._scratch or len(self._scratch[0]) < m * n:
            self._scratch = [np.empty(m * n, np.int32) for _ in range(3)]
        if self._since + m * n >= 2**32:
            self._flush()
        self._since += m * n
        line = np.empty(n, np.int32)
        found = self.loops.count(scores.numpy(), first, stop, self._coarse, self.near.numpy(), *self._scratch, line)
        if not found:
            return
        rows, columns, bins = (array[:found] for array in self._scratch)
        dots, errors = np.empty(found), np.empty(found)
        arrays = (a.raw.numpy(), b.raw.numpy(), a.inverse.numpy(), b.inverse.numpy())
        self.loops.dots(*arrays, rows, columns, self.unit_error, dots, errors)
        keys, above = keys_of((dots - errors).astype(np.float32)), keys_of((dots + errors).astype(np.float32))
        doubtful = np.flatnonzero(keys != above)
        if len(doubtful):
            keys[doubtful] = _defined(a.raw, b.raw, rows[doubtful], columns[doubtful])
        genuine = columns < stop[rows]
        room = len(self.windows) * found if any(window.keep for window in self.windows) else 0
        kept = np.empty((min(room, KEPT), 2), np.int64)
        self._keep(kept[: self.loops.place(keys, bins, genuine, self.table, self.total.windows, kept)])
        self.total.rescored[0] += found

    def _add_by_torch(self, scores: Tensor, first: np.ndarray, stop: np.ndarray, a: Panel, b: Panel) -> None:
        bins = (scores * PER_ONE + MIDDLE).to(torch.int32)
        column = torch.arange(scores.shape[1], device=self.device)
        below = torch.from_numpy(stop).to(self.device)[:, None]
        genuine = column < below
        inside = column >= torch.from_numpy(first).to(self.device)[:, None]
        places = bins + torch.where(genuine, 0, BINS)
        self._device_coarse += torch.bincount(places[inside], minlength=2 * BINS)
        if not self.windows:
            return
        wanted = (self.near[bins.long()] & inside).nonzero()  # [k, 2]
        for part in wanted.split(RESCORED):
            rows, columns = part.T
            keys = self._keys(a, b, rows, columns)
            kinds, numbers = genuine[rows, columns], bins[rows, columns]
            for number, (low, shift, slots, begin, end, keep, offset) in enumerate(self.table.tolist()):
                here = (numbers >= begin) & (numbers <= end)
                slot = (((keys - low) >> shift) + 1).clamp(0, slots + 1)
                place = (slot + torch.where(kinds, 0, slots + 2) + offset)[here]
                self._device_windows.index_add_(0, place, torch.ones_like(place))
                if keep:
                    marked = (2 * keys + ~kinds)[here & (slot == 1)].cpu().numpy()
                    self._keep(np.stack([np.full_like(marked, number), marked], axis=1))
        self.total.rescored[0] += len(wanted)

    def _keys(self, a: Panel, b: Panel, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the keys of some pairs of a tile, int64 [k]."""
        products = a.raw[rows].double() * b.raw[columns].double()
        scale = a.inverse[rows] * b.inverse[columns]
        dots = products.sum(dim=1) * scale
        errors = torch.where(dots.abs() < NEAR_ZERO, products.abs_().sum(dim=1) * scale, 1.0) * self.unit_error
        keys, above = (_device_keys((dots + sign * errors).float()) for sign in (-1, 1))
        doubtful = (keys != above).nonzero()[:, 0]
        if len(doubtful):
            defined = _defined(a.raw, b.raw, rows[doubtful].cpu().numpy(), columns[doubtful].cpu().numpy())
            keys[doubtful] = torch.from_numpy(defined).to(self.device)
        return keys

    def _keep(self, kept: np.ndarray) -> None:
        if len(kept) and sum(map(len, self._kept)) < KEPT:
            self._kept.append(kept.copy())  # not all the room there was for it

    def _flush(self) -> None:
        self.total.coarse[:] += self._coarse
        self._coarse[:] = 0
        self._since = 0

    def take(self) -> Counts:
        """Return what was counted since the last time, and begin anew."""
        self._flush()
        counts = self.total
        counts.coarse[:] += self._device_coarse.cpu().numpy().reshape(2, BINS)
        counts.windows[:] += self._device_windows.cpu().numpy()
        self._device_coarse.zero_()
        self._device_windows.zero_()
        counts = counts._replace(kept=np.concatenate([counts.kept, *self._kept])[:KEPT])
        self.total, self._kept = no_counts(self.windows), []
        return counts


def _device_keys(scores: Tensor) -> Tensor:
    bits = (scores + 0.0).view(torch.int32).long()
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _defined(a: Tensor, b: Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the keys of pairs by the very function that defines a score, for those that rounding leaves open."""
    device_rows, device_columns = torch.from_numpy(rows).long(), torch.from_numpy(columns).long()
    both = torch.cat([a[device_rows.to(a.device)], b[device_columns.to(b.device)]]).cpu().numpy()
    number = len(rows)
    return keys_of(pair_scores(both, np.arange(number), np.arange(number, 2 * number)))
