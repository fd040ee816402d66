"""Embeddings of many images -> a folder, one row per image, mapped from disk when it is opened.

FOLDER/embeddings.npy float32 [N, D], labels.npy int32 [N], names of the images and of the classes as in an index, and
meta.json, which is written last: a folder with it is whole. Row i belongs to record i of the shard set it is made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastface import __version__
from fastface.data.names import Names
from fastface.durable import fsync_file, write_durably

FORMAT = 1
CHUNK = 1 << 16  # rows looked at together: 128 MB of 512 values
ARRAYS = {  # file -> dtype and number of axes
    "embeddings": ("<f4", 2),
    "labels": ("<i4", 1),
    "names": ("|u1", 1),
    "names_start": ("<i8", 1),
    "class_names": ("|u1", 1),
    "class_names_start": ("<i8", 1),
}


@dataclass(frozen=True)
class Embeddings:
    """Rows of a model, with what is known of each; arrays are mapped, so opening costs no memory."""

    path: Path
    rows: np.ndarray  # float32 [N, D] as the model gives them, not of unit length; NaN where an image failed
    labels: np.ndarray  # int32 [N]
    names: Names  # of the images, N
    classes: Names  # of the labels, C
    meta: dict[str, Any]  # dataset_id, shards, model: what they are made of

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dataset_id(self) -> str:
        """The shard set that row i and record i have in common."""
        return self.meta["dataset_id"]


def open_embeddings(path: str | Path) -> Embeddings:
    """Open a folder of embeddings; ValueError says what is missing or does not fit."""
    folder = Path(path)
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        partial = (folder / "embeddings.npy").is_file()
        what = "is not complete: run embed.py again with the same options" if partial else "holds no embeddings"
        raise ValueError(f"{folder} {what}; python tools/embed.py makes such a folder") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder}/meta.json cannot be read ({error}): make the embeddings again") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT or "embeddings" not in meta.get("arrays", {}):
        raise ValueError(f"{folder}/meta.json is not that of embeddings in format {FORMAT}: make them again")
    arrays = {name: _map(folder, name, meta["arrays"]) for name in ARRAYS}
    names = Names.of_columns(arrays["names"], arrays["names_start"])
    classes = Names.of_columns(arrays["class_names"], arrays["class_names_start"])
    labels, rows = arrays["labels"], arrays["embeddings"]
    if not len(rows) == len(labels) == len(names):
        raise _wrong(folder, f"{len(rows):,} rows, {len(labels):,} labels and {len(names):,} names do not fit")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise _wrong(folder, f"labels run from {labels.min()} to {labels.max()}, there are {len(classes):,} classes")
    return Embeddings(folder, rows, labels, names, classes, meta)


def write_embeddings(
    path: Path,
    rows: np.ndarray | None,
    labels: np.ndarray,
    names: Iterable[str],
    classes: Iterable[str],
    about: Mapping[str, Any],
) -> None:
    """Write a folder of embeddings, meta.json last; `about` says of what dataset (dataset_id) and model they are.

    rows: [N, D], or None where embeddings.npy is there already.
    """
    path.mkdir(parents=True, exist_ok=True)
    packed = {"names": _packed(names), "class_names": _packed(classes)}
    arrays: dict[str, np.ndarray] = {"labels": np.asarray(labels, "<i4")}
    if rows is not None:
        arrays["embeddings"] = np.asarray(rows, "<f4")
    for name, strings in packed.items():
        arrays |= {name: strings.data, f"{name}_start": strings.start}
    (path / "meta.json").unlink(missing_ok=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array, allow_pickle=False)
        fsync_file(path / f"{name}.npy")
    shapes = {name: list(np.load(path / f"{name}.npy", mmap_mode="r").shape) for name in ARRAYS}
    meta = {"format": FORMAT, "fastface": __version__, **about, "arrays": shapes}
    write_durably(path / "meta.json", json.dumps(meta, indent=1).encode())


def usable(rows: np.ndarray) -> np.ndarray:
    """Say which rows [N, D], in memory or mapped, have a direction: are finite and not zero; bool [N]."""
    good = np.empty(len(rows), bool)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        good[start : start + CHUNK] = np.isfinite(part).all(axis=1) & part.any(axis=1)
    return good


def _packed(names: Iterable[str]) -> Names:
    return names if isinstance(names, Names) else Names(names)


def _map(folder: Path, name: str, shapes: Mapping[str, Any]) -> np.ndarray:
    file = folder / f"{name}.npy"
    try:
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _wrong(folder, f"{name}.npy cannot be opened ({error})") from None
    dtype, axes = ARRAYS[name]
    if mapped.dtype.str != dtype or mapped.ndim != axes or list(mapped.shape) != shapes.get(name):
        found = f"{mapped.dtype.str} {list(mapped.shape)}"
        raise _wrong(folder, f"{name}.npy is {found}, meta.json says {dtype} {shapes.get(name)}")
    return mapped


def _wrong(folder: Path, what: str) -> ValueError:
    return ValueError(f"{folder}: {what}; make the embeddings again with python tools/embed.py")
