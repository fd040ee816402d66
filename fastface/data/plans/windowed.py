"""Whole shards in shuffled order -> windows of a few shards, and records shuffled within each window."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers, hash_rows, permute
from fastface.data.plans.drawn import Drawn, check_sizes, check_step, in_epochs


class _Order(NamedTuple):
    """The shards of one epoch."""

    epoch: int
    shards: np.ndarray  # int64 [S] in the order of the epoch
    ends: np.ndarray  # int64 [S]: records up to and with each of them
    window_ends: np.ndarray  # int64 [windows]


class Windowed(Drawn):
    """Visit every record once per epoch, shard by shard: for disks that hate random reads, and for remote shards.

    The shards are shuffled in every epoch; `shards` in a row are a window, whose records are shuffled among
    themselves. Steps go on from one window to the next, so a batch may hold the last records of one and the first of
    another. An epoch has size // batch_size steps; the records left over, of its last window, differ in every epoch.
    """

    def __init__(self, index: Index, shards: int, batch_size: int, seed: int) -> None:
        size = index.num_samples
        check_sizes(size, batch_size)
        if size < batch_size:
            raise ValueError(f"{size:,} records do not fill a batch of {batch_size:,}; lower it or take more images")
        if shards < 1:
            raise ValueError(f"data.plan.shards is {shards}: a window has at least one shard")
        super().__init__(batch_size, size // batch_size, seed)
        self.size, self.shards = size, shards
        self._start = index.shard_start  # int64 [S + 1]
        self._latest = self._order(0)

    def draw(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return in_epochs(self._epoch, epochs, positions)

    def _epoch(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        order = self._order_of(epoch)
        rows = positions[:, None] * self.batch_size + np.arange(self.batch_size)
        window = np.searchsorted(order.window_ends, rows, "right")
        first = np.where(window, order.window_ends[window - 1], 0)
        size = order.window_ends[window] - first
        place = first + permute(rows - first, size, hash_rows(self.seed, STREAMS["window"], epoch, window))
        turn = np.searchsorted(order.ends, place, "right")
        return self._start[order.shards[turn] + 1] - (order.ends[turn] - place)

    def shards_of(self, step: int, steps: int = 1) -> list[int]:
        """List the shards needed from `step` to the end of its window, then those of the next: what to fetch ahead.

        In the order of the epoch, without repetition. All that this step reads are among them, or, where `steps` says
        so, all that as many steps from this one on read.
        """
        check_step(step)
        found, end, final, stop = [], 0, 0, step + steps
        while step < stop:
            epoch, position = divmod(step, self.steps_per_epoch)
            after = min(position + stop - step, self.steps_per_epoch)
            rows = np.array([position, after, self.steps_per_epoch]) * self.batch_size - [0, 1, 1]
            order = self._order_of(epoch)
            begin, end, final = np.searchsorted(order.window_ends, rows, "right").tolist()
            found += order.shards[begin * self.shards : (min(end + 1, final) + 1) * self.shards].tolist()
            step += after - position
        if end == final:  # what the epoch does not reach is left out
            found += self._order((step - 1) // self.steps_per_epoch + 1).shards[: self.shards].tolist()
        return list(dict.fromkeys(found))

    def _order_of(self, epoch: int) -> _Order:
        order = self._latest  # one read, one assignment: threads see all of an epoch
        if order.epoch != epoch:
            order = self._latest = self._order(epoch)
        return order

    def _order(self, epoch: int) -> _Order:
        num_shards, sizes = len(self._start) - 1, np.diff(self._start)
        shards = permute(np.arange(num_shards), num_shards, hash_numbers(self.seed, epoch))
        shards = shards[sizes[shards] > 0]  # of a selection, those that it takes something of
        ends = np.cumsum(sizes[shards])
        return _Order(epoch, shards, ends, np.append(ends[self.shards - 1 : -1 : self.shards], ends[-1]))

    def describe(self) -> dict[str, Any]:
        return {
            "name": "windowed",
            "shards": self.shards,
            "size": self.size,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }
