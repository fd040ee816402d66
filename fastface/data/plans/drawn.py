"""Step numbers -> Slots, many steps at once: what all plans that go on without end share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastface.data.plan import Slots, slot_keys

BLOCK = 1024  # rows drawn at once: numpy costs 160 us a call for 128 rows, 310 us for 1,024 (2 cores, 2026-11)


class Drawn:
    """A plan of epochs without end. A subclass says which records make up steps, in `draw`; the rest is here."""

    unit = 1
    rows_per_key = 1  # so many neighbouring rows share a key, and with it all random draws of their samples

    def __init__(self, batch_size: int, steps_per_epoch: int, seed: int) -> None:
        self.batch_size, self.steps_per_epoch, self.seed = batch_size, steps_per_epoch, seed
        self.notes: list[str] = []
        self._block_steps = max(1, BLOCK // batch_size)
        self._block = -1, np.empty((0, 0), np.int64)  # the latest, to save time

    def draw(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return the records of steps `positions` (int64 [n], counted within epochs): int64 [n, batch_size].

        `epochs` is int64 [n], or [1] where all steps are of one epoch.
        """
        raise NotImplementedError

    def records(self, steps: np.ndarray) -> np.ndarray:
        """Return the records of steps (int64 [n]) of the run: int64 [n, batch_size]."""
        epochs, positions = np.divmod(steps, self.steps_per_epoch)
        return self.draw(epochs[:1] if (epochs == epochs[0]).all() else epochs, positions)

    def __getitem__(self, step: int) -> Slots:
        """Return step `step` (from 0, without end) of the run, batch_size rows."""
        check_step(step)
        number, place = divmod(step, self._block_steps)
        known, block = self._block  # one assignment, one read: threads see a whole block
        if known != number:
            block = self.records(np.arange(number * self._block_steps, (number + 1) * self._block_steps))
            self._block = number, block
        return Slots(step, 0, block[place], shared_keys(self.seed, step, self.batch_size, self.rows_per_key))

    def describe(self) -> dict[str, Any]:
        """Return the name and all that the steps follow from: equal descriptions give equal steps."""
        raise NotImplementedError


def shared_keys(seed: int, step: int, rows: int, rows_per_key: int) -> np.ndarray:
    """Return a key for each row of a step, uint64 [rows], equal for `rows_per_key` neighbours."""
    keys = slot_keys(seed, step, rows // rows_per_key)
    return keys if rows_per_key == 1 else keys.repeat(rows_per_key)


def check_step(step: int) -> None:
    """Raise IndexError for a step before the first."""
    if step < 0:
        raise IndexError(f"step {step}: steps count from 0")


def check_sizes(size: int, batch_size: int) -> None:
    """Raise ValueError where a plan would have no records or no rows."""
    if size < 1 or batch_size < 1:
        raise ValueError(f"a plan needs at least one record and a batch of at least one, not {size} and {batch_size}")


def groups_in(batch_size: int, rows: int, what: str) -> int:
    """Return how many groups of `rows` rows make up a batch; ValueError where they do not divide it."""
    if batch_size < 1 or rows < 1 or batch_size % rows:
        raise ValueError(f"train.batch_size {batch_size} is not a multiple of {what} = {rows}: change one of them")
    return batch_size // rows


def in_epochs(draw: Callable[[int, np.ndarray], np.ndarray], epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Draw epoch by epoch, for plans that keep tables of one: `draw(epoch, int64 [n]) -> [n, B]`; all [n, B]."""
    if len(epochs) == 1:
        return draw(int(epochs[0]), positions)
    found, which = np.unique(epochs, return_inverse=True)
    parts = [draw(int(epoch), positions[which == n]) for n, epoch in enumerate(found)]
    records = np.empty((len(positions), parts[0].shape[1]), np.int64)
    for n, part in enumerate(parts):
        records[which == n] = part
    return records
