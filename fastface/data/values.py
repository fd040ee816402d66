"""A column of an index -> the values that are in it, and what people call them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastface.data.index import Index
from fastface.spelling import nearest

COLUMNS_OF_STORAGE = {"shard", "offset", "length", "crc32", "by_label", "label_start"}
LISTED = 8  # values that a message names; it counts the others


class Values(NamedTuple):
    """The distinct values of a column."""

    numbers: np.ndarray  # [V] ascending, as the column has them
    names: Sequence[str]  # [V]


def columns_of(index: Index) -> list[str]:
    """List the columns with one value for every record that say something of the images."""
    return [
        name
        for name, values in index.columns.items()
        if name not in COLUMNS_OF_STORAGE and values.shape == (index.num_samples,)
    ]


def values_of(index: Index, column: str, where: str) -> Values:
    """Return the values of a column: classes of `label`, else numbers, by the names that the source gave to them.

    ValueError, beginning with `where`, for a column that is not there.
    """
    if column not in (choice := columns_of(index)):
        raise ValueError(
            f"{where} {column!r}: {index.path} has no such column{nearest(column, choice)}; there are "
            f"{', '.join(choice)}"
        )
    if column == "label":
        return Values(np.arange(index.num_classes), index.classes)
    return named(index, column, np.unique(index.columns[column]))


def named(index: Index, column: str, numbers: np.ndarray) -> Values:
    """Name values of a column (ascending): as the source did, else the numbers as text."""
    known = index.meta.get("values", {}).get(column, [])
    return Values(numbers, [known[n] if n in range(len(known)) else str(n) for n in numbers.tolist()])


def listed(names: Sequence[str]) -> str:
    """List names for a message, the first few and how many more there are."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
