"""Which identities look alike, as a miner found -> a file, and back with everything checked."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.data.index import Index
from fastface.durable import write_durably


class Neighbours(NamedTuple):
    """Confusable identities of every identity."""

    ids: np.ndarray  # int32 [C, n], class ids, the likest first; -1 where there are no more
    weights: np.ndarray | None  # float64 [C], how often to start from an identity, relative to the others
    sha256: str  # of the file


def nobody(num_classes: int) -> Neighbours:
    """Return lists that are empty: whoever accompanies a seed is drawn at random. They take no memory."""
    return Neighbours(np.broadcast_to(np.int32(-1), (num_classes, 1)), None, "")


def write_neighbours(path: Path, ids: np.ndarray, dataset_id: str, weights: np.ndarray | None = None) -> str:
    """Write a file for data.plan.file: arrays as in Neighbours, and the shard set they are for. Whole or not at all.

    Equal neighbours give equal bytes. Returns the file's SHA-256.
    """
    arrays = {"neighbours": np.asarray(ids, np.int32), "dataset_id": np.array(dataset_id)}
    if weights is not None:
        arrays["weights"] = np.asarray(weights, np.float64)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_durably(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def read_neighbours(path: Path, index: Index, what: str = "data.plan.file") -> Neighbours:
    """Read and check the neighbours of the classes of `index`; ValueError says what does not fit in `what`."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise ValueError(f"{what} {path} does not exist: it is what a miner writes") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, AttributeError) as error:
        raise ValueError(f"{what} {path} is no .npz of plain arrays ({error}): mine again") from None

    def wrong(reason: str) -> ValueError:
        return ValueError(f"{what} {path}: {reason}; mine again on {index.path}")

    if missing := {"neighbours", "dataset_id"} - set(found):
        raise wrong(f"it has no array {sorted(missing)[0]!r}")
    if str(found["dataset_id"]) != index.dataset_id:
        raise wrong(f"it is for dataset {str(found['dataset_id'])[:12]!r}, data.shards is {index.dataset_id[:12]!r}")
    ids, classes = found["neighbours"], index.num_classes
    if ids.dtype != np.int32 or ids.ndim != 2 or ids.shape[0] != classes or not ids.shape[1]:
        raise wrong(f"neighbours is {ids.dtype} {list(ids.shape)}, expected int32 [{classes}, at least 1]")
    if ids.min() < -1 or ids.max() >= classes:
        raise wrong(f"neighbours runs from {ids.min()} to {ids.max()}, there are classes 0 to {classes - 1}")
    if (late := (ids[:, :-1] < 0) & (ids[:, 1:] >= 0)).any():
        raise wrong(f"class {int(late.any(1).argmax())} has a neighbour after -1, which ends its list")
    if (own := (ids == np.arange(classes)[:, None]).any(1)).any():
        raise wrong(f"class {int(own.argmax())} is its own neighbour")
    weights = found.get("weights")
    if weights is not None:
        if weights.dtype.kind != "f" or weights.shape != (classes,):
            raise wrong(f"weights is {weights.dtype} {list(weights.shape)}, expected float [{classes}]")
        weights = weights.astype(np.float64)
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
            raise wrong("weights must be finite, not negative, and some of them positive")
    return Neighbours(ids, weights, digest)
