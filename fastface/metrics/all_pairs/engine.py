"""Searches -> what they look for, by as few passes over all pairs as it takes: one where the guess is right."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from fastface import dist
from fastface.metrics.all_pairs.kernels import Kernels
from fastface.metrics.all_pairs.keys import BINS
from fastface.metrics.all_pairs.panels import Panels, Rows, genuine_bins
from fastface.metrics.all_pairs.passes import Pass, Unit, grid_side, unit_pairs
from fastface.metrics.all_pairs.products import Product
from fastface.metrics.all_pairs.search import Edges, Search, Window, bins_of, guesses, rough_bounds, window
from fastface.metrics.all_pairs.state import State
from fastface.metrics.all_pairs.tally import KEPT, Counts, edges_of_window, no_counts

PILOT_FROM = 16_384  # rows; fewer are compared twice in no time
PILOT_MOST = 65_536
GENUINE_COST = 1_000  # all genuine pairs are looked at beforehand where they are so few times fewer than all pairs
SLOTS = 2**21
"""Of all windows together: 32 MB of counts a worker."""
SAVE_EVERY_S = 60.0


class Found(NamedTuple):
    """What one pass over all pairs has found out."""

    coarse: np.ndarray  # int64 [2, BINS]: genuine, impostor pairs by the bin of their rough score
    bounds: tuple[np.ndarray, np.ndarray]  # of `rough_bounds`
    edges: list[Edges]  # of its windows
    rescored: int


class Engine:
    """All passes over the pairs of some rows, and what they have found out."""

    def __init__(
        self,
        rows: Rows,
        product: Product,
        *,
        device: torch.device,
        threads: int | None,
        memory_mb: int,
        loops: Kernels | None,
        state: State | None,
        progress: str | None,
    ) -> None:
        self.rows, self.product, self.device, self.memory_mb = rows, product, device, memory_mb
        self.threads, self.loops, self.state, self.progress = threads, loops, state, progress
        self.panels = Panels(rows, grid_side(len(rows.order)), product.kind, device, memory_mb)
        self.passes: list[Found] = []

    def settle(self, searches: Iterable[Search]) -> None:
        """Narrow the searches down until each has found its key."""
        while True:
            searches = [search for search in searches if not self._narrowed(search)]
            if not searches and self.passes:
                return
            assert len(self.passes) < 64, "a pass narrows a bracket by a factor; 32 bits are soon used up"
            brackets, expected = (searches, self.coarse.sum(axis=0)) if self.passes else self._guessed(searches)
            self._take_in(*self._over_all(self._windows(brackets, expected)))

    @property
    def coarse(self) -> np.ndarray:
        """Genuine and impostor pairs by the bins of their rough scores, int64 [2, BINS]."""
        return self.passes[0].coarse

    def _narrowed(self, search: Search) -> bool:
        for found in self.passes:
            search.narrow_roughly(*found.bounds)
            for edges in found.edges:
                search.narrow(edges)
        return search.found

    def _windows(self, brackets: list[Search], expected: np.ndarray) -> list[Window]:
        """Cover the brackets, those that need least first; what they leave of the room is for the others."""
        spans = []
        for low, high in {(search.low, search.high) for search in brackets}:
            first, last = bins_of(low, high, self.product)
            pairs = float(expected[first : last + 1].sum())
            spans.append((min(pairs, high - low), low, high, pairs))
        slots, keep, windows = SLOTS, KEPT / 2, []
        for number, (_, low, high, pairs) in enumerate(sorted(spans)):
            share = slots // (len(spans) - number)
            windows.append(window(low, high, self.product, slots=share, pairs=pairs, keep=keep))
            slots, keep = slots - windows[-1].slots, keep - pairs * windows[-1].keep
        return windows

    def _take_in(self, windows: list[Window], counts: Counts) -> None:
        exact = [edges_of_window(counts, windows, number) for number in range(len(windows))]
        rescored = int(counts.rescored[0])
        self.passes.append(Found(counts.coarse, rough_bounds(counts.coarse, self.product), exact, rescored))

    def _guessed(self, searches: list[Search]) -> tuple[list[Search], np.ndarray]:
        """Guess from the pairs of a tenth of the rows, one pair in a hundred, where the searches will end.

        Returns them so narrowed, and about how many pairs all rows have in each bin, float64 [BINS].
        """
        if len(self.rows.order) < PILOT_FROM:
            return [], np.zeros(BINS)
        part = self.rows.part(min(len(self.rows.order) // 10, PILOT_MOST))
        panels = Panels(part, grid_side(len(part.order)), self.product.kind, self.device, self.memory_mb)
        coarse = self._over(panels, [], panels.units()).coarse
        if self.rows.finite[0] * GENUINE_COST <= sum(self.rows.finite):
            coarse[0] = genuine_bins(self.rows)
        likely = [replace(search) for search in searches]
        for search in likely:
            search.narrow_roughly(*guesses(coarse, self.rows.finite, self.product))
        scale = np.array(self.rows.finite) / np.maximum(coarse.sum(axis=1), 1)
        return likely, (coarse * scale[:, None]).sum(axis=0)

    def _over_all(self, windows: list[Window]) -> tuple[list[Window], Counts]:
        """Count all pairs, those of this process and of all others."""
        number, state = len(self.passes), self.state
        done: set[Unit] = set()
        counts = no_counts(windows)
        if state is not None:
            if dist.is_main():
                windows = state.windows(number, windows)
                done, counts = state.load(number, windows)
            windows, done = dist.share((windows, done))
            counts = counts if dist.is_main() else no_counts(windows)
        left = [unit for unit in self.panels.units() if unit not in done][dist.rank() :: dist.world()]
        counts += self._over(self.panels, windows, left, number)
        coarse, slots, rescored = (
            dist.total(torch.from_numpy(part).to(self.device)).cpu().numpy() for part in counts[:3]
        )
        return windows, Counts(coarse, slots, rescored, np.concatenate(dist.gather_rows(counts.kept)))

    def _over(self, panels: Panels, windows: list[Window], units: list[Unit], number: int | None = None) -> Counts:
        """Count the pairs of some couples of panels; keep them as pass `number` where there is a state to keep."""
        title = f"{self.progress}, {'pilot' if number is None else f'pass {number + 1}'}"
        lock, counts = threading.Lock(), no_counts(windows)
        keep = self.state if number is not None else None
        with tqdm(
            total=sum(unit_pairs(panels, unit) for unit in units),
            desc=title,
            unit=" pairs",
            unit_scale=True,
            leave=False,
            file=sys.stderr,
            disable=True if self.progress is None or not dist.is_main() else None,  # None: on a terminal only
        ) as bar:

            def counted(pairs: int) -> Any:
                with lock:
                    bar.update(pairs)

            ways = {"threads": self.threads, "loops": self.loops, "counted": counted}
            over = Pass(panels, windows, self.product, **ways)
            for some, part in over.run(units, SAVE_EVERY_S if keep else float("inf")):
                counts += part
                if keep and number is not None:
                    keep.save(number, some, part)
        return counts
