"""What a server sent -> whether it is what the meta.json of its set says."""

from __future__ import annotations

import hashlib
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.index_write import dataset_id, describe_column


def checked(meta: dict[str, Any], url: str) -> dict[str, Any]:
    """Refuse a meta.json that was changed, and names in it that could leave the folder of the cache."""
    try:
        whole = dataset_id(meta["shards"], meta["columns"], meta["classes"]) == meta["dataset_id"]
        names = [shard["name"] for shard in meta["shards"]]
        sizes = [shard["bytes"] for shard in meta["shards"]]
        sizes += [npy_bytes(column) for column in meta["columns"].values()]
        usual = all(re.fullmatch(r"shard-\d+\.tar", name, re.ASCII) for name in names) and len(set(names)) == len(names)
        usual &= all(re.fullmatch(r"\w+", name, re.ASCII) for name in meta["columns"])
        usual &= all(type(size) is int and size > 0 for size in sizes)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{url}/meta.json is damaged ({error!r}); upload it again") from None
    if not whole:
        raise ValueError(f"{url}/meta.json was changed: its dataset_id is that of something else; upload it again")
    if not usual:
        raise ValueError(f"{url}/meta.json names files as make_shards never does: do not use this set")
    return meta


def shard_fault(path: Path, shard: dict[str, Any]) -> str | None:
    """Say what is wrong with the file of a shard; None where it is whole."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == shard["sha256"] else f"their sha256 is {found}, meta.json says {shard['sha256']}"


def column_fault(path: Path, column: dict[str, Any]) -> str | None:
    """Say what is wrong with the .npy file of a column; None where it is whole."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return f"they are no array ({error})"
    found = describe_column(array)
    return None if found == column else f"they hold {found}, meta.json says {column}"


def npy_bytes(column: dict[str, Any]) -> int:
    """Return the size in bytes of the file in which np.save puts a column."""
    header = io.BytesIO()
    described = {"descr": column["dtype"], "fortran_order": False, "shape": tuple(column["shape"])}
    np.lib.format.write_array_header_1_0(header, described)
    return header.tell() + np.dtype(column["dtype"]).itemsize * math.prod(column["shape"])
