"""Columns of any size without an image: an index whose arrays lie in files, for tests of plans and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    arrays = {
        "shard": np.repeat(np.arange(shards, dtype=np.int32), np.diff(cuts)),
        "offset": np.arange(num, dtype=np.int64) * 1024 + 512,
        "length": np.full(num, 500, np.int32),
        "label": label.astype(np.int32),
        "crc32": np.arange(num, dtype=np.uint32),
        "by_label": np.argsort(label, kind="stable").astype(np.int32),
        "label_start": np.concatenate([[0], np.cumsum(np.bincount(label, minlength=num_classes))]),
        **columns,
    }
    if folder is None:
        return _index(Path(name), arrays, classes)
    for column, array in arrays.items():
        np.save(folder / f"{column}.npy", array)
    return open_fake(folder)


def open_fake(folder: Path) -> Index:
    """Map what `fake_index` wrote into a folder."""
    return _index(folder, {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in folder.glob("*.npy")}, None)


def _index(path: Path, arrays: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> Index:
    num, num_classes = len(arrays["label"]), len(arrays["label_start"]) - 1
    sizes = np.diff(np.searchsorted(arrays["shard"], np.arange(int(arrays["shard"][-1]) + 2))).tolist()
    empty = np.empty(0, np.uint8)
    direct = ("shard", "offset", "length", "label", "crc32", "by_label", "label_start")
    return Index(
        path=path,
        meta={"shards": [{"name": f"{n}.tar", "samples": size, "bytes": 0} for n, size in enumerate(sizes)]},
        dataset_id=f"{num}-{num_classes}",
        num_samples=num,
        num_classes=num_classes,
        classes=list(classes) if classes else [f"person {n}" for n in range(num_classes)],
        image_size=(112, 112),
        columns=dict(arrays),
        _names=empty,
        _names_start=np.broadcast_to(np.int64(0), num + 1),  # every name is empty,
        _by_name=empty,
        **{name: arrays[name] for name in direct},
    )
