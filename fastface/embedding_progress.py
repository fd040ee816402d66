"""Batches of rows in any order -> embeddings.npy, with what is done and what failed kept durably until all is there."""

import csv
import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.damage import Bad
from fastface.data.embeddings import open_embeddings
from fastface.durable import fsync_file, fsync_folder, write_durably

UNFINISHED = "unfinished"
"""Folder inside that of the embeddings: identity.json, done.bin (a byte a batch), failed-*.csv, lock."""


class Progress:
    """One process's part in filling embeddings.npy; several processes write to the same files, each its own batches.

    `put` writes a batch, `flush` makes what was put durable and only then marks it done: after a kill at any moment
    a batch that is marked is whole, and one that is not is computed again.
    """

    def __init__(self, out: Path, num_rows: int, width: int, batch_size: int) -> None:
        self.folder, self.width, self.batch_size = out / UNFINISHED, width, batch_size
        self.num_rows, self.num_batches = num_rows, -(-num_rows // batch_size)
        self._start = _header_bytes(out / "embeddings.npy", (num_rows, width))
        self._rows = os.open(out / "embeddings.npy", os.O_RDWR)
        self._done = os.open(self.folder / "done.bin", os.O_RDWR)
        self._put: list[int] = []
        self._failed: list[Bad] = []

    def done(self) -> np.ndarray:
        """Say which batches are done, by any process; bool [num_batches]."""
        return np.frombuffer(os.pread(self._done, self.num_batches, 0), bool)

    def rows_done(self) -> int:
        """Count the rows of the batches that are done; the last batch may be a short one."""
        done = self.done()
        return int(done.sum()) * self.batch_size - bool(done[-1]) * (self.num_batches * self.batch_size - self.num_rows)

    def put(self, batch: int, rows: np.ndarray, failed: Iterable[Bad]) -> None:
        """Write the rows of a batch, float32 [B, width], and remember which of its images failed."""
        assert rows.shape == (min(self.batch_size, self.num_rows - batch * self.batch_size), self.width)
        data = memoryview(np.ascontiguousarray(rows, "<f4").data).cast("B")
        at = self._start + batch * self.batch_size * self.width * 4
        while data:  # a write may be cut short
            written = os.pwrite(self._rows, data, at)
            data, at = data[written:], at + written
        self._put.append(batch)
        self._failed += failed

    @property
    def waiting(self) -> int:
        """How many rows were put since the last flush, the last batch counted as a whole one."""
        return len(self._put) * self.batch_size

    def flush(self) -> None:
        """Make durable what was put, then mark it done."""
        if not self._put:
            return
        os.fsync(self._rows)
        if self._failed:
            write_durably(self.folder / f"failed-{self._put[0]:012d}.csv", _csv(self._failed))
        for batch in self._put:
            os.pwrite(self._done, b"\1", batch)
        os.fsync(self._done)
        self._put, self._failed = [], []

    def close(self) -> None:
        os.close(self._rows)
        os.close(self._done)


def already_there(out: Path, identity: Mapping[str, Any]) -> bool:
    """Say whether a folder holds finished embeddings of this identity; ValueError where they are others, or no such."""
    if (out / "meta.json").is_file():
        _compare(out, open_embeddings(out).meta, identity)
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)  # a kill between the last two steps leaves it
        return True
    saved = out / UNFINISHED / "identity.json"
    if saved.is_file():
        _compare(out, json.loads(saved.read_text(encoding="utf-8")), identity)
    elif out.exists() and not (
        out.is_dir() and {path.name for path in out.iterdir()} <= {UNFINISHED, "embeddings.npy"}
    ):
        raise ValueError(f"{out} is there and holds something else than embeddings: choose a new folder with --out")
    return False


def prepare(out: Path, identity: Mapping[str, Any], num_rows: int, width: int, batch_size: int, others: int) -> None:
    """Make the files that processes fill, with all their room, or leave those of an earlier start as they are.

    others: bytes that labels and names will need beside the rows. Raises OSError where the disk has too little.
    """
    if (out / UNFINISHED / "identity.json").is_file():
        return
    shape = num_rows, width
    needed, free = 4 * num_rows * width + others, shutil.disk_usage(out).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{out} has {free / 1e9:.1f} GB free, and {num_rows:,} embeddings of {width} values need "
            f"{needed / 1e9:.1f} GB: free space, or choose another folder with --out",
        )
    file = out / "embeddings.npy"
    file.unlink(missing_ok=True)
    with open(file, "wb") as rows:
        np.lib.format.write_array_header_1_0(rows, {"descr": "<f4", "fortran_order": False, "shape": shape})
        rows.flush()
        if hasattr(os, "posix_fallocate"):  # not on macOS; taken now, the room is there at the end
            os.posix_fallocate(rows.fileno(), 0, rows.tell() + 4 * num_rows * width)
        else:
            rows.truncate(rows.tell() + 4 * num_rows * width)
    write_durably(out / UNFINISHED / "done.bin", bytes(-(-num_rows // batch_size)))
    fsync_file(file)
    fsync_folder(out)
    write_durably(out / UNFINISHED / "identity.json", json.dumps(identity, indent=1).encode())


def collect_failed(out: Path) -> list[Bad]:
    """Read what all processes noted as failed, by record; a batch computed twice counts once."""
    found: dict[int, Bad] = {}
    for path in sorted((out / UNFINISHED).glob("failed-*.csv")):
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            for line in csv.DictReader(file):
                bad = Bad(**{**line, "record": int(line["record"]), "offset": int(line["offset"])})
                found[bad.record] = bad
    return [found[record] for record in sorted(found)]


def write_failed(out: Path, failed: Iterable[Bad]) -> None:
    """Write failed.csv: a line for each image without an embedding, and why."""
    write_durably(out / "failed.csv", _csv(failed))


def _csv(failed: Iterable[Bad]) -> bytes:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Bad._fields)
    writer.writerows(failed)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _header_bytes(file: Path, shape: tuple[int, int]) -> int:
    """Return where the rows of an .npy file begin, having checked what it is."""
    mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    if mapped.shape != shape or mapped.dtype.str != "<f4":
        raise ValueError(f"{file} is {mapped.dtype.str} {mapped.shape}, not <f4 {shape}: delete its folder")
    return int(mapped.offset)


def _compare(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = {key: (before.get(key), value) for key, value in now.items() if before.get(key) != value}
    if changed:
        table = "".join(f"\n  {key}: {a} -> {b}" for key, (a, b) in changed.items())
        raise ValueError(
            f"{out} holds embeddings of something else:{table}\n"
            "Choose another folder with --out, or give the same model, shards and options."
        )
