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
    """The images of one set, as one model or several embedded them.

    Folders are of one shard set, or of several that were made of the same images for models of different input; then
    rows are put together by the images' names. A record is an image that has a row in all folders which is finite and
    not zero; the others are left out, and counted in `left_out`; with `failed_too` all that have rows are records, for
    evaluation, where failures count. Records are in the order of the first folder's rows, labels and classes are its.
    """

    folders: tuple[Embeddings, ...]
    row: np.ndarray  # int64 [folders, N], the row of each record in each folder
    left_out: int

    def __init__(self, sources: Sequence[Path | Embeddings], *, failed_too: bool = False) -> None:
        folders = tuple(one if isinstance(one, Embeddings) else open_embeddings(one) for one in sources)
        first = folders[0]
        places = np.stack([np.arange(len(first)), *(_same_images(first, other) for other in folders[1:])])
        there = np.min(places, axis=0) >= 0
        whole = np.array(there)
        for folder, place in zip(folders, places, strict=True):
            whole &= usable(folder.rows)[place]
        kept = np.flatnonzero(there if failed_too else whole)
        row = places[:, kept]
        if not whole.any():
            raise ValueError(f"{first.path} holds no row that is finite and not zero: make the embeddings again")
        label = np.asarray(first.labels)[kept]
        by_label = np.argsort(label, kind="stable").astype(np.int64)
        counts = np.bincount(label, minlength=len(first.classes))
        nothing = np.empty(0, np.int64)
        super().__init__(
            path=Path(" ".join(str(folder.path) for folder in folders)),  # for messages
            meta={"shards": [], "options": {}},
            dataset_id=first.dataset_id,
            num_samples=len(kept),
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
        for name, value in {"folders": folders, "row": row, "left_out": len(whole) - len(kept)}.items():
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
        why = "their images failed" if len(self.folders) == 1 else "their images failed, or lack in one of the folders"
        notes = [f"{self.path}: {self.left_out:,} of {total:,} rows left out: {why}"] * bool(self.left_out)
        if len({folder.dataset_id for folder in self.folders}) > 1:
            notes.append(f"{self.path} are of different shard sets: their rows are put together by the images' names")
        return notes

    def read(self, records: np.ndarray) -> np.ndarray:
        """Return the rows of records (int64 [n]), those of several folders side by side: float32 [n, sum of sizes]."""
        return np.concatenate([self.read_of(n, records) for n in range(len(self.folders))], axis=1)

    def read_of(self, folder: int, records: np.ndarray) -> np.ndarray:
        """Return the rows of records (int64 [n]) in one of the folders: float32 [n, its size]."""
        return self.folders[folder].rows[self.row[folder, records]]

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
        return self.folders[0].names[int(self.row[0, i])]

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


def _same_images(one: Embeddings, other: Embeddings) -> np.ndarray:
    """Return the row of each image of `one` in `other`, int64 [N]; -1 where it has none.

    Raises:
        ValueError: where they are not of the same images.
    """
    if one.dataset_id == other.dataset_id and np.array_equal(one.labels, other.labels):
        return np.arange(len(one))
    found = {name: row for row, name in enumerate(other.names)}
    if len(found) == len(other) and len(set(one.names)) == len(one):
        rows = np.array([found.get(name, -1) for name in one.names], np.int64)
        people = [(one.classes[a], other.classes[b]) for a, b in _couples(one, other, rows)]
        if people and all(a == b for a, b in people):
            return rows
    raise ValueError(
        f"{one.path} and {other.path} are not of the same images: embed one shard set with all the models, or sets "
        f"made of the same images, whose names tell which is which (dataset_id {one.dataset_id[:12]!r} and "
        f"{other.dataset_id[:12]!r})"
    )


def _couples(one: Embeddings, other: Embeddings, rows: np.ndarray) -> list[list[int]]:
    """Return which labels of `one` meet which of `other`, each couple once."""
    there = rows >= 0
    couples = np.stack([np.asarray(one.labels)[there], np.asarray(other.labels)[rows[there]]])
    return np.unique(couples, axis=1).T.tolist()
