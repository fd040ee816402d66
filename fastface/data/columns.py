"""meta.json and index/*.npy of a shard set -> mapped columns, checked against each other."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.mapping import open_for_lookups, without_reading_ahead
from fastface.data.names import Names

FORMAT = 1  # raised when a reader of the older format would misread the newer one
CHECK = "python tools/check_shards.py"
RECORD_COLUMNS = {  # one value per record; a source may add more
    "shard": "<i4",  # index into meta["shards"]
    "offset": "<i8",  # of the image bytes in its tar
    "length": "<i4",  # of the image bytes
    "label": "<i4",  # index into the classes
    "crc32": "<u4",  # zlib.crc32 of the image bytes
    "width": "<u2",
    "height": "<u2",
    "kept": "|u1",  # 1 where the bytes are those of the source
}
OTHER_COLUMNS = {  # derived, other lengths
    "by_label": None,  # [N] record ids, label by label; int32 up to 2^31 records, else int64
    "label_start": "<i8",  # [C + 1]
    "names": "|u1",  # source names in UTF-8 (surrogateescape), end to end
    "names_start": "<i8",  # [N + 1]
    "by_name": None,  # [N] record ids in the order of their names' bytes
}
CLASS_COLUMNS = {  # where there are more than MANY_CLASSES; meta["classes"] is null then
    "class_names": "|u1",  # in UTF-8 (surrogateescape), end to end
    "class_names_start": "<i8",  # [C + 1]
}
LOOKED_UP = ("offset", "length", "crc32", "label", "by_label", "label_start")  # for each batch
MANY_CLASSES = 100_000  # names in meta.json: 2 million cost 0.6 s and 190 MB at opening (results/start.jsonl)
READ_AT_ONCE = 1 << 20  # labels checked at a time: 4 MB of memory


# Of faces, where the source tells of them, in px of the stored image: `boxes` float32 [M, 4] x0 y0 x1 y1, those of
# record i from boxes_start[i] to boxes_start[i + 1] (int64 [N + 1]), `boxes_*` [M] what is known of each, and
# `landmarks` float32 [N, 10] x0 y0 x1 y1 ... of one face per image.
def is_face_column(name: str) -> bool:
    """Tell whether a column is one of those that hold boxes or landmarks."""
    return name in ("boxes", "landmarks") or name.startswith("boxes_")


def is_reserved(name: str) -> bool:
    """Tell whether a source may not give a column of its own this name."""
    return name in {*RECORD_COLUMNS, *OTHER_COLUMNS, *CLASS_COLUMNS} or is_face_column(name)


def expected_rows(name: str, samples: int, classes: int, arrays: Mapping[str, np.ndarray]) -> int:
    """Return how long a column must be in a set of so many samples and classes."""
    if name in ("names_start", "boxes_start"):
        return samples + 1
    if name in ("names", "class_names"):
        return len(arrays[name])  # any; where their starts end is checked apart
    if name == "boxes" or name.startswith("boxes_"):
        return int(arrays["boxes_start"][-1]) if "boxes_start" in arrays else -1
    return classes + 1 if name in ("label_start", "class_names_start") else samples


def read_meta(path: Path) -> dict[str, Any]:
    """Read meta.json of the shard set in `path`; raise a ValueError where there is none or it is not ours."""
    file = path / "meta.json"
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise ValueError(_not_a_set(path)) from None
    except ValueError as error:
        raise damaged(path, f"meta.json cannot be read ({error})") from None
    return parse_meta(text, path)


def parse_meta(text: str, path: Path | str) -> dict[str, Any]:
    """Read the text of the meta.json of the set at `path`, a folder or a URL; ValueError where it is not ours."""
    try:
        meta = json.loads(text)
    except ValueError as error:
        raise damaged(path, f"meta.json cannot be read ({error})") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("format"), int):
        raise ValueError(
            f"{path}/meta.json is not a fastface shard set's: it has no format number; make it with make_shards.py"
        )
    if meta["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {meta['format']}, this fastface reads format {FORMAT}: make the shards again "
            f"with tools/make_shards.py, or install the fastface that made them ({meta.get('fastface', '?')})"
        )
    keys = {"num_samples", "num_classes", "classes", "shards", "columns", "image_size", "dataset_id"}
    if lost := sorted(keys - set(meta)):
        raise damaged(path, f"meta.json lacks {lost[0]!r}")
    return meta


def class_names(path: Path, meta: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> Sequence[str]:
    """Return the names of the classes: those in meta.json, or in columns of their own where they are many."""
    if meta["classes"] is not None:
        return meta["classes"]
    if lost := [name for name in CLASS_COLUMNS if name not in columns]:
        raise damaged(path, f"meta.json names no classes and lists no column {lost[0]!r}")
    return Names.of_columns(columns["class_names"], columns["class_names_start"])


def _not_a_set(path: Path) -> str:
    sets = sorted(child.parent.name for child in path.glob("*/meta.json"))
    if sets:
        return f"{path} holds the splits {', '.join(sets)}: open one of them, such as {path / sets[0]}"
    if path.with_name(path.name + ".partial").is_dir():
        return f"{path} is not complete: run make_shards.py again with the same options to finish it"
    what = "has no meta.json: it is no shard set" if path.is_dir() else "does not exist"
    return f"{path} {what}; make one with python tools/make_shards.py KIND INPUT --out {path}"


def damaged(path: Path | str, what: str) -> ValueError:
    return ValueError(f"{path}: {what}; run `{CHECK} {path}` to see all that is wrong, and make the shards again")


def open_column(path: Path, name: str, columns: Mapping[str, Any]) -> np.memmap:
    file = path / "index" / f"{name}.npy"
    try:
        mapped = open_for_lookups(file)
    except (ValueError, OSError, EOFError) as error:
        raise damaged(path, f"index/{name}.npy cannot be opened ({error})") from None
    expected = (columns[name]["dtype"], columns[name]["shape"])
    if (
        mapped.dtype.str,
        list(mapped.shape),
    ) != expected or mapped.offset + mapped.nbytes != file.stat().st_size:
        found = f"{mapped.dtype.str} {list(mapped.shape)} in {file.stat().st_size:,} bytes"
        raise damaged(path, f"index/{name}.npy is {found}, expected {expected[0]} {expected[1]}")
    return mapped


def check_shapes(path: Path, meta: dict[str, Any], arrays: Mapping[str, np.ndarray], named: int) -> None:
    samples, classes = meta["num_samples"], meta["num_classes"]
    for name, array in arrays.items():
        if array.ndim < 1 or len(array) != expected_rows(name, samples, classes, arrays):
            raise damaged(path, f"index/{name}.npy has shape {array.shape} in a set of {samples:,} images")
    if (inside := sum(shard["samples"] for shard in meta["shards"])) != samples:
        raise damaged(path, f"meta.json counts {samples:,} images and {inside:,} in its shards")
    if named != classes or samples < 1:
        raise damaged(path, f"meta.json counts {classes:,} classes and names {named:,}")
    blocks = [name for name in ("names", "class_names") if name in arrays]
    ends = {"label_start": samples} | {f"{name}_start": len(arrays[name]) for name in blocks}
    for name, end in ends.items():
        start = arrays[name]
        if start[0] != 0 or start[-1] != end:
            raise damaged(path, f"index/{name}.npy runs from {start[0]} to {start[-1]}, not from 0 to {end}")


def check_labels(path: Path, label: np.ndarray, classes: int) -> None:
    """Read every label once, through a small buffer: pages of the mapped column would stay in the process.

    42 million labels take 0.1 s once cached.
    """
    low, high = 0, 0
    with open(path / "index" / "label.npy", "rb") as file:
        without_reading_ahead(file.fileno())
        file.seek(-label.nbytes, os.SEEK_END)
        while len(part := np.fromfile(file, label.dtype, READ_AT_ONCE)):
            low, high = min(low, int(part.min())), max(high, int(part.max()))
    if low < 0 or high >= classes:
        raise damaged(path, f"labels run from {low} to {high}, there are {classes:,} classes")


def check_shard_sizes(path: Path, meta: dict[str, Any], lost: float) -> None:
    wrong, images = [], 0.0
    for shard in meta["shards"]:
        try:
            size = os.stat(path / shard["name"]).st_size
        except FileNotFoundError:
            size = 0
        if size != shard["bytes"]:
            missing = "is missing" if not size else f"has {size:,} bytes, expected {shard['bytes']:,}"
            wrong.append(f"{shard['name']} {missing}")
            images += shard["samples"] * max(0.0, 1 - size / shard["bytes"])
    if wrong and (not lost or images > lost * meta["num_samples"]):
        more = f" (and {len(wrong) - 1:,} more shards: about {images:,.0f} images are lost)" if len(wrong) > 1 else ""
        raise damaged(path, wrong[0] + more)
