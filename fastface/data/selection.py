"""A shard set and values of its columns -> an index of the records that have them, read like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fastface.data.columns import RECORD_COLUMNS
from fastface.data.geometry import Faces
from fastface.data.index import Index
from fastface.data.names import Names
from fastface.data.units import held_out
from fastface.data.values import listed, values_of
from fastface.spelling import nearest

NAMED = 10_000  # values among which the nearest spelling is looked for


class Selection(NamedTuple):
    """What is taken of a shard set."""

    only: Mapping[str, Sequence[str]] = {}
    """Column -> values, by name: records that have one of them, in each of these columns."""
    without: Mapping[str, Sequence[str]] = {}
    """Column -> values: records that have one of them in any of these columns are left out."""
    share: float = 0.0
    """Of the persons, clips and images of every source and kind: see fastface/data/units.py."""
    part: Literal["rest", "share"] = "rest"
    """Take all but that share, or that share alone; 0 takes all."""


ALL = Selection()


def select(indexes: Sequence[Index], selection: Selection, where: str) -> list[Index]:
    """Return a view of what is selected of each shard set, or the set itself where all of it is.

    A value may be missing in some of the sets, but not in all. `where` names the section of the YAML in errors.
    ValueError for a column or value that is not there, and where nothing is left.
    """
    only, without, share, part = selection
    masks = [np.ones(index.num_samples, bool) for index in indexes]
    for field, wanted, keep in (("only", only, True), ("without", without, False)):
        for column, names in wanted.items():
            for mask, hit in zip(masks, _having(indexes, column, names, f"{where}.{field}"), strict=True):
                mask &= hit if keep else ~hit
    if share:
        for mask, index in zip(masks, indexes, strict=True):
            out = held_out(index, share)
            mask &= out if part == "share" else ~out
    for mask, index in zip(masks, indexes, strict=True):
        if not mask.any():
            named = [f"{k} {dict(v)}" for k, v in (("only", only), ("without", without)) if v]
            named += [f"held_out {share:g}"] if share else []
            raise ValueError(f"{where}: {' and '.join(named)} leave nothing of {index.path}")
    return [
        index if mask.all() else SelectedIndex(index, np.flatnonzero(mask))
        for mask, index in zip(masks, indexes, strict=True)
    ]


def _having(indexes: Sequence[Index], column: str, names: Sequence[str], where: str) -> list[np.ndarray]:
    """Say of the records of each set whether they have one of these values, bool [N]."""
    tables = [values_of(index, column, where) for index in indexes]
    known = list(dict.fromkeys(name for table in tables for name in table.names))
    if unknown := [name for name in names if name not in set(known)]:
        raise ValueError(
            f"{where}.{column} {unknown[0]!r}: {' and '.join(str(index.path) for index in indexes)} have no such value"
            f"{nearest(unknown[0], known[:NAMED])}; there are {listed(known)}"
        )
    chosen = set(names)
    return [
        np.isin(index.columns[column], table.numbers[[k for k, name in enumerate(table.names) if name in chosen]])
        for index, table in zip(indexes, tables, strict=True)
    ]


class SelectedIndex(Index):
    """Some records of a shard set, in its order, numbered anew; classes without a record vanish.

    Shards keep their numbers; those of which nothing is taken are never read.
    """

    base: Index
    kept: np.ndarray  # int64 [N], ascending: our records, as the base numbers them

    def __init__(self, base: Index, kept: np.ndarray) -> None:
        rank = np.full(base.num_samples, -1, np.int32 if base.num_samples < 2**31 else np.int64)
        rank[kept] = np.arange(len(kept))
        old_label = base.label[kept]
        counts = np.bincount(old_label, minlength=base.num_classes)
        alive = counts > 0
        by_label, by_name = (order[order >= 0] for order in (rank[base.by_label], rank[base._by_name]))
        columns: dict[str, Any] = {  # those that a source adds are small, and people calculate with them
            name: Picked(column, kept) if name in RECORD_COLUMNS else column[kept]
            for name, column in base.columns.items()
            if len(column) == base.num_samples and name not in ("label", "by_label") and not name.startswith("boxes")
        }
        columns |= {
            "label": (np.cumsum(alive) - 1).astype(np.int32)[old_label],
            "by_label": by_label,
            "label_start": np.concatenate([[0], np.cumsum(counts[alive])]),
            **_boxes(base.columns, kept),
        }
        samples = np.bincount(base.shard[kept], minlength=base.num_shards).tolist()
        shards = [shard | {"samples": n} for shard, n in zip(base.meta["shards"], samples, strict=True)]
        direct = ("shard", "offset", "length", "label", "crc32", "by_label", "label_start")
        super().__init__(
            path=base.path,
            meta={**base.meta, "shards": shards},
            dataset_id=hashlib.sha256(base.dataset_id.encode() + kept.astype("<i8").tobytes()).hexdigest(),
            num_samples=len(kept),
            num_classes=int(alive.sum()),
            classes=[base.classes[k] for k in np.flatnonzero(alive).tolist()],
            image_size=base.image_size or _one_size(columns),
            columns=columns,
            _names=base._names,
            _names_start=base._names_start,
            _by_name=by_name,
            remote=base.remote,
            **{name: columns[name] for name in direct},
        )
        for name, value in {"base": base, "kept": kept}.items():
            object.__setattr__(self, name, value)  # frozen, as every index

    @property
    def names(self) -> Names:
        """The names that the source gave to the records."""
        return Names(self.name(i) for i in range(self.num_samples))

    def _name_bytes(self, i: int) -> bytes:
        return self.base._name_bytes(int(self.kept[i]))


class Picked:
    """Some rows of a column, which is not copied."""

    def __init__(self, column: np.ndarray, kept: np.ndarray) -> None:
        self.column, self.kept, self.dtype = column, kept, column.dtype

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), *self.column.shape[1:]

    def __getitem__(self, where: int | slice | np.ndarray) -> np.ndarray:
        """Return the value at a place, those of a slice, or those at int64 places of any shape."""
        return self.column[self.kept[where]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype)


def _boxes(columns: Mapping[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of the boxes in some images, where there are boxes."""
    if "boxes_start" not in columns:
        return {}
    more = {name: column for name, column in columns.items() if name.startswith("boxes_") and name != "boxes_start"}
    taken = Faces(columns["boxes_start"], columns["boxes"], more).take(kept)
    return {"boxes_start": taken.start, "boxes": taken.boxes, **taken.attributes}


def _one_size(columns: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the size of images that were of several sizes, if those that are left are of one."""
    if "width" not in columns:
        return None
    width, height = np.unique(columns["width"]), np.unique(columns["height"])
    return (int(width[0]), int(height[0])) if len(width) == len(height) == 1 else None
