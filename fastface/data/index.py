"""A folder or URL of a shard set -> its index, which opens at once, of any size."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastface.data.mapping import map_little

if TYPE_CHECKING:
    from fastface.data.remote import RemoteSet
    from fastface.data.shard_cache import CacheOptions

from fastface.data.columns import (
    CLASS_COLUMNS,
    LOOKED_UP,
    OTHER_COLUMNS,
    RECORD_COLUMNS,
    check_labels,
    check_shapes,
    check_shard_sizes,
    class_names,
    damaged,
    open_column,
    read_meta,
)
from fastface.data.names import Names


class Located(NamedTuple):
    """Where the encoded bytes of some records lie; an array of [n] each."""

    shard: np.ndarray  # int64, for shard_path and shard_bytes
    offset: np.ndarray  # int64, bytes from the start of the shard
    length: np.ndarray  # int32, bytes
    crc32: np.ndarray  # uint32, of these bytes


@dataclasses.dataclass(frozen=True)
class Index:
    """A shard set's index; arrays are read-only views of files, so opening costs no memory and no scan."""

    path: Path
    meta: dict[str, Any]
    dataset_id: str
    num_samples: int
    num_classes: int
    classes: Sequence[str]  # a list, or Names where there are many
    image_size: tuple[int, int] | None  # (width, height), None where images differ
    shard: np.ndarray  # int32 [N]
    offset: np.ndarray  # int64 [N], bytes
    length: np.ndarray  # int32 [N], bytes
    label: np.ndarray  # int32 [N]
    crc32: np.ndarray  # uint32 [N]
    by_label: np.ndarray  # [N]: the records of class c are by_label[label_start[c]:label_start[c + 1]]
    label_start: np.ndarray  # int64 [C + 1]
    columns: dict[str, np.ndarray]  # every column but the names, by name
    _names: np.ndarray
    _names_start: np.ndarray
    _by_name: np.ndarray
    remote: RemoteSet | None = None  # brings the shards, where they are on a server

    @classmethod
    def open(cls, path: str | Path, cache: CacheOptions | None = None, *, lost: float = 0.0) -> Index:
        """Open the shard set in folder `path`, or at a URL: then `cache` says where its shards are kept.

        Checks versions, sizes, shapes and, in one pass, the range of the labels; `tools/check_shards.py`
        checks everything. Raises ValueError where something does not fit, but for missing and cut shards that hold
        no more than the share `lost` of the images: a tolerant reader can do without them.
        """
        remote = _remote(str(path), cache) if "://" in str(path) else None
        folder = Path(path) if remote is None else remote.folder
        meta = read_meta(folder)
        mapped = {name: open_column(folder, name, meta["columns"]) for name in meta["columns"]}
        missing = [name for name in [*RECORD_COLUMNS, *OTHER_COLUMNS] if name not in mapped]
        if missing:
            raise damaged(folder, f"meta.json lists no column {missing[0]!r}")
        map_little([mapped[name] for name in LOOKED_UP])
        # plain views: indexing a memmap costs 10 times as much
        arrays = {name: np.asarray(column) for name, column in mapped.items()}
        classes = class_names(folder, meta, arrays)
        check_shapes(folder, meta, arrays, len(classes))
        check_labels(folder, arrays["label"], meta["num_classes"])
        if remote is None:  # else each is checked when it comes
            check_shard_sizes(folder, meta, lost)
        size = meta["image_size"]
        names = {name: arrays.pop(name) for name in ("names", "names_start", "by_name")}
        for name in CLASS_COLUMNS:
            arrays.pop(name, None)
        direct = ("shard", "offset", "length", "label", "crc32", "by_label", "label_start")
        return cls(
            path=folder,
            meta=meta,
            dataset_id=meta["dataset_id"],
            num_samples=meta["num_samples"],
            num_classes=meta["num_classes"],
            classes=classes,
            image_size=None if size is None else (size[0], size[1]),
            columns=arrays,
            _names=names["names"],
            _names_start=names["names_start"],
            _by_name=names["by_name"],
            remote=remote,
            **{name: arrays[name] for name in direct},
        )

    def __len__(self) -> int:
        return self.num_samples

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r}, {self.num_samples:,} images of {self.num_classes:,} identities)"

    @property
    def num_shards(self) -> int:
        return len(self.meta["shards"])

    @functools.cached_property
    def shard_start(self) -> np.ndarray:
        """Where each shard's records start, int64 [num_shards + 1]: they follow one another as the shards do."""
        return np.concatenate([[0], np.cumsum([shard["samples"] for shard in self.meta["shards"]])])

    def shard_path(self, shard: int) -> Path:
        """Return the tar of a shard; one on a server is downloaded first."""
        if self.remote is not None:
            return self.remote.shard(shard)
        return self.path / self.meta["shards"][shard]["name"]

    def shard_bytes(self, shard: int) -> int:
        """Return how long the tar of a shard is when it is whole."""
        return self.meta["shards"][shard]["bytes"]

    def locate(self, records: np.ndarray) -> Located:
        """Say where the bytes of records (int64 [n]) are."""
        shard = np.searchsorted(self.shard_start, records, side="right") - 1  # one column less to look up
        return Located(shard, self.offset[records], self.length[records], self.crc32[records])

    def labels_of(self, records: np.ndarray) -> np.ndarray:
        """Return the labels (int64 [n]) of records (int64 [n])."""
        return self.label[records].astype(np.int64)

    @property
    def names(self) -> Names:
        """The names that the source gave to all records, mapped."""
        return Names.of_columns(self._names, self._names_start)

    def _name_bytes(self, i: int) -> bytes:
        return self._names[self._names_start[i] : self._names_start[i + 1]].tobytes()

    def name(self, i: int) -> str:
        """Return the name that the source gave to record i, such as 'Ada_Lovelace/0001.jpg'."""
        if not 0 <= i < self.num_samples:
            raise IndexError(f"record {i} of {self.num_samples}")
        return self._name_bytes(i).decode("utf-8", "surrogateescape")

    def find(self, names: Iterable[str]) -> np.ndarray:
        """Return the records (int64) with these source names; where a name occurs twice, its first record.

        Binary search over the mapped names: tens of us a name and no memory. ValueError names the first that
        is missing and says how many are.
        """
        found, missing = [], []
        for name in names:
            target = name.encode("utf-8", "surrogateescape")
            place = bisect.bisect_left(self._by_name, target, key=self._name_bytes)
            record = int(self._by_name[place]) if place < self.num_samples else -1
            if record < 0 or self._name_bytes(record) != target:
                missing.append((name, place))
            found.append(record)
        if missing:
            name, place = missing[0]
            near = self.name(int(self._by_name[min(place, self.num_samples - 1)]))
            raise ValueError(
                f"{self.path}: {len(missing):,} of {len(found):,} names are not in it, the first is {name!r}"
                f"; its names look like {near!r} (rejected images are listed in rejects.csv)"
            )
        return np.array(found, np.int64)


def _remote(url: str, cache: CacheOptions | None) -> RemoteSet:
    from fastface.data.remote import RemoteSet  # which needs this module

    return RemoteSet(url, cache)
