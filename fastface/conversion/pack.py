"""Some records of a raw source -> one finished shard and a note of what is in it.

Shard k holds the records at positions [k * size, (k + 1) * size) of a set's order, and a member's key is its
position: so a shard depends on input, options and k alone, and any number of processes make the same bytes.
"""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastface.conversion.annotate import Annotations
from fastface.conversion.faces import WIDTH, Alignment, Face, Finder, choose, face_of_source, prepare_face
from fastface.conversion.steady import ClipFaces
from fastface.data.images import ImageSpec, Prepared, Rejected, load_rgb, prepare
from fastface.data.shards import ShardWriter, shard_name
from fastface.durable import fsync_folder, write_durably

if TYPE_CHECKING:
    from fastface.data.sources import Source

PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EINTR,
}  # network disks: worth another try
OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # this machine's trouble, never a bad image
EVERY = 16  # images between two reports of progress
PACKED = {  # what a task notes of each image; the rest follows from the source
    "record": "<i8",
    "offset": "<i8",
    "length": "<i4",
    "crc32": "<u4",
    "width": "<u2",
    "height": "<u2",
    "kept": "|u1",
}


class Stopped(Exception):
    """Raised in a worker when the conversion was told to stop."""


@dataclass(frozen=True)
class Job:
    """All that making the shards of one set (a dataset, or one split of it) takes."""

    source: Source
    order: np.ndarray  # int64 [N]: the record at each position
    shard_size: int  # positions per shard
    spec: ImageSpec
    boxes: bool  # crop each image to the source's box
    shards: Path  # folder of the tars
    notes: Path  # folder of the notes that mark a shard as finished
    align: Alignment | None = None  # cut out faces
    finder: Finder | None = None  # that a detector finds
    clips: ClipFaces = field(default_factory=ClipFaces)  # where they are, with align.steady

    @property
    def num_shards(self) -> int:
        return -(-len(self.order) // self.shard_size)

    def positions(self, shard: int) -> range:
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, len(self.order)))

    def note(self, shard: int) -> Path:
        return self.notes / f"shard-{shard:06d}.npz"

    def finished(self, shard: int) -> bool:
        """Tell whether a shard is complete; its note is written after the shard itself was made durable."""
        if not self.note(shard).exists():
            return False
        tar = self.shards / shard_name(shard)
        return (tar.stat().st_size if tar.exists() else 0) == read_note(self, shard).bytes


class Note(NamedTuple):
    """What is known of a finished shard."""

    columns: dict[str, np.ndarray]  # see PACKED (a row per image) and NOTED of annotate.py; "face" with --align
    bytes: int  # of the tar; 0 where every image was rejected: then there is no tar
    sha256: str
    rejects: list[list[str]]  # rows of source name, reason, detail
    lost: list[list[str]]  # such rows of boxes that were left out of an image that is kept
    faces: dict[str, int]  # boxes and landmarks, counted by what became of them


class Counters:
    """Progress shared by all processes, in images, and the flag that stops them."""

    def __init__(self, context: Any = multiprocessing, show: Callable[[int, int], None] | None = None) -> None:
        self.show = show  # called on every report; for use within one process
        self.done = context.Value("q", 0)
        self.rejected = context.Value("q", 0)
        self.stop = context.Value("b", 0, lock=False)

    def add(self, done: int, rejected: int) -> None:
        with self.done.get_lock():
            self.done.value += done
        with self.rejected.get_lock():
            self.rejected.value += rejected
        if self.show is not None:
            self.show(*self.read())
        if self.stop.value:
            raise Stopped

    def read(self) -> tuple[int, int]:
        """Return both counts; without their locks, which a killed worker may hold for ever."""
        return self.done.get_obj().value, self.rejected.get_obj().value


def prepare_record(job: Job, record: int, *, look: bool = True) -> Prepared:
    """Read, check and normalise one image; raise Rejected with a reason where that cannot be done.

    Without `look` no face is looked for: to estimate sizes, in a process that is to stay free of detectors.
    """
    data = _read(job.source, record)
    if job.align is not None and look:
        return prepare_face(data, job.spec, job.align, lambda image: _face(job, record, data, image))
    box = job.source.boxes[record] if job.boxes and job.source.boxes is not None else None
    return prepare(data, job.spec, box)


def _face(job: Job, record: int, data: bytes, image: np.ndarray) -> Face | None:
    """Find the face of a record: by the detector, else where the source says; with `steady` that of its clip."""
    assert job.align is not None
    if not job.align.steady:
        return _look(job, record, data, image)

    def look_at(other: int) -> Face | None:
        if job.finder is None:
            return _look(job, other, b"", image)  # its pixels are not needed
        try:
            found = data if other == record else _read(job.source, other)
            return _look(job, other, found, image if other == record else load_rgb(found))
        except Rejected:  # which is noted when its own turn comes
            return None

    return job.clips.of(job.source, record, look_at)


def _look(job: Job, record: int, data: bytes, image: np.ndarray) -> Face | None:
    assert job.align is not None
    if job.finder is None:
        return face_of_source(job.source, record, job.align)
    return choose(job.finder.find(data, image), job.align, *image.shape[1::-1])


def _read(source: Source, record: int, attempts: int = 3) -> bytes:
    for attempt in range(1, attempts):
        try:
            return source.read(record)
        except OSError as error:
            if error.errno not in PASSING:
                break
            time.sleep(0.1 * 4**attempt)
        except ValueError:
            break
    try:
        return source.read(record)
    except Rejected:
        raise
    except OSError as error:
        if error.errno in OURS:
            raise
        raise Rejected("unreadable", str(error)) from None
    except ValueError as error:
        raise Rejected("unreadable", str(error)) from None


def pack_shard(job: Job, shard: int, counters: Counters) -> None:
    """Make one shard and its note; neither exists under its name before it is complete and durable."""
    unique = f"{multiprocessing.current_process().pid}-{shard:06d}.tmp"
    writer = ShardWriter(job.shards / unique)
    rows: list[tuple[int, ...]] = []
    faces: list[np.ndarray] = []
    rejects: list[list[str]] = []
    annotations = Annotations(job.source)
    done = seen = 0
    try:
        for position in job.positions(shard):
            record = int(job.order[position])
            try:
                image = prepare_record(job, record)
            except Rejected as error:
                rejects.append([job.source.name(record), error.reason, str(error)])
            else:
                data = image.data
                offset = writer.add(position, data, image.extension, int(job.source.labels[record]))
                rows.append((record, offset, len(data), zlib.crc32(data), image.width, image.height, int(image.kept)))
                annotations.add(record, image)
                faces += [] if image.face is None else [image.face]
            done += 1
            if done % EVERY == 0:
                counters.add(EVERY, len(rejects) - seen)
                seen = len(rejects)
        if rows:
            size, sha256 = writer.close()
            os.replace(writer.path, job.shards / shard_name(shard))
            fsync_folder(job.shards)
        else:  # a tar without members makes DALI's reader give a sample of 0 bytes, so there is none
            writer.abandon()
            size, sha256 = 0, ""
        columns = dict(zip(PACKED, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(PACKED, ())
        columns = {name: np.array(columns[name], kind) for name, kind in PACKED.items()} | annotations.columns()
        if job.align is not None:
            columns["face"] = np.array(faces, np.float32).reshape(len(rows), WIDTH)
        note = Note(columns, size, sha256, rejects, annotations.lost, dict(annotations.counts))
        _write_note(job, shard, note)
    except BaseException:
        writer.abandon()
        raise
    finally:
        if job.finder is not None:
            job.finder.save()
    counters.add(done % EVERY, len(rejects) - seen)


def _write_note(job: Job, shard: int, note: Note) -> None:
    told = {key: value for key, value in note._asdict().items() if key != "columns"}
    rest = json.dumps(told).encode("ascii")
    packed = io.BytesIO()
    np.savez(packed, rest=np.frombuffer(rest, np.uint8), **note.columns)  # pyright: ignore[reportArgumentType]
    write_durably(job.note(shard), packed.getvalue())


def read_note(job: Job, shard: int) -> Note:
    """Read the note of a finished shard."""
    with np.load(job.note(shard), allow_pickle=False) as stored:
        rest = json.loads(stored["rest"].tobytes())
        columns = {name: stored[name] for name in stored.files if name != "rest"}
    return Note(columns=columns, **rest)
