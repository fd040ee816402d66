"""Plans over several shard sets, and weights -> one plan in which each has its share of every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastface.data.mixed_index import MixedIndex
from fastface.data.plans.drawn import Drawn, check_step, groups_in
from fastface.data.plans.shares import Schedule
from fastface.data.plans.windowed import Windowed


class Mixture(Drawn):
    """Take the steps of several plans by turns: `weights` say how many rows of a batch come from each.

    plans: one for each source of `index`, all with one batch_size, the rows that they give together (1 for Shuffled,
    K for PerIdentity). A batch has floor or ceil of its share of such groups from each plan, in the plan's own order,
    so a source that is smaller than its share is repeated epoch by epoch of its own (and where one ends within a
    batch, what comes once per epoch may come twice in that batch). An epoch of the mixture is as
    many rows as an epoch of every source.
    """

    def __init__(
        self, index: MixedIndex, plans: Sequence[Drawn], weights: Sequence[float], batch_size: int, seed: int
    ) -> None:
        if not len(plans) == len(weights) == len(index.sources):
            raise ValueError(f"{len(index.sources)} sources, {len(plans)} plans and {len(weights)} weights: one each")
        if not all(0 < weight < np.inf for weight in weights):
            raise ValueError(
                f"data.sources have weights {list(weights)}: each must be positive, or leave its source out"
            )
        self.groups = groups_in(batch_size, plans[0].batch_size, "the rows that belong together")
        rows = sum(plan.steps_per_epoch * plan.batch_size for plan in plans)
        super().__init__(batch_size, max(1, rows // batch_size), seed)
        self.unit, self.rows_per_key = max(plan.unit for plan in plans), plans[0].rows_per_key
        self.plans, self.weights, self._index = list(plans), list(weights), index
        self._schedule = Schedule(weights, self.groups)
        self.notes = [
            f"{source.path}: {note}" for source, plan in zip(index.sources, plans, strict=True) for note in plan.notes
        ]

    def records(self, steps: np.ndarray) -> np.ndarray:
        part, number = self._schedule.at(steps)  # [n, groups]
        records = np.empty((*part.shape, self.plans[0].batch_size), np.int64)
        for which, plan in enumerate(self.plans):
            mine = part == which
            if mine.any():
                records[mine] = self._index.first_record[which] + plan.records(number[mine])
        return records.reshape(len(steps), self.batch_size)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "mixture",
            "weights": self.weights,
            "plans": [plan.describe() for plan in self.plans],
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


class WindowedMixture(Mixture):
    """A mixture of Windowed plans."""

    def shards_of(self, step: int) -> list[int]:
        """List what `Windowed.shards_of` lists for each source, source by source, as shards of the whole."""
        check_step(step)
        before, after = self._schedule.before(step).tolist(), self._schedule.before(step + 1).tolist()
        found = []
        for plan, first, begin, end in zip(self.plans, self._index.first_shard.tolist(), before, after, strict=False):
            assert isinstance(plan, Windowed)
            found += [first + shard for shard in plan.shards_of(begin, max(1, end - begin))]
        return found
