"""Several indexes -> one, whose columns are those of its sources end to end without a copy of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from operator import ne
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastface.data.index import Index

Labels = Literal["separate", "merge-by-name"]


class MixedIndex(Index):
    """Shard sets read as one: records, shards and classes of the first source, then of the second, and so on.

    labels: "merge-by-name" makes classes of one name one class, sorted by code point as in every shard set;
    "separate" keeps them apart under SOURCE/NAME. A column that some source lacks, or has in another shape, is left
    out.
    """

    sources: list[Index]
    labels: Labels
    first_record: np.ndarray  # int64 [S + 1]: of each source, and how many there are
    first_shard: np.ndarray  # int64 [S + 1] likewise

    def __init__(self, sources: Sequence[Index], labels: Labels) -> None:
        if len(sources) < 2:
            raise ValueError("data.sources needs two shard sets or more; name a single one as data.shards")
        if labels not in ("separate", "merge-by-name"):
            raise ValueError(f"data.labels {labels!r}: choose separate or merge-by-name")
        classes, places = _merged(sources) if labels == "merge-by-name" else _apart(sources)
        starts = np.concatenate([[0], np.cumsum([source.num_samples for source in sources])])
        shards = np.concatenate([[0], np.cumsum([source.num_shards for source in sources])])
        columns: dict[str, Any] = {
            name: Joined([source.columns[name] for source in sources], starts) for name in _shared(sources)
        }
        columns["shard"] = Joined([s.shard for s in sources], starts, shards[:-1].tolist())
        columns["label"] = Joined([s.label for s in sources], starts, places)
        columns["by_label"] = ByLabel(sources, starts, places, len(classes))
        columns["label_start"] = columns["by_label"].start
        options = [source.meta.get("options", {}) for source in sources]
        sizes = {source.image_size for source in sources}
        ids = [source.dataset_id for source in sources]
        direct = ("shard", "offset", "length", "label", "crc32", "by_label", "label_start")
        nothing = np.empty(0, np.uint8)
        super().__init__(
            path=Path(" ".join(str(source.path) for source in sources)),  # for messages: tools take several paths
            meta={
                "shards": [shard for source in sources for shard in source.meta["shards"]],
                "options": {k: v for k, v in options[0].items() if all(other.get(k) == v for other in options)},
            },
            dataset_id=hashlib.sha256(json.dumps([labels, *ids]).encode("ascii")).hexdigest(),
            num_samples=int(starts[-1]),
            num_classes=len(classes),
            classes=classes,
            image_size=sizes.pop() if len(sizes) == 1 else None,
            columns=columns,
            _names=nothing,
            _names_start=nothing,
            _by_name=nothing,
            **{name: columns[name] for name in direct},
        )
        more = {"sources": list(sources), "labels": labels, "first_record": starts, "first_shard": shards}
        for name, value in more.items():
            object.__setattr__(self, name, value)  # frozen, as every index

    def _source_of(self, number: int, first: np.ndarray) -> tuple[Index, int]:
        which = int(np.searchsorted(first, number, "right")) - 1
        return self.sources[which], number - int(first[which])

    def shard_path(self, shard: int) -> Path:
        """Return the tar of a shard."""
        source, own = self._source_of(shard, self.first_shard)
        return source.shard_path(own)

    def shard_bytes(self, shard: int) -> int:
        """Return how long the tar of a shard is when it is whole."""
        source, own = self._source_of(shard, self.first_shard)
        return source.shard_bytes(own)

    def name(self, i: int) -> str:
        """Return the name that the source gave to record i."""
        if not 0 <= i < self.num_samples:
            raise IndexError(f"record {i} of {self.num_samples}")
        source, own = self._source_of(i, self.first_record)
        return source.name(own)

    def find(self, names: Iterable[str]) -> np.ndarray:
        """Refuse: two sources may know a name."""
        raise ValueError(f"{self.path} are several shard sets: look for names in one of them")


class Joined:
    """Arrays end to end, read as one; a shift or a table of each turns its values into those of the whole."""

    def __init__(
        self, parts: Sequence[np.ndarray], starts: np.ndarray, places: Sequence[int | np.ndarray] | None = None
    ) -> None:
        self.parts, self.starts, self.places = list(parts), starts, places
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), *self.parts[0].shape[1:]

    def __getitem__(self, where: int | slice | np.ndarray) -> np.ndarray:
        """Return the value at a place, those of a slice of step 1 (copied), or those at int64 places of any shape."""
        if isinstance(where, slice):
            begin, end, step = where.indices(len(self))
            assert step == 1, where
            bounds = [(max(begin - start, 0), max(end - start, 0)) for start in self.starts[:-1].tolist()]
            parts = [part[a:b] for part, (a, b) in zip(self.parts, bounds, strict=True)]
            return np.concatenate([self._placed(n, part) for n, part in enumerate(parts)]).astype(self.dtype)
        rows = np.asarray(where)
        found = np.empty(rows.shape + self.shape[1:], self.dtype)
        which = np.searchsorted(self.starts, rows, "right") - 1
        for number, part in enumerate(self.parts):
            mine = which == number
            if mine.any():
                found[mine] = self._placed(number, part[rows[mine] - self.starts[number]])
        return found[()]

    def _placed(self, number: int, values: np.ndarray) -> np.ndarray:
        place = None if self.places is None else self.places[number]
        if place is None:
            return values
        return place[values] if isinstance(place, np.ndarray) else values + place

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype)


class ByLabel:
    """The records of every class: those of the first source, then of the second, and so on."""

    def __init__(
        self, sources: Sequence[Index], starts: np.ndarray, places: Sequence[int | np.ndarray], num_classes: int
    ) -> None:
        self._sources, self._record_start = sources, starts
        self._own: list[np.ndarray] = []  # of each source int32 [C]: its number for a class of ours, or -1
        counts = np.zeros(num_classes, np.int64)
        for source, place in zip(sources, places, strict=True):
            ours = np.arange(source.num_classes) + place if isinstance(place, int) else place
            own = np.full(num_classes, -1, np.int32)
            own[ours] = np.arange(source.num_classes)
            counts[ours] += np.diff(source.label_start)
            self._own.append(own)
        self.start = np.concatenate([[0], np.cumsum(counts)])  # int64 [C + 1]
        self.dtype = np.dtype(np.int32 if starts[-1] < 2**31 else np.int64)

    def __len__(self) -> int:
        return int(self.start[-1])

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    def __getitem__(self, where: int | slice | np.ndarray) -> np.ndarray:
        """Return the records at places (int64 of any shape, or a slice) of the order by label."""
        rows = np.arange(*where.indices(len(self))) if isinstance(where, slice) else np.asarray(where)
        classes = np.searchsorted(self.start, rows, "right") - 1
        place = rows - self.start[classes]  # among the records of its class, less those of the sources before
        found = np.empty(rows.shape, self.dtype)
        for source, first, own in zip(self._sources, self._record_start, self._own, strict=False):
            label = own[classes]
            begin = source.label_start[label]
            count = np.where(label < 0, 0, source.label_start[label + 1] - begin)
            mine = (place >= 0) & (place < count)
            found[mine] = source.by_label[(begin + place)[mine]] + first
            place = place - count
        return found[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype)


def _shared(sources: Sequence[Index]) -> list[str]:
    """List the columns with a value for every record that all sources have in one shape."""
    shapes = [
        {name: column.shape[1:] for name, column in source.columns.items() if len(column) == source.num_samples}
        for source in sources
    ]
    return [name for name in shapes[0] if all(other.get(name) == shapes[0][name] for other in shapes)]


def _merged(sources: Sequence[Index]) -> tuple[list[str], Sequence[int | np.ndarray]]:
    """Return all class names, sorted, and for each source its classes' numbers among them, int32 [C of the source].

    Sorting lists that are sorted is linear; a dict of 2 x 2 million names took 4 s of one core, this 1 s (2026-11).
    """
    names = list(chain(*(source.classes for source in sources)))
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    ranked = sorted(names)
    new = np.fromiter(chain([True], map(ne, ranked[1:], ranked)), bool, len(ranked))
    number = np.empty(len(names), np.int32)
    number[order] = np.cumsum(new) - 1
    return list(compress(ranked, new)), np.split(number, np.cumsum([source.num_classes for source in sources])[:-1])


def _apart(sources: Sequence[Index]) -> tuple[list[str], Sequence[int | np.ndarray]]:
    """Return SOURCE/NAME for every class of every source, and how many classes come before each source."""
    names = [source.path.name for source in sources]
    if len(set(names)) < len(names):
        names = [str(source.path) for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"data.sources names {max(names, key=names.count)} twice: give it once, with more weight")
    classes = [f"{name}/{own}" for name, source in zip(names, sources, strict=True) for own in source.classes]
    counts = [0, *np.cumsum([source.num_classes for source in sources]).tolist()]
    return classes, counts[:-1]
