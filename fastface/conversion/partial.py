"""A conversion's working folder NAME.partial: locked, resumable, and renamed to NAME when all is in it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastface.durable import fsync_folder, write_durably

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageError(ValueError):
    """A disk that is full, read-only or in use by someone else."""

    exit_code = 4


class Partial:
    """The folders of one conversion: `made` becomes `out`, `notes` tells which shards are finished."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.root = out.with_name(out.name + ".partial")
        self.made = self.root / "made"
        self.notes = self.root / "notes"
        self.plan = self.root / "plan.json"
        self.held: list[int] = []  # file handles of our locks
        self.needed: Callable[[], float] = float  # estimates the bytes still to be written
        self._alone = False

    def probe(self) -> None:
        """Fail now if `out` is there already or cannot be written, not after hours of work."""
        if self.out.exists() or self.out.is_symlink():
            raise StorageError(
                f"{self.out} exists already and is never overwritten: delete it (rm -r {self.out}) or choose "
                "another --out"
            )
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            trial = self.out.parent / f".{self.out.name}.{os.getpid()}.probe"  # other parts may try just now
            write_durably(trial, bytes(4096))
            trial.unlink()
        except OSError as error:
            raise StorageError(f"cannot write to {self.out.parent}: {error}; choose another --out") from None

    @contextmanager
    def lock(self, part: tuple[int, int] | None) -> Iterator[None]:
        """Keep others out while we work: everyone if `part` is None, else whoever makes the same part.

        The system drops these locks when the process ends, however it ends, so none is ever stale.
        """
        self.root.mkdir(exist_ok=True)
        try:
            self._take("lock", shared=part is not None)
            if part is not None:
                self._take(f"lock-{part[0]}-of-{part[1]}", shared=False)
            self._alone = part is None
            if self.out.exists():  # finished by another while we waited for nothing
                raise StorageError(f"{self.out} was completed by another process meanwhile")
            yield
        finally:
            if self._alone and self.root.exists() and not self.plan.exists():
                shutil.rmtree(self.root)  # nothing was planned, such as after an input that could not be read
            for handle in self.held:
                os.close(handle)
            self.held.clear()

    def _take(self, name: str, *, shared: bool) -> None:
        path = self.root / name
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StorageError(f"{path} cannot be locked ({error}): convert to a local disk") from None
            raise StorageError(
                f"{self.out} is being made by another process ({self._holders()}): wait for it to end, or "
                "choose another --out"
            ) from None
        self.held.append(handle)
        if not shared:
            os.truncate(handle, 0)
            os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _holders(self) -> str:
        texts = []
        for path in sorted(self.root.glob("lock*")):
            with open(path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:  # held: what it says is true
                    part = path.name.removeprefix("lock").replace("-", " ").strip()
                    texts.append(path.read_text("utf-8", "replace") + (f", part {part}" if part else ""))
        return "; ".join(texts) or "which has not said its name"

    def agree(self, plan: dict[str, Any]) -> bool:
        """Write the plan, or compare it with the one found; return True where one was found.

        ValueError where they differ: finished shards could not be used together with new ones.
        """
        if self.plan.exists():
            found = json.loads(self.plan.read_text("ascii"))
            if changes := list(_differences(found, json.loads(json.dumps(plan)))):
                shown = "\n  ".join(changes[:10])
                raise ValueError(
                    f"{self.root} holds an unfinished conversion of something else:\n  {shown}\n"
                    f"run again as before to finish it, or delete it to start anew (rm -r {self.root})"
                )
            return True
        write_durably(self.plan, json.dumps(plan, indent=1).encode("ascii"))
        return False

    def sweep(self) -> None:
        """Delete what killed processes left half-written, unless another part may be at work."""
        if self._alone:
            for path in self.root.rglob("*.tmp"):
                path.unlink()

    def publish(self) -> None:
        """Rename the complete folder to `out`: from then on it is there, whole, whatever happens."""
        for folder, _, _ in os.walk(self.made):
            fsync_folder(Path(folder))
        os.rename(self.made, self.out)
        fsync_folder(self.out.parent)
        shutil.rmtree(self.root)

    @contextmanager
    def storage(self) -> Iterator[None]:
        """Turn errors of the system into ones that say what is kept and what to do."""
        try:
            yield
        except OSError as error:
            text = f"{error.strerror or error} while writing to {self.root}"
            if error.errno in FULL:
                text += f": about {self.needed():,.0f} bytes more are needed, {self.free():,} are free"
            raise StorageError(f"{text}; finished shards are kept, so the same command goes on") from error

    def free(self) -> int:
        """Bytes free on the disk of `out`."""
        return shutil.disk_usage(self.root if self.root.exists() else self.out.parent).free


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield f"{where} was {json.dumps(old)[:80]}, now {json.dumps(new)[:80]}"
