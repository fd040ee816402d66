"""Faces found before -> files beside the output, so that no image is looked at twice by the same detector.

FOLDER/mtcnn-0123456789abcdef/*.npy: a folder per detector, its files and versions; in a file a row is one face
of one image, which is named by the first 16 bytes of the sha256 of its bytes. A file is named by its own sha256
and written whole, so any number of processes and machines may add to a folder, and damage shows. It is a cache:
deleting it costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastface.detection import DetectorSpec
from fastface.detection.found import Found
from fastface.durable import write_durably

FORMAT = 1  # joins the folder's name: files of another format are not seen
ROW = np.dtype([("key", "S16"), ("score", "<f4"), ("box", "<f4", 4), ("landmarks", "<f4", (5, 2))])
NOBODY = -1.0  # score of the one row of an image without faces
MERGE = 8  # files; as many or more are put into one


def key_of(data: bytes) -> bytes:
    """Name an image by its bytes; as numpy gives such names back, without zeros at the end."""
    return hashlib.sha256(data).digest()[:16].rstrip(b"\0")


class Known:
    """What a detector found in images, by key, as it was when this was made; safe to share over a fork."""

    def __init__(self, folder: Path, spec: DetectorSpec) -> None:
        essence = json.dumps({"format": FORMAT, **spec.essence()}, sort_keys=True)
        self.folder = folder / f"{spec.name}-{hashlib.sha256(essence.encode()).hexdigest()[:16]}"
        files = {path: rows for path in sorted(self.folder.glob("*.npy")) if (rows := _read(path)) is not None}
        self.rows = _joined(list(files.values()))
        self.keys = np.ascontiguousarray(self.rows["key"])
        if len(files) >= MERGE:
            merged = self._write(self.rows)
            for path in files.keys() - {merged}:
                path.unlink(missing_ok=True)  # another conversion may be merging them too

    def __len__(self) -> int:
        """Count the images."""
        return len(np.unique(self.keys))

    def find(self, key: bytes) -> Found | None:
        """Return the faces of an image, or None where none were looked for."""
        name = np.array(key, "S16")
        rows = self.rows[self.keys.searchsorted(name) : self.keys.searchsorted(name, "right")]
        if not len(rows):
            return None
        rows = rows[rows["score"] != NOBODY]
        return Found(rows["box"], rows["score"], rows["landmarks"])

    def add(self, found: Mapping[bytes, Found]) -> None:
        """Write what was found, for those who open the folder later."""
        if found:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(_joined([_rows(key, faces) for key, faces in found.items()]))

    def _write(self, rows: np.ndarray) -> Path:
        packed = io.BytesIO()
        np.save(packed, rows, allow_pickle=False)
        path = self.folder / f"{hashlib.sha256(packed.getvalue()).hexdigest()[:32]}.npy"
        write_durably(path, packed.getvalue())
        return path


def _rows(key: bytes, faces: Found) -> np.ndarray:
    rows = np.zeros(max(len(faces.scores), 1), ROW)
    rows["key"], rows["score"] = key, NOBODY
    if len(faces.scores):
        rows["box"], rows["score"], rows["landmarks"] = faces
    return rows


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Put rows together in the order of their keys; an image that two parts know is taken from the first."""
    rows = np.concatenate([np.zeros(0, ROW), *parts])
    part = np.repeat(np.arange(len(parts)), [len(each) for each in parts])
    order = np.argsort(rows["key"], kind="stable")
    rows, part = rows[order], part[order]
    _, first, count = np.unique(rows["key"], return_index=True, return_counts=True)
    return rows[part == np.repeat(part[first], count)]


def _read(path: Path) -> np.ndarray | None:
    """Read a file of rows; None, said aloud and the file deleted, where it is not what was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # merged by another conversion meanwhile
        return None
    if hashlib.sha256(data).hexdigest()[:32] == path.stem:
        rows = np.load(io.BytesIO(data), allow_pickle=False)
        if rows.dtype == ROW and rows.ndim == 1:
            return rows
    print(f"{path} is damaged: it is deleted, and its images are looked at again", file=sys.stderr)
    path.unlink(missing_ok=True)
    return None
