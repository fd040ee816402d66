"""Values of columns and their weights -> batches in which every value has its share of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers
from fastface.data.plans.drawn import Drawn, check_sizes, in_epochs
from fastface.data.plans.pools import by_column, by_columns, by_label
from fastface.data.plans.shares import Shares
from fastface.data.values import columns_of, listed, named
from fastface.spelling import nearest


class Weighted(Drawn):
    """Draw from every value of `column` ("label" or another of the index) as its weight says, equally by default.

    Of several columns, each is shared out within the values of those before it: ("label", "attack") gives half of the
    rows to each class, and within spoof the same to every attack type. A batch of B rows has floor or ceil of
    B * share of each. An epoch is as many rows as there are records of the values in use, rounded up to whole batches;
    within it the records of a value are used equally often, or once more, and those of a value that has more than its
    share come in later epochs (`Pools.visit`).

    weights: of values by name (of classes, or those that the source gave, else the numbers as text), 1 for those not
    named; 0 leaves a value out.
    """

    def __init__(
        self,
        index: Index,
        column: str | Sequence[str],
        batch_size: int,
        seed: int,
        *,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        columns = [column] if isinstance(column, str) else list(column)
        choice = columns_of(index)
        for name in columns:
            if name not in choice:
                raise ValueError(
                    f"data.plan.column {name!r}: {index.path} has no such column to balance"
                    f"{nearest(name, choice)}; there are {', '.join(choice)}"
                )
        if columns == ["label"]:
            self._pools, numbers = by_label(index), [np.arange(index.num_classes)]
        elif len(columns) == 1:
            self._pools, values = by_column(index, columns[0])
            numbers = [values]
        else:
            self._pools, numbers = by_columns(index, columns)
        own = _weights(index, columns, numbers, weights or {})
        self._used = np.flatnonzero((self._pools.counts > 0) & (own > 0).all(axis=0))
        if not len(self._used):
            raise ValueError(
                f"data.plan.weights leaves no value of {' and '.join(columns)} in {index.path}: give one a positive "
                "weight"
            )
        shares = _nested([values[self._used] for values in numbers], own[:, self._used])
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
            "column": self.column if isinstance(self.column, str) else list(self.column),
            "weights": self.weights,
            "values": len(self._used),
            "size": self.size,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


def _weights(
    index: Index, columns: Sequence[str], numbers: Sequence[np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
    """Return the weight of each group's value in every column, float64 [columns, G]."""
    found = np.ones((len(columns), len(numbers[0])))
    if not weights:
        return found
    tables: list[dict[str, Any]] = []
    for column, values in zip(columns, numbers, strict=True):
        there = np.unique(values)
        names = index.classes if column == "label" else named(index, column, there).names
        tables.append(dict(zip(map(str, there.tolist()), there, strict=True)) if column != "label" else {})
        tables[-1] |= dict(zip(names, there, strict=True))
    for name, weight in weights.items():
        having = [k for k, table in enumerate(tables) if name in table]
        if not having:
            names = list(dict.fromkeys(name for table in tables for name in table))
            raise ValueError(
                f"data.plan.weights names {name!r}, which is no value of {' or '.join(columns)} in {index.path}"
                f"{nearest(name, names[:10_000])}; there are {listed(names)}"
            )
        if len(having) > 1:
            raise ValueError(
                f"data.plan.weights names {name!r}, which is a value of {' and of '.join(columns[k] for k in having)}: "
                "balance one column, or leave it out"
            )
        if not 0 <= weight < np.inf:
            raise ValueError(f"data.plan.weights: {name} has weight {weight}; weights are 0 or positive numbers")
        k = having[0]
        found[k, numbers[k] == tables[k][name]] = weight
    return found


def _nested(numbers: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the share of each group: among the values of a column that follow equal values, as the weights say.

    numbers: of each column its values in the groups, [G]; weights: float64 [columns, G]. float64 [G], not normalised.
    """
    if len(numbers) == 1:
        return weights[0]
    shares, prefix = np.ones(len(numbers[0])), np.zeros(len(numbers[0]), np.int64)
    for values, own in zip(numbers, weights, strict=True):
        child = np.unique(np.stack([prefix, np.unique(values, return_inverse=True)[1]]), axis=1, return_inverse=True)[1]
        child = child.reshape(-1)
        first = np.unique(child, return_index=True)[1]  # a group of each value that follows a prefix
        total = np.bincount(prefix[first], own[first], minlength=int(prefix.max()) + 1)
        shares *= own / total[prefix]
        prefix = child
    return shares
