"""InsightFace RecordIO (train.rec, train.idx) -> Source, without mxnet, image bytes untouched."""

import mmap
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.sources import Source, check_size, nearest_path

# dmlc-core recordio.h: uint32 magic, uint32 with 3 bits of continuation flag above 29 bits of length, then
# the content, padded to 4 bytes. Content that holds the magic is cut there: flag 1 starts, 2 continues, 3
# ends it.
MAGIC = 0xCED7230A
_IR_HEADER = struct.Struct("<IfQQ")  # mxnet/recordio.py: flag, label, id, id2; flag > 0 float32 labels follow
_MAX_LABEL = 1 << 24  # float32 counts exactly up to here
_CHUNK = 1 << 18  # records whose headers are gathered at a time, 8 MB


class RecSource(Source):
    """Records of a .rec file, in the order of their keys; classes are the labels, padded to one width."""

    def __init__(
        self, path: Path, keys: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, labels: np.ndarray
    ) -> None:
        self._path, self._file = str(path), -1
        self._stem, self._keys, self._offsets, self._sizes = path.name, keys, offsets, sizes
        numbers, labels = np.unique(labels, return_inverse=True)
        width = len(str(numbers[-1]))
        super().__init__([f"{number:0{width}d}" for number in numbers], labels.astype(np.int64))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": -1}  # a file descriptor means nothing in another process

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)

    def name(self, i: int) -> str:
        return f"{self._stem}:{self._keys[i]}"

    def read(self, i: int) -> bytes:
        """Return the image bytes, joined where the record is in several parts."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDONLY)
        where = f"{self._path} record {self._keys[i]}"
        content, _ = _content(self._file, int(self._offsets[i]), where)
        (flag,) = struct.unpack_from("<I", content)
        return content[_IR_HEADER.size + 4 * flag :]


def open_rec(path: Path) -> RecSource:
    """Read NAME.rec, or the one .rec file of a folder, with NAME.idx beside it or without.

    Where record 0 is InsightFace's header (labels [N + 1, M], no image), keys 1..N are the images and the
    per-identity ranges behind them are left out. Records without image bytes go to `skipped`. Raises
    ValueError for offsets or lengths outside the file, overlaps, and labels that are not whole numbers in [0,
    2^24).
    """
    rec = _find(path)
    size, idx = rec.stat().st_size, rec.with_suffix(".idx")
    if size < 8:
        raise ValueError(f"{rec} has {size} bytes, too few for one record")
    keys, offsets = _read_idx(idx, size) if idx.exists() else _scan(rec, size)
    keys, offsets = keys[order := np.argsort(keys, kind="stable")], offsets[order]
    sizes, flags, labels, ends = _headers(rec, keys, offsets, size)
    _check_cover(rec, idx, keys, offsets, ends, size)
    images = np.ones(len(keys), bool)
    if keys[0] == 0 and flags[0] > 0 and sizes[0] == 0:
        # A count above 2^24 is not exact as float32; identity ranges carry no image either way.
        images = (keys > 0) & (keys < labels[0]) if labels[0] < _MAX_LABEL else sizes > 0
    empty = images & (sizes == 0)
    images &= sizes > 0
    if not images.any():
        raise ValueError(f"{rec} holds no images in {len(keys)} records")
    wrong = images & ~((labels >= 0) & (labels < _MAX_LABEL) & (labels == np.floor(labels)))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(
            f"{rec} record {keys[k]}: label {labels[k]:g} is not a whole number in [0, 2^24), beyond "
            "which float32 labels are not exact; renumber the identities"
        )
    source = RecSource(rec, keys[images], offsets[images], sizes[images], labels[images].astype(np.int64))
    source.skipped = [(f"{rec.name}:{key}", "empty-file") for key in keys[empty]]
    return source


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.rec"))
    if (path / "train.rec") in found:
        return path / "train.rec"
    if len(found) != 1:
        raise ValueError(
            f"{path} holds {len(found)} .rec files; give the file itself{nearest_path(path / 'train.rec')}"
        )
    return found[0]


def _read_idx(idx: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read "key TAB offset" lines."""
    cells = idx.read_bytes().split()
    try:
        numbers = np.array([int(cell) for cell in cells], np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        raise ValueError(f"{idx} must hold a key and an offset a line; delete it to scan the .rec instead") from None
    keys, offsets = numbers[:, 0], numbers[:, 1]
    wrong = (offsets < 0) | (offsets > size - 8) | (offsets % 4 != 0) | (keys < 0)
    if len(keys) == 0 or wrong.any():
        k = int(np.argmax(wrong)) if len(keys) else 0
        what = f"line {k + 1}, key {keys[k]}: offset {offsets[k]}" if len(keys) else "no lines"
        raise ValueError(f"{idx} has {what}; offsets must be multiples of 4 inside the {size} bytes of the .rec")
    if len(np.unique(keys)) < len(keys):
        raise ValueError(f"{idx} names a key twice; delete it to scan the .rec instead")
    return keys, offsets


def _scan(rec: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the records of a file without index by walking from each to the next."""
    offsets: list[int] = []
    with rec.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        at, inside = 0, False
        while at < size:
            where = f"{rec} at byte {at}"
            flag, length = _part(view[at : at + 8], where)
            if at + 8 + length > size:
                raise ValueError(f"{where}: a record of {length} bytes ends beyond the file; copy the file again")
            if (flag in (2, 3)) != inside:
                raise ValueError(f"{where}: the parts of a record are out of order; copy the file again")
            if not inside:
                offsets.append(at)
            inside = flag in (1, 2)
            at += 8 + length + (-length % 4)
    if inside:
        raise ValueError(f"{rec} ends inside a record of several parts; copy the file again")
    return np.arange(len(offsets), dtype=np.int64), np.array(offsets, np.int64)


def _part(head: bytes, where: str) -> tuple[int, int]:
    """Return the continuation flag and the length of a part of a record."""
    magic, word = struct.unpack("<II", head) if len(head) == 8 else (0, 0)
    if magic != MAGIC:
        raise ValueError(f"{where}: no RecordIO record starts here; the index or the file is damaged")
    if word >> 29 > 3:
        raise ValueError(f"{where}: continuation flag {word >> 29} does not exist; the file is damaged")
    return word >> 29, word & (1 << 29) - 1


def _content(file: int, at: int, where: str) -> tuple[bytes, int]:
    """Read a whole record; returns its content and the offset behind it."""
    size, pieces, total = os.fstat(file).st_size, [], 0
    while True:
        flag, length = _part(os.pread(file, 8, at), where)
        if at + 8 + length > size:
            raise ValueError(f"{where}: {length} bytes at {at} end beyond the file; copy the file again")
        if (flag in (2, 3)) != bool(pieces):
            raise ValueError(f"{where}: its parts are out of order; the index or the file is damaged")
        total += length
        check_size(where, total)
        pieces.append(os.pread(file, length, at + 8))
        at += 8 + length + (-length % 4)
        if flag in (0, 3):
            return struct.pack("<I", MAGIC).join(pieces), at


def _headers(
    rec: Path, keys: np.ndarray, offsets: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gather image sizes, flags, labels and end offsets of all records, a chunk at a time."""
    count, bytes_of = len(keys), np.memmap(rec, np.uint8, "r")
    sizes, flags, ends = (np.empty(count, np.int64) for _ in range(3))
    labels = np.empty(count, np.float64)
    for first in range(0, count, _CHUNK):
        part = slice(first, min(first + _CHUNK, count))
        places = np.minimum(offsets[part, None] + np.arange(36), size - 1)
        words = bytes_of[places].view("<u4")  # magic, length, flag, label, id, id, id2, id2, first label of an array
        flags[part] = words[:, 2]
        lengths = (words[:, 1] & (1 << 29) - 1).astype(np.int64)
        labels[part] = np.where(words[:, 2] > 0, words[:, 8], words[:, 3]).astype("<u4").view("<f4")
        sizes[part] = lengths - _IR_HEADER.size - 4 * flags[part]
        ends[part] = offsets[part] + 8 + lengths
        simple = (words[:, 0] == MAGIC) & (words[:, 1] >> 29 == 0) & (sizes[part] >= 0) & (ends[part] <= size)
        for k in first + np.flatnonzero(~simple):
            sizes[k], flags[k], labels[k], ends[k] = _header_slowly(rec, f"{rec} record {keys[k]}", int(offsets[k]))
    return sizes, flags, labels, ends + (-ends % 4)


def _header_slowly(rec: Path, where: str, at: int) -> tuple[int, int, float, int]:
    """Do as _headers for one record that has several parts, or say what is wrong with it."""
    with rec.open("rb") as file:
        content, end = _content(file.fileno(), at, where)
    if len(content) < _IR_HEADER.size:
        raise ValueError(f"{where}: {len(content)} bytes are too few for an image record")
    flag, label, _, _ = _IR_HEADER.unpack_from(content)
    image = len(content) - _IR_HEADER.size - 4 * flag
    if image < 0:
        raise ValueError(f"{where}: {flag} labels do not fit into {len(content)} bytes")
    if flag > 0:
        (label,) = struct.unpack_from("<f", content, _IR_HEADER.size)
    return image, flag, label, end


def _check_cover(rec: Path, idx: Path, keys: np.ndarray, offsets: np.ndarray, ends: np.ndarray, size: int) -> None:
    """Refuse records that overlap and warn where the index leaves bytes of the file out."""
    order = np.argsort(offsets, kind="stable")
    overlap = offsets[order][1:] < ends[order][:-1]
    if overlap.any():
        k = int(np.argmax(overlap))
        raise ValueError(f"{idx}: records {keys[order[k]]} and {keys[order[k + 1]]} overlap; delete it to scan {rec}")
    unused = size - int((ends - offsets).sum())
    if unused > 3:  # the last record may lack its padding
        warnings.warn(f"{idx} leaves out {unused} of {size} bytes of {rec}; its records are not read", stacklevel=3)
