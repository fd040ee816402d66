"""Values of a column and their weights -> batches in which every value has its share of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers
from fastface.data.plans.drawn import Drawn, check_sizes, in_epochs
from fastface.data.plans.pools import by_column, by_label
from fastface.data.plans.shares import Shares
from fastface.spelling import nearest

COLUMNS_OF_STORAGE = {"shard", "offset", "length", "crc32", "by_label", "label_start"}


class Weighted(Drawn):
    """Draw from every value of `column` ("label" or another of the index) as its weight says, equally by default.

    A batch of B rows has floor or ceil of B * share of each. An epoch is as many rows as there are records of the
    values in use, rounded up to whole batches; within it the records of a value are used equally often, or once more,
    and those of a value that has more than its share come in later epochs (`Pools.visit`).

    weights: of values by name (class names, else the numbers as text), 1 for those not named; 0 leaves a value out.
    """

    def __init__(
        self, index: Index, column: str, batch_size: int, seed: int, *, weights: Mapping[str, float] | None = None
    ) -> None:
        choice = [
            name
            for name, values in index.columns.items()
            if name not in COLUMNS_OF_STORAGE and values.shape == (index.num_samples,)
        ]
        if column not in choice:
            raise ValueError(
                f"data.plan.column {column!r}: {index.path} has no such column to balance"
                f"{nearest(column, choice)}; there are {', '.join(choice)}"
            )
        self._pools, names = by_label(index), index.classes
        if column != "label":
            self._pools, values = by_column(index, column)
            names = [str(value) for value in values.tolist()]
        self._used, shares = _shares(index, column, names, self._pools.counts, weights or {})
        size = int(self._pools.counts[self._used].sum())
        check_sizes(size, batch_size)
        super().__init__(batch_size, -(-size // batch_size), seed)
        self._shares = Shares(shares, batch_size, self.steps_per_epoch, seed)
        self.column, self.weights, self.size = column, dict(weights or {}), size

    def draw(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return in_epochs(self._epoch, epochs, positions)

    def _epoch(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        part, number = self._shares.at(epoch, positions)
        seed = hash_numbers(self.seed, STREAMS["image"])
        return self._pools.visit(self._used[part], np.array(epoch), self._shares.most(part), number, seed)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "weighted",
            "column": self.column,
            "weights": self.weights,
            "values": len(self._used),
            "size": self.size,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


def _shares(
    index: Index, column: str, names: Sequence[str], counts: np.ndarray, weights: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values to draw from (int64, places in `names`) and their weights, float64 likewise."""
    shares = np.ones(len(counts))
    if weights:
        place = {name: n for n, name in enumerate(names)}
        for name, weight in weights.items():
            if name not in place:
                raise ValueError(
                    f"data.plan.weights names {name!r}, which is no value of {column} in {index.path}"
                    f"{nearest(name, names[:10_000])}; there are {', '.join(names[:8])}"
                    f"{f' and {len(names) - 8:,} more' if len(names) > 8 else ''}"
                )
            if not 0 <= weight < np.inf:
                raise ValueError(f"data.plan.weights: {name} has weight {weight}; weights are 0 or positive numbers")
            shares[place[name]] = weight
    used = np.flatnonzero((counts > 0) & (shares > 0))
    if not len(used):
        raise ValueError(f"data.plan.weights leaves no value of {column} in {index.path}: give one a positive weight")
    return used, shares[used]
