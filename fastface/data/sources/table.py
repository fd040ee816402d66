"""Parquet tables of image bytes and labels, as the Hugging Face hub keeps them -> Source, one per split."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.sources import Source, check_size, encode_labels

LABELS = ("label", "labels", "identity", "person", "name", "class", "target", "fine_label")
_SPLIT = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PIP = "reading Parquet tables needs pyarrow: pip install pyarrow"


class TableSource(Source):
    """Rows of Parquet files in their order; one row group at a time is in memory."""

    ordered = True  # a shuffled read would decompress a row group for every image; training shuffles anyway

    def __init__(self, files: list[Path], counts: list[np.ndarray], image: str, persons: list[str]) -> None:
        super().__init__(*encode_labels(persons))
        self._files, self._image = [str(file) for file in files], image
        groups = [
            (file, group, int(rows)) for file, per_group in enumerate(counts) for group, rows in enumerate(per_group)
        ]
        self._groups = [(file, group) for file, group, _ in groups]
        self._start = np.concatenate([[0], np.cumsum([rows for *_, rows in groups])]).astype(np.int64)
        self._first = np.concatenate([[0], np.cumsum([per_group.sum() for per_group in counts])]).astype(np.int64)
        self._open: tuple[int, Any] | None = None  # a row group and its images

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def name(self, i: int) -> str:
        file = int(np.searchsorted(self._first, i, side="right")) - 1
        return f"{Path(self._files[file]).name}:{i - self._first[file]}"

    def read(self, i: int) -> bytes:
        """Return the image bytes of a row; ValueError where there are none, such as a row with a path only."""
        at = int(np.searchsorted(self._start, i, side="right")) - 1
        if self._open is None or self._open[0] != at:
            file, group = self._groups[at]
            table = _parquet().ParquetFile(self._files[file]).read_row_group(group, [self._image], use_threads=False)
            self._open = (at, table.column(0))
        value = self._open[1][i - int(self._start[at])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            raise ValueError("the row holds no image bytes")
        check_size(self.name(i), len(data))
        return data

    def close(self) -> None:
        """Let go of the row group in memory."""
        self._open = None


def open_table(path: Path) -> dict[str, Source]:
    """Read one .parquet file, or all below a folder; names such as train-00000-of-00002.parquet tell the split.

    The image column holds bytes, or a struct with `bytes` (Hugging Face's Image); the label column is one of LABELS,
    text or numbers; where the schema's Hugging Face features name the classes, these names are the classes.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        raise ValueError(f"{path} holds no .parquet file")
    splits: dict[str, list[Path]] = {}
    for file in files:
        found = re.match(r"([a-z]+)[-_.]", file.name)
        splits.setdefault(_SPLIT.get(found[1], "") if found and len(files) > 1 else "", []).append(file)
    if "" in splits and len(splits) > 1:
        raise ValueError(f"{path}: {splits[''][0].name} does not tell its split, others do, such as {files[0].name}")
    return {split: _open_files(splits[split]) for split in sorted(splits, key=["train", "val", "test", ""].index)}


def _open_files(files: list[Path]) -> TableSource:
    labels: list[Any] = []
    counts, image, names = [], "", []
    for file in files:
        try:
            opened = _parquet().ParquetFile(file)
            schema = opened.schema_arrow
            image, label = _columns(file, schema)
            values = opened.read([label], use_threads=False).column(0).to_pylist()
        except (OSError, importlib.import_module("pyarrow").ArrowException) as error:
            raise ValueError(f"{file} is no Parquet file that can be read: {error}") from None
        names = _class_names(schema, label)
        for row, value in enumerate(values):
            if not isinstance(value, int | str) or (names and not 0 <= int(value) < len(names)):
                raise ValueError(f"{file} row {row}: label {value!r} is neither text nor the number of a class")
        labels += [names[int(value)] for value in values] if names else values
        counts.append(np.array([opened.metadata.row_group(k).num_rows for k in range(opened.num_row_groups)]))
    if not labels:
        raise ValueError(f"{files[0]} has no rows")
    width = max(len(str(value)) for value in labels)
    persons = [value if isinstance(value, str) else f"{value:0{width}d}" for value in labels]
    return TableSource(files, counts, image, persons)


def _columns(file: Path, schema: Any) -> tuple[str, str]:
    types = {field.name: str(field.type) for field in schema}
    image = [
        n for n, kind in types.items() if kind in ("binary", "large_binary") or ("struct" in kind and "bytes: " in kind)
    ]
    label = [name for name in LABELS if name in types]
    if len(image) != 1 or not label:
        listed = ", ".join(f"{name} ({kind[:40]})" for name, kind in types.items())
        raise ValueError(f"{file} needs one column of image bytes and one of {', '.join(LABELS)}; it has {listed}")
    return image[0], label[0]


def _class_names(schema: Any, label: str) -> list[str]:
    """Return the names of the classes that Hugging Face's features list, or nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names]


def _parquet() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(PIP) from None
