"""Columns of any size without an image: an index whose arrays lie in files, for tests of plans and memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastface.data.index import Index


def fake_index(
    label: np.ndarray,
    *,
    shards: int = 1,
    folder: Path | None = None,
    name: str = "fake",
    classes: Sequence[str] | None = None,
    **columns: np.ndarray,
) -> Index:
    """Build an index of these labels (int [N]) and further columns; mapped from files where a folder is given."""
    num, num_classes = len(label), len(classes) if classes else int(label.max()) + 1
    cuts = np.linspace(0, num, shards + 1).astype(np.int64)
    cuts[1:-1] += np.arange(1, shards) % 3  # shards of unequal size
    start = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=num_classes))])
    arrays = {
        "shard": np.repeat(np.arange(shards, dtype=np.int32), np.diff(cuts)),
        "offset": np.arange(num, dtype=np.int64) * 1024 + 512,
        "length": np.full(num, 500, np.int32),
        "label": label.astype(np.int32),
        "crc32": np.arange(num, dtype=np.uint32),
        "by_label": np.argsort(label, kind="stable").astype(np.int32),
        "label_start": start,
        **columns,
    }
    if folder is not None:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in arrays}
    direct = ("shard", "offset", "length", "label", "crc32", "by_label", "label_start")
    empty = np.empty(0, np.uint8)
    return Index(
        path=folder or Path(name),
        meta={
            "shards": [{"name": f"{n}.tar", "samples": int(size), "bytes": 0} for n, size in enumerate(np.diff(cuts))]
        },
        dataset_id=f"{num}-{num_classes}",
        num_samples=num,
        num_classes=num_classes,
        classes=list(classes) if classes else [f"person {n}" for n in range(num_classes)],
        image_size=(112, 112),
        columns=arrays,
        _names=empty,
        _names_start=np.zeros(num + 1, np.int64),
        _by_name=empty,
        **{name: arrays[name] for name in direct},
    )
