"""Couples of panels -> counts of all their pairs, by several threads, each with its own tile and its own counts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from fastface.metrics.all_pairs.kernels import Kernels
from fastface.metrics.all_pairs.panels import Panel, Panels
from fastface.metrics.all_pairs.products import Product
from fastface.metrics.all_pairs.search import Window
from fastface.metrics.all_pairs.tally import Counts, Tally, no_counts

TILES = {"cpu": (1_024, 1_024), "cuda": (4_096, 8_192)}
"""Rows by columns that are multiplied at a time: 4 MB of scores, which a core counts out of its caches; 134 MB."""
Unit = tuple[int, int]
"""Two panels, i <= j, all pairs of whose rows are counted."""


def grid_side(number: int) -> int:
    """Return how many rows a panel has: a function of the number of rows alone, so that any processes share a grid."""
    return min(8_192, max(256, -(-number // 16)))


def unit_pairs(panels: Panels, unit: Unit) -> int:
    """Return how many pairs a couple of panels holds."""
    total, side = len(panels.rows.order), panels.side
    i, j = (min(side, total - k * side) for k in unit)
    return i * (i - 1) // 2 if unit[0] == unit[1] else i * j


class Pass:
    """One way over pairs: with these windows, by this product, on a device."""

    def __init__(
        self,
        panels: Panels,
        windows: list[Window],
        product: Product,
        *,
        threads: int | None,
        loops: Kernels | None,
        counted: Callable[[int], object],
    ) -> None:
        self.panels, self.windows, self.product, self.counted = panels, windows, product, counted
        on_host = panels.device.type == "cpu"
        self.threads = (threads or len(os.sched_getaffinity(0))) if on_host else 1
        self.loops = loops if on_host else None
        self._stopped = threading.Event()

    def run(self, units: list[Unit], seconds: float = float("inf")) -> Iterator[tuple[list[Unit], Counts]]:
        """Count all pairs of the units; yield those that are done, and their counts, every so many seconds."""
        waiting = list(reversed(units))
        with own_threads(self.threads), ThreadPoolExecutor(self.threads, "all-pairs") as pool:
            try:
                while waiting:
                    until = time.monotonic() + seconds
                    workers = [pool.submit(self._work, waiting, until) for _ in range(self.threads)]
                    done, counts = [], no_counts(self.windows)
                    for worker in workers:
                        some, part = worker.result()
                        done += some
                        counts += part
                    yield done, counts
            finally:
                self._stopped.set()  # an interrupt: the threads end with their tile
                waiting.clear()

    def tally(self) -> Tally:
        """Return what a worker counts with."""
        return Tally(self.windows, self.panels.rows.source.shape[1], self.panels.device, self.loops)

    def _work(self, waiting: list[Unit], until: float) -> tuple[list[Unit], Counts]:
        torch.set_num_threads(1)  # of this thread: every thread multiplies a tile of its own
        panels, done = self.panels, []
        tally = self.tally()
        memory = torch.empty(0, device=panels.device)
        while time.monotonic() < until or not done:
            try:
                unit = waiting.pop()
            except IndexError:
                break
            first, second = panels[unit[0]], panels[unit[1]]
            for a, b, starts, stops in _tiles(first, second, TILES[panels.device.type]):
                if self._stopped.is_set():
                    return [], no_counts(self.windows)
                size = len(a.unit) * len(b.unit)
                if len(memory) < size:
                    memory = torch.empty(size, device=panels.device)
                scores = self.product(a.unit, b.unit, memory[:size].view(len(a.unit), len(b.unit)))
                tally.add(scores, starts, stops, a, b)
                self.counted(int((len(b.unit) - starts).sum()))
            done.append(unit)
        return done, tally.take()


def _tiles(first: Panel, second: Panel, tile: tuple[int, int]) -> Iterator[tuple[Panel, Panel, np.ndarray, np.ndarray]]:
    """Cut two panels into tiles; with each row of a tile, where its pairs begin and where the genuine ones end."""
    for r in range(0, len(first.unit), tile[0]):
        a = _cut(first, r, tile[0])
        own = a.first + np.arange(len(a.unit))
        for c in range(r if first is second else 0, len(second.unit), tile[1]):
            b = _cut(second, c, tile[1])
            starts = (own + 1 - b.first).clip(0, len(b.unit))
            if starts[0] < len(b.unit):
                yield a, b, starts, (a.stop - b.first).clip(starts, len(b.unit))


def _cut(panel: Panel, start: int, number: int) -> Panel:
    some = slice(start, start + number)
    return Panel(panel.first + start, panel.unit[some], panel.raw[some], panel.inverse[some], panel.stop[some])


@contextmanager
def own_threads(threads: int) -> Iterator[None]:
    """Multiply float32 as float32, whatever this process allows elsewhere; give its threads back afterwards."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    reduced = torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = reduced
        torch.set_float32_matmul_precision(before[1])
        torch.set_num_threads(before[0])
