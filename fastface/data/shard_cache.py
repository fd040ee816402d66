"""A folder for downloaded shards -> room in it: bounded in bytes, shared by the processes of a machine.

ROOT/<dataset id>/ holds one set: meta.json, index/*.npy, shards, `name.size.part` while one is on its way (its
full size is in its name, so that others count it), and `locks`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LOCKS = "locks"
PART = ".part"


class CacheOptions(NamedTuple):
    """Where shards from a server are kept, and how much of them."""

    folder: Path | None = None  # None: fastface/shards in XDG_CACHE_HOME, else in ~/.cache
    gb: float = 50.0  # 1e9 bytes, over all sets in the folder; index files come on top

    @property
    def root(self) -> Path:
        """The folder itself."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return self.folder or home / "fastface" / "shards"

    @property
    def limit(self) -> int:
        """Bytes."""
        return int(self.gb * 1e9)


class NameLocks:
    """Locks on names, of one file: shared by those who use what a name stands for, or owned by who changes it.

    Byte hash(name) of the file is locked through its open description (Linux): no handle per name, two objects
    of one process exclude each other, own to shared is one step, and the system drops all when the process
    ends, however it ends: none is ever stale.
    """

    def __init__(self, path: Path) -> None:
        if not hasattr(fcntl, "F_OFD_SETLK"):
            raise ValueError("shards on a server need Linux (F_OFD_SETLK): copy the set to this machine instead")
        self._file = open(path, "a+b")

    def share(self, name: str) -> bool:
        """Take or keep `name` beside other users; False while someone owns it."""
        return self._set(fcntl.F_RDLCK, name)

    def own(self, name: str) -> bool:
        """Take `name` alone; False while anyone else has it."""
        return self._set(fcntl.F_WRLCK, name)

    def release(self, name: str) -> None:
        """Let go of `name`."""
        self._set(fcntl.F_UNLCK, name)

    def _set(self, kind: int, name: str) -> bool:
        byte = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:7], "little")
        flock = struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)  # struct flock of 64-bit Linux
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, flock)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: held by another
            return False
        except OSError as error:
            raise ValueError(
                f"{self._file.name} cannot be locked ({error}): set data.remote_cache_folder to a local disk"
            ) from error
        return True

    def close(self) -> None:
        """Let go of everything."""
        self._file.close()


class _Entry(NamedTuple):
    used_ns: int
    bytes: int
    path: Path
    shard: str  # its name in its set


def make_room(root: Path, limit: int, incoming: Path, bytes_needed: int, keep: Collection[Path]) -> int:
    """Delete the shards used longest ago until `bytes_needed` fit; return how many bytes too few there are.

    They fit when the cache stays within its limit, and on the disk. Shards in `keep`, and those that any process has
    locked, stay. `incoming` is created, empty, when there is room: from then on other processes count it. One process
    at a time does this. A file deleted here that someone still has mapped stays readable for him, as on any Unix.
    """
    with _alone(root):
        entries = sorted(_entries(root, incoming))
        held = sum(entry.bytes for entry in entries)
        excess = bytes_needed - min(limit - held, shutil.disk_usage(root).free)
        kept = {str(path) for path in keep}
        for entry in entries:
            if excess <= 0:
                break
            if str(entry.path.with_name(entry.shard)) not in kept and _delete(entry):
                excess -= entry.bytes
        if excess <= 0:
            incoming.touch()
        return max(excess, 0)


def _entries(root: Path, incoming: Path) -> Iterator[_Entry]:
    for path in root.glob(f"{'[0-9a-f]' * 64}/shard-*"):  # what is not ours is not touched
        if path == incoming or path.suffix not in (".tar", PART):
            continue
        try:
            stat = path.stat()
        except FileNotFoundError:  # renamed or deleted just now
            continue
        if path.suffix == PART:
            shard, size = path.name.removesuffix(PART).rsplit(".", 1)
            yield _Entry(stat.st_mtime_ns, int(size), path, shard)
        else:
            yield _Entry(stat.st_mtime_ns, stat.st_size, path, path.name)


def _delete(entry: _Entry) -> bool:
    locks = NameLocks(entry.path.parent / LOCKS)
    try:
        if not locks.own(entry.shard):
            return False
        entry.path.unlink(missing_ok=True)
        return True
    finally:
        locks.close()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with open(root / LOCKS, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # held for as long as a listing and some deletions take
        yield
