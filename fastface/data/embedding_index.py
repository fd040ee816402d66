"""Folders of embeddings -> an index of them, which plans draw from as they do from a shard set's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.embeddings import CHUNK, Embeddings, open_embeddings, usable
from fastface.data.index import Index


class EmbeddingIndex(Index):
    """The images of one shard set, as one model or several embedded them.

    A record is an image that has a row in all folders which is finite and not zero; the others are left out, and
    counted in `left_out`; with `failed_too` all are records, for evaluation, where failures count. Records are in the
    order of the rows, labels and classes those of the folders.
    """

    folders: tuple[Embeddings, ...]
    row: np.ndarray  # int64 [N], the row of each record, the same in all folders
    left_out: int

    def __init__(self, paths: Sequence[Path], *, failed_too: bool = False) -> None:
        folders = tuple(open_embeddings(path) for path in paths)
        first = folders[0]
        for other in folders[1:]:
            _check_same_images(first, other)
        whole = np.ones(len(first), bool)
        for folder in folders:
            whole &= usable(folder.rows)
        row = np.arange(len(whole)) if failed_too else np.flatnonzero(whole)
        if not whole.any():
            raise ValueError(f"{first.path} holds no row that is finite and not zero: make the embeddings again")
        label = np.asarray(first.labels)[row]
        by_label = np.argsort(label, kind="stable").astype(np.int64)
        counts = np.bincount(label, minlength=len(first.classes))
        nothing = np.empty(0, np.int64)
        super().__init__(
            path=Path(" ".join(str(folder.path) for folder in folders)),  # for messages
            meta={"shards": [], "options": {}},
            dataset_id=first.dataset_id,
            num_samples=len(row),
            num_classes=len(first.classes),
            classes=first.classes,
            image_size=None,
            shard=nothing,
            offset=nothing,
            length=nothing,
            label=label,
            crc32=nothing,
            by_label=by_label,
            label_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            columns={"label": label},
            _names=nothing,
            _names_start=nothing,
            _by_name=nothing,
        )
        for name, value in {"folders": folders, "row": row, "left_out": len(whole) - len(row)}.items():
            object.__setattr__(self, name, value)  # frozen, as every index

    def __repr__(self) -> str:
        return f"EmbeddingIndex({str(self.path)!r}, {self.num_samples:,} rows of {self.num_classes:,} identities)"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of a row, folder by folder."""
        return tuple(folder.rows.shape[1] for folder in self.folders)

    @property
    def made_of(self) -> list[dict[str, Any]]:
        """Say of what images and by which model the rows of each folder are: JSON values."""
        return [
            {"dataset_id": f.dataset_id, "model": f.meta.get("model"), "shape": list(f.rows.shape)}
            for f in self.folders
        ]

    @property
    def sha256(self) -> str:
        """Of `made_of`: other images or another model have another one."""
        return hashlib.sha256(json.dumps(self.made_of, sort_keys=True).encode()).hexdigest()

    @property
    def notes(self) -> list[str]:
        """What the user should hear once."""
        total = self.num_samples + self.left_out
        return [f"{self.path}: {self.left_out:,} of {total:,} rows left out: their images failed"] * bool(self.left_out)

    def read(self, records: np.ndarray) -> np.ndarray:
        """Return the rows of records (int64 [n]), those of several folders side by side: float32 [n, sum of sizes]."""
        rows = self.row[records]
        return np.concatenate([folder.rows[rows] for folder in self.folders], axis=1)

    def mean(self) -> np.ndarray:
        """Average the rows, those of several folders side by side: float64 [sum of sizes]."""
        total = np.zeros(sum(self.sizes))
        for start in range(0, self.num_samples, CHUNK):
            total += self.read(np.arange(start, min(start + CHUNK, self.num_samples))).sum(0, dtype=np.float64)
        return total / self.num_samples

    def name(self, i: int) -> str:
        """Return the name that the source gave to the image of record i."""
        if not 0 <= i < self.num_samples:
            raise IndexError(f"record {i} of {self.num_samples}")
        return self.folders[0].names[int(self.row[i])]

    def find(self, names: Iterable[str]) -> np.ndarray:
        """Return the records (int64) with these names, by going through all of them; ValueError where one lacks."""
        wanted = list(names)
        place = dict.fromkeys(wanted, -1)
        for record in range(self.num_samples - 1, -1, -1):  # of equal names the first stays
            if (name := self.name(record)) in place:
                place[name] = record
        if missing := [name for name in wanted if place[name] < 0]:
            raise ValueError(
                f"{self.path}: {len(missing):,} of {len(wanted):,} names have no embedding, the first is {missing[0]!r}"
            )
        return np.array([place[name] for name in wanted], np.int64)

    @property
    def shard_start(self) -> np.ndarray:  # type: ignore[override]
        """Refuse: there are no shards here to go through one by one."""
        raise ValueError("data.plan windowed goes from shard to shard, and data.embeddings has none: take shuffled")


def _check_same_images(one: Embeddings, other: Embeddings) -> None:
    same = one.dataset_id == other.dataset_id and len(one) == len(other)
    if not (same and np.array_equal(one.labels, other.labels)):
        raise ValueError(
            f"{one.path} and {other.path} are not of the same images: embed one shard set with all the models "
            f"(dataset_id {one.dataset_id[:12]!r} and {other.dataset_id[:12]!r})"
        )
