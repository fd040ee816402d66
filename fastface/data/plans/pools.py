"""Groups of records (identities, values of a column) -> some of each, without repetition while there are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import hash_rows, permute

TooFew = Literal["filter", "repeat", "refuse"]
NAMED = 5  # groups that a message names; it counts the others
CHUNK = 1 << 20  # records sorted at once


class Pools(NamedTuple):
    """Records sorted by group: those of group g are order[start[g]:start[g + 1]]."""

    order: np.ndarray  # [N] record ids
    start: np.ndarray  # int64 [G + 1]

    @property
    def counts(self) -> np.ndarray:
        """Records of each group, int64 [G]."""
        return np.diff(self.start)

    def counts_of(self, group: np.ndarray) -> np.ndarray:
        """Return the number of records of groups, int64 of their shape."""
        return self.start[group + 1] - self.start[group]

    def visit(
        self, group: np.ndarray, visit: np.ndarray, per_visit: np.ndarray | int, item: np.ndarray, seed: int
    ) -> np.ndarray:
        """Return record number `item` (below per_visit) of the `visit`-th visit to each group.

        All int64 of shapes that broadcast to that of the result, which group * item must already have. A group of n
        records is gone through in cycles of ceil(n / per_visit) visits, each a shuffled order of its own, whose last
        visit wraps around: within a visit no record repeats while n >= per_visit (else each comes as often as any
        other, or once more), and after a cycle every record was used.
        """
        count = self.counts_of(group)
        cycle, place = np.divmod(visit, -(-count // per_visit))
        position = (place * per_visit + item) % count
        return self.order[self.start[group] + permute(position, count, hash_rows(seed, group, cycle))].astype(np.int64)


def by_label(index: Index) -> Pools:
    """Return the records of each class, as the index keeps them: no scan."""
    return Pools(index.by_label, index.label_start)


def by_columns(index: Index, columns: Sequence[str]) -> tuple[Pools, list[np.ndarray]]:
    """Return the records of every combination of values that there is, and of each its value in every column, [G]."""
    code, tables = np.zeros(index.num_samples, np.int64), []
    starts = range(0, index.num_samples, CHUNK)
    for column in columns:
        values = index.columns[column]
        found, coded = _coded(values, starts)
        code *= len(found)
        for n in starts:
            code[n : n + CHUNK] += coded(values[n : n + CHUNK])
        tables.append(found)
    pools, group = by_value(code)
    numbers: list[np.ndarray] = []
    for found in reversed(tables):
        group, place = np.divmod(group, len(found))
        numbers.insert(0, found[place])
    return pools, numbers


def by_column(index: Index, column: str) -> tuple[Pools, np.ndarray]:
    """Return the records of each value of a column of numbers, and the values in ascending order."""
    return by_value(index.columns[column])


def by_value(values: np.ndarray) -> tuple[Pools, np.ndarray]:
    """Return the records of each value of numbers [N], and the values in ascending order.

    A counting sort in chunks: 4 bytes a record to keep, and little more while it runs.
    """
    starts = range(0, len(values), CHUNK)
    found, code = _coded(values, starts)
    counts = sum(np.bincount(code(values[n : n + CHUNK]), minlength=len(found)) for n in starts)
    start = np.concatenate([[0], np.cumsum(counts)])
    order, filled = np.empty(len(values), np.int32 if len(values) < 2**31 else np.int64), start[:-1].copy()
    for n in starts:
        codes = code(values[n : n + CHUNK])
        counts = np.bincount(codes, minlength=len(found))
        shift = np.repeat(filled - np.cumsum(counts) + counts, counts)
        order[shift + np.arange(len(codes))] = np.argsort(codes, kind="stable") + n
        filled += counts
    there = np.diff(start) > 0
    return Pools(order, np.append(start[:-1][there], len(values))), found[there]


def _coded(values: np.ndarray, starts: range) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return candidates for the values of a column, ascending, and what turns values into places among them."""
    ends = [(chunk.min(), chunk.max()) for chunk in (values[n : n + CHUNK] for n in starts)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if values.dtype.kind in "iu" and int(high) - int(low) < 1 << 16:  # 16 bits and less are sorted by radix
        narrow = np.min_scalar_type(int(high) - int(low))
        return np.arange(int(low), int(high) + 1), lambda chunk: (chunk - low).astype(narrow)
    found = np.unique(np.concatenate([np.unique(values[n : n + CHUNK]) for n in starts]))
    return found, lambda chunk: np.searchsorted(found, chunk)


def enough(
    counts: np.ndarray, needed: int, too_few: TooFew, what: str, name: Callable[[int], str] | Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Return the groups to be used (int64, ascending) of those with `counts` records, and what to tell the user.

    Groups without any record are never used. ValueError where `too_few` says refuse and a group has too few.
    """
    used = np.flatnonzero(counts >= (1 if too_few == "repeat" else needed))
    few = np.flatnonzero((counts < needed) & (counts > 0))
    if not len(few):
        return used, []
    named = ", ".join(repr(name(int(g)) if callable(name) else name[int(g)]) for g in few[:NAMED])
    more = f" and {len(few) - NAMED:,} more" if len(few) > NAMED else ""
    text = f"{len(few):,} of {np.count_nonzero(counts):,} {what} have fewer than {needed} images: {named}{more}"
    if too_few == "refuse":
        raise ValueError(f"{text}; set data.plan.too_few to filter or repeat, or ask for fewer images of each")
    return used, [f"{text}; {'they are left out' if too_few == 'filter' else 'their images are repeated'}"]
