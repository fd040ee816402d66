"""Columns of a shard set -> index/*.npy and meta.json, durable and named by their content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.columns import FORMAT, MANY_CLASSES
from fastface.data.names import Names
from fastface.durable import fsync_folder, write_durably


def derive_columns(label: np.ndarray, num_classes: int, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Make the columns that follow from labels and source names: see OTHER_COLUMNS."""
    wide = "<i4" if len(label) < 2**31 else "<i8"
    packed = Names(names)
    return {
        "by_label": np.argsort(label, kind="stable").astype(wide),
        "label_start": np.concatenate([[0], np.cumsum(np.bincount(label, minlength=num_classes))]).astype("<i8"),
        "names": packed.data,
        "names_start": packed.start.astype("<i8"),
        "by_name": np.array(sorted(range(len(packed)), key=packed.bytes_of), wide),
    }


def write_index(
    folder: Path,
    columns: Mapping[str, np.ndarray],
    classes: Sequence[str],
    shards: list[dict[str, Any]],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Write index/*.npy, then meta.json, all fsynced, into the folder that holds the shards; return meta.

    `shards` rows have name, bytes, samples, sha256; `more` joins meta as it is. The names of more than
    MANY_CLASSES classes go into columns of their own.
    """
    (folder / "index").mkdir(exist_ok=True)
    described = {}
    many = len(classes) > MANY_CLASSES
    if many:
        names = Names(classes)
        columns = {**columns, "class_names": names.data, "class_names_start": names.start.astype("<i8")}
    for name, array in columns.items():
        with open(folder / "index" / f"{name}.npy", "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        described[name] = describe_column(array)
    fsync_folder(folder / "index")
    label = columns["label"]
    meta = {
        "format": FORMAT,
        "dataset_id": dataset_id(shards, described, None if many else classes),
        "num_samples": len(label),
        "num_classes": len(classes),
        "image_size": common_size(columns["width"], columns["height"]),
        **more,
        "shards": shards,
        "columns": described,
        "samples_per_class": None if many else np.bincount(label, minlength=len(classes)).tolist(),
        "classes": None if many else classes,
    }
    write_durably(folder / "meta.json", json.dumps(meta, indent=1).encode("ascii"))  # \udcff survives as an escape
    return meta


def common_size(width: np.ndarray, height: np.ndarray) -> list[int] | None:
    """Return [width, height] in pixels where all images agree, else None."""
    same = width.min() == width.max() and height.min() == height.max()
    return [int(width[0]), int(height[0])] if same else None


def describe_column(array: np.ndarray) -> dict[str, Any]:
    """Return dtype, shape and sha256 of an array, the hash over its values only."""
    digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": digest}


def dataset_id(shards: list[dict[str, Any]], columns: Mapping[str, Any], classes: Sequence[str] | None) -> str:
    """Return the sha256 over shard hashes, column hashes and meta's class names that names a dataset everywhere."""
    essence = {"shards": [shard["sha256"] for shard in shards], "columns": dict(columns), "classes": classes}
    return hashlib.sha256(json.dumps(essence, sort_keys=True).encode("ascii")).hexdigest()
