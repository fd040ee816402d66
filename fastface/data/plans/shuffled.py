"""A number of records -> all of them once per epoch, in an order of its own, or once in their own order."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastface.data.plan import Slots, hash_rows, permute, slot_keys
from fastface.data.plans.drawn import Drawn, check_sizes, check_step


class Shuffled(Drawn):
    """Visit every record once per epoch in an order drawn from (seed, epoch), in batches of equal size.

    An epoch has size // batch_size steps; the records left over differ in every epoch. Memory and the cost of
    starting at any step do not depend on `size`.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        check_sizes(size, batch_size)
        if size < batch_size:
            raise ValueError(f"{size:,} records do not fill a batch of {batch_size:,}; lower it or take more images")
        super().__init__(batch_size, size // batch_size, seed)
        self.size = size

    def draw(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        rows = positions[:, None] * self.batch_size + np.arange(self.batch_size)
        return permute(rows, self.size, hash_rows(self.seed, epochs[:, None]))

    def describe(self) -> dict[str, Any]:
        return {"name": "shuffled", "size": self.size, "batch_size": self.batch_size, "seed": self.seed}


class Sequential:
    """Visit the records once, in order; the last step may be shorter. For evaluation."""

    unit = 1

    def __init__(self, size: int, batch_size: int, seed: int = 0) -> None:
        check_sizes(size, batch_size)
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.steps_per_epoch = -(-size // batch_size)
        self.notes: list[str] = []

    def __getitem__(self, step: int) -> Slots:
        """Return step `step` of steps_per_epoch; IndexError beyond."""
        check_step(step)
        if step >= self.steps_per_epoch:
            raise IndexError(f"step {step}: {self.size:,} records in order end after {self.steps_per_epoch:,} steps")
        start = step * self.batch_size
        records = np.arange(start, min(start + self.batch_size, self.size))
        return Slots(step, 0, records, slot_keys(self.seed, step, len(records)))

    def describe(self) -> dict[str, Any]:
        """Return name, size, batch_size and seed: equal descriptions give equal steps."""
        return {"name": "sequential", "size": self.size, "batch_size": self.batch_size, "seed": self.seed}
