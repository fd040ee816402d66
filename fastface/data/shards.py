"""Prepared images -> tar shards, and records of an index -> encoded bytes."""

from __future__ import annotations

import hashlib
import mmap
import os
import resource
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastface.data.damage import BadImage, describe

if TYPE_CHECKING:
    from fastface.data.index import Index

BLOCK = 512  # POSIX.1-1988 ustar: headers and padding come in blocks of 512 bytes
END = bytes(2 * BLOCK)  # two zero blocks end an archive
CHECK = "python tools/check_shards.py"
SPARE_FILES = 512  # open files beside the shards: other sets, libraries, logs


def shard_name(number: int) -> str:
    """Name shard `number` as webdataset's ShardWriter pattern shard-%06d.tar does."""
    return f"shard-{number:06d}.tar"


def member_name(key: int, extension: str) -> str:
    """Name a member: everything after the first dot is what webdataset and DALI call the extension."""
    return f"{key:09d}.{extension}"


def padded(length: int) -> int:
    """Round a length in bytes up to whole tar blocks."""
    return -(-length // BLOCK) * BLOCK


# webdataset.TarWriter tells no offsets, and tarfile's bytes are its own business (device fields changed),
# while a shard must have the same bytes wherever it is made: so the 512 bytes are written here, in 2 us,
# where TarInfo.tobuf takes 27 (one core, November 2026). Tests read with tarfile, webdataset and DALI.
_BEFORE_SIZE = b"0000644\0" + b"0000000\0" * 2  # mode, uid, gid
_AFTER_SIZE = b"0" * 11 + b"\0"  # mtime
_AFTER_SUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)  # regular file, magic, empty owner, device and prefix
_FIXED_SUM = sum(_BEFORE_SIZE + _AFTER_SIZE + _AFTER_SUM) + 8 * ord(" ")


def tar_header(name: str, length: int) -> bytes:
    """Build the ustar header (512 bytes) of a regular file of `length` bytes, dated 0 and owned by uid 0."""
    encoded, size = name.encode("ascii"), b"%011o\0" % length
    assert len(encoded) < 100, name
    assert len(size) == 12, length
    checksum = b"%06o\0 " % (_FIXED_SUM + sum(encoded) + sum(size))
    return encoded.ljust(100, b"\0") + _BEFORE_SIZE + size + _AFTER_SIZE + checksum + _AFTER_SUM


def label_blocks(key: int, label: int) -> bytes:
    """Build the two blocks of a .cls member: always 1,024 bytes, so relabelling never moves an image."""
    text = b"%d" % label
    return tar_header(member_name(key, "cls"), len(text)) + text.ljust(BLOCK, b"\0")


class ShardWriter:
    """Write one shard in order to `path`, hashing as it goes; `close` makes it durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0  # bytes written so far
        self._hash = hashlib.sha256()
        self._file = open(path, "wb", buffering=1 << 20)

    def add(self, key: int, data: bytes, extension: str, label: int) -> int:
        """Append an image and its label; return the byte offset of the image in the tar."""
        offset = self.size + BLOCK
        self._write(tar_header(member_name(key, extension), len(data)))
        self._write(data + bytes(padded(len(data)) - len(data)))
        self._write(label_blocks(key, label))
        return offset

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> tuple[int, str]:
        """End the archive and fsync it; return its size in bytes and its sha256."""
        self._write(END)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self.size, self._hash.hexdigest()

    def abandon(self) -> None:
        """Close and delete what was written, whatever state it is in."""
        try:
            self._file.close()  # flushes, which fails again on a full disk
        except OSError:
            pass
        self.path.unlink(missing_ok=True)


class _Mapped(NamedTuple):
    """A shard in memory, and what identified its file when it was opened."""

    data: np.ndarray  # uint8 [bytes of the shard]
    state: tuple[int, int, int] | None  # inode, size, mtime_ns; None where there is no file
    wrong: str  # what is wrong with the whole file, or ""


class ShardReader:
    """Give the encoded bytes of records; every shard is mapped once, when first needed.

    `check_crc` compares each image with the index. What cannot be read raises a ValueError naming shard, member and
    offset; a `tolerant` reader raises BadImage instead, and takes what a damaged shard still holds.
    Views stay valid after `close`: they hold on to the mapping. A reader is not to be shared over a fork.
    """

    def __init__(self, index: Index, *, check_crc: bool = False, tolerant: bool = False) -> None:
        self.index = index
        self.check_crc = check_crc
        self.tolerant = tolerant
        self._mapped: list[_Mapped | None] = [None] * index.num_shards
        _allow_open_files(index)
        self.resume()

    def view(self, i: int) -> np.ndarray:
        """Return the encoded bytes of record i: uint8 [length], read-only, not copied."""
        return self.views(np.array([i]))[0]

    def views(self, ids: np.ndarray) -> list[np.ndarray]:
        """Return `view` of each record; faster, as the index is read once for all."""
        views, check = [], self.check_crc
        located = (column.tolist() for column in self.index.locate(ids))
        for row, (shard, offset, length, crc32) in enumerate(zip(*located, strict=True)):
            mapped = self._mapped[shard] or self._map(shard)
            data = mapped.data[offset : offset + length]
            if len(data) < length or (check and zlib.crc32(data.data) != crc32):
                self._refuse(row, int(ids[row]), mapped, data, length, crc32)
            views.append(data)
        return views

    def _refuse(self, row: int, record: int, mapped: _Mapped, data: np.ndarray, length: int, crc32: int) -> None:
        reason = f"crc32 is {zlib.crc32(data.data):08x}, the index says {crc32:08x}: the file is damaged"
        if len(data) < length:
            reason = mapped.wrong
        elif mapped.wrong:
            reason = f"{reason} ({mapped.wrong})"
        if self.tolerant:
            raise BadImage(row, reason)
        bad = describe(self.index, record, reason)
        raise ValueError(f"{bad}; run `{CHECK} {self.index.path}` and make the shards again")

    def _map(self, shard: int) -> _Mapped:
        path, expected = self.index.shard_path(shard), self.index.shard_bytes(shard)
        wrong = ""
        try:
            with open(path, "rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_size != expected:
                    wrong = f"{path} has {stat.st_size:,} bytes, its index says {expected:,}: it was changed or cut"
                data = np.empty(0, np.uint8)
                if stat.st_size:  # frombuffer, not np.memmap: slicing a memmap costs 2.3 us, an ndarray 0.3 us
                    data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
            mapped = _Mapped(data, (stat.st_ino, stat.st_size, stat.st_mtime_ns), wrong)
        except FileNotFoundError:
            wrong = f"{path} is missing"
            mapped = _Mapped(np.empty(0, np.uint8), None, wrong)
        if wrong and not self.tolerant:
            raise ValueError(f"{wrong}; run `{CHECK} {self.index.path}`, put it back or make the shards again")
        self._mapped[shard] = mapped
        return mapped

    def follow(self, plan: object, step: int, behind: int) -> None:
        """Tell a set on a server that `step` of a plan comes next; unmap what neither it nor those just before need."""
        if self.index.remote is not None:
            for shard in self.index.remote.follow(plan, step, behind):
                self._mapped[shard] = None

    def pause(self) -> None:
        """Break off downloads of a set on a server: nobody waits for them, until `resume`."""
        if self.index.remote is not None:
            self.index.remote.pause()

    def resume(self) -> None:
        """Allow downloads again, and `follow`."""
        if self.index.remote is not None:
            self.index.remote.resume()

    def check_unchanged(self) -> None:
        """Raise a ValueError naming the first shard whose file was replaced, cut or deleted since mapped.

        One stat per mapped shard (about 1 us): cheap enough for once an epoch, and after any decoding error.
        Reading beyond the end of a file that was cut while mapped would kill the process (SIGBUS).
        """
        if self.index.remote is not None:
            return  # the cache only ever deletes whole files, which stay as they are where they are mapped
        for shard, mapped in enumerate(self._mapped):
            if mapped is None or mapped.state is None:
                continue
            path = self.index.shard_path(shard)
            try:
                stat = path.stat()
            except FileNotFoundError:
                raise ValueError(f"{path} was deleted while in use: put it back and start again") from None
            if (stat.st_ino, stat.st_size, stat.st_mtime_ns) != mapped.state:
                raise ValueError(f"{path} was changed while in use; run `{CHECK} {self.index.path}` and start again")

    def close(self) -> None:
        """Let go of all shards; those that views still use stay mapped until the views go."""
        self.pause()
        self._mapped = [None] * self.index.num_shards

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _allow_open_files(index: Index) -> None:
    """Raise this process's own limit of open files to what is allowed, where the shards need it.

    Python keeps a file open with every mapping (until 3.13's trackfd), and the usual limit is 1,024.
    """
    needed = index.num_shards + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"{index.path} has {index.num_shards:,} shards and this process may open {hard:,} files: "
            f"allow {needed:,} (ulimit -n), or make larger shards (make_shards.py --shard-size)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def relabel(source: Path, target: Path, labels: Iterable[tuple[int, int]]) -> tuple[int, str]:
    """Copy a shard with new labels; `labels` holds (byte offset of the .cls header, new label) in order.

    Returns size and sha256 of the copy, which is fsynced. Size and offsets stay as they are.
    """
    data = bytearray(source.read_bytes())
    for offset, label in labels:
        key = int(data[offset : offset + 9])
        data[offset : offset + 2 * BLOCK] = label_blocks(key, label)
    with open(target, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(data), hashlib.sha256(data).hexdigest()
