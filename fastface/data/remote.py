"""A shard set at a URL -> the same set in a local folder, shard by shard, each there before it is needed."""

from __future__ import annotations

import errno
import functools
import math
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from fastface.data.columns import parse_meta
from fastface.data.download import Patience, Server, Stopped
from fastface.data.received import checked, column_fault, npy_bytes, shard_fault
from fastface.data.shard_cache import LOCKS, PART, CacheOptions, NameLocks, make_room
from fastface.durable import fsync_file, write_durably

THREADS = 4  # that fetch ahead: one stream of a far server is slower than the line
POLL_S = 0.05  # between two looks at a file that another process is fetching
ENDED = "reading was ended; make a new ShardReader to go on"


@runtime_checkable
class NamesShards(Protocol):
    """A plan that reads few shards at a time, as Windowed does."""

    def shards_of(self, step: int) -> Iterable[int]:
        """List the shards needed from `step` to the end of its window, then those of the next window."""
        ...


class RemoteSet:
    """Bring a set's index at once, its shards when asked for or shortly before, into a cache of bounded size.

    Everything is verified with what meta.json says, and meta.json with its own dataset_id. A shard in use is
    locked, so that no process of this machine deletes it; `follow` tells which are needed and lets go of the
    others. One loader at a time uses one RemoteSet; any number of processes share the cache.
    """

    def __init__(self, url: str, options: CacheOptions | None = None, patience: Patience | None = None) -> None:
        self.options = options or CacheOptions()
        self.server = Server(url, patience)
        self.url = self.server.url
        text = self.server.read("meta.json")
        self.meta = checked(parse_meta(text.decode("utf-8", "replace"), self.url), self.url)
        self.folder = self.options.root / self.meta["dataset_id"]
        try:
            (self.folder / "index").mkdir(parents=True, exist_ok=True)
            write_durably(self.folder / "meta.json", text)
            self._locks = NameLocks(self.folder / LOCKS)
        except OSError as error:
            raise ValueError(f"{self.folder}: {error.strerror}; give another data.remote_cache_folder") from error
        self._bytes = [shard["bytes"] for shard in self.meta["shards"]]
        self._changed = threading.Condition()  # guards all that follows
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._here: set[int] = set()  # shards in the cache that we have locked
        self._loose: set[int] = set()  # that we let go of for want of room, and that may still be mapped
        self._busy: set[int] = set()  # that one of our threads is bringing
        self._put_off: dict[int, float] = {}  # that our threads leave alone until this time.monotonic()
        self._full_until = 0.0  # time.monotonic() before which they do not look for room again
        self._wanted: dict[int, dict[int, None]] = {}  # the shards of each of the latest steps, soonest first
        for name, column in self.meta["columns"].items():
            fault = functools.partial(column_fault, column=column)
            self._obtain(f"index/{name}.npy", npy_bytes(column), fault)
            self._locks.release(f"index/{name}.npy")

    def shard(self, number: int) -> Path:
        """Return the local file of a shard, downloaded if need be, and keep it from being deleted."""
        while True:
            with self._changed:
                if number in self._here:
                    return self._path(number)
                if self._stop.is_set():
                    raise Stopped(f"{self.url}: {ENDED}")
                if number in self._busy:
                    self._changed.wait()
                    continue
                self._busy.add(number)
            self._bring(number, wait=True)

    def follow(self, plan: object, step: int, behind: int) -> list[int]:
        """Say that `step` comes next; return the shards let go of, to be unmapped.

        What it and the `behind` steps before it read is kept, and fetched in threads, soonest first; so is what the
        plan will read next, where there is room. A plan that does not say what it reads wants everything.
        """
        with self._changed:
            if self._stop.is_set():
                raise Stopped(f"{self.url}: {ENDED}")
            if step in self._wanted:
                return []
            shards = plan.shards_of(step) if isinstance(plan, NamesShards) else range(len(self._bytes))
            wanted = dict.fromkeys(int(number) for number in shards)
            if not self._wanted:
                self._check_limit(len(wanted), windowed=isinstance(plan, NamesShards))
                self._start_threads()
            last = max(step, *self._wanted) if self._wanted else step
            kept = {**self._wanted, step: wanted}
            self._wanted = {s: kept[s] for s in sorted(kept) if s >= last - behind}
            dropped = (self._here | self._loose).difference(*self._wanted.values())
            if dropped:
                self._let_go(dropped & self._here)
                self._loose -= dropped
                self._full_until = 0.0
            self._changed.notify_all()
        return sorted(dropped)

    def pause(self) -> None:
        """End all downloads, threads and locks until `resume`; who waits for a shard gets Stopped."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        with self._changed:
            self._threads.clear()
            self._let_go(set(self._here))

    def resume(self) -> None:
        """Allow downloads again."""
        with self._changed:
            self._stop = threading.Event()
            self._wanted.clear()

    def _path(self, number: int) -> Path:
        return self.folder / self.meta["shards"][number]["name"]

    def _part(self, number: int) -> Path:
        return self.folder / f"{self._path(number).name}.{self._bytes[number]}{PART}"

    def _let_go(self, shards: set[int], *, touch: bool = True) -> None:
        for number in shards:
            if touch and self._path(number).exists():
                os.utime(self._path(number))  # the order of deletion: last used, last deleted
            self._locks.release(self._path(number).name)
        self._here -= shards

    def _order(self) -> dict[int, None]:
        return {number: None for wanted in self._wanted.values() for number in wanted}

    def _check_limit(self, together: int, *, windowed: bool) -> None:
        """Refuse, before any work, a cache in which the plan cannot move on."""
        least = min(sum(self._bytes), together * max(self._bytes))
        if windowed:
            what, instead = f"two windows, {together} shards of at most {max(self._bytes):,} bytes,", "smaller windows"
        else:
            what, instead = "this plan reads shards in any order, so all of them", "data.plan windowed"
        if self.options.limit < least:
            raise ValueError(
                f"data.remote_cache_gb {self.options.gb:g} is too small for {self.url}: {what} must fit; set at least "
                f"{math.ceil(least / 1e6) / 1e3:g}, or use {instead}"
            )
        if not windowed and not all(self._path(number).exists() for number in range(len(self._bytes))):
            warnings.warn(
                f"{self.url}: {what} ({least / 1e9:.3f} GB) are waited for in the first batches; data.plan windowed "
                "starts with the first few",
                stacklevel=4,
            )

    def _start_threads(self) -> None:
        self._put_off.clear()
        while len(self._threads) < THREADS:
            thread = threading.Thread(target=self._work, name=f"fastface-fetch-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while (number := self._next()) is None and not self._stop.is_set():
                    self._changed.wait(0.2 if self._put_off or self._full_until else None)
                if number is None or self._stop.is_set():
                    return
                self._busy.add(number)
            try:
                if self._bring(number, wait=False):
                    continue
                until = time.monotonic() + 0.2  # another process has it
            except Stopped:
                return
            except Exception as error:
                warnings.warn(f"not fetched ahead: {error}", stacklevel=1)
                until = math.inf  # who needs it will try once more, and raise
            with self._changed:
                self._put_off[number] = until

    def _next(self) -> int | None:
        now = time.monotonic()
        if now < self._full_until:
            return None
        self._full_until = 0.0
        for number in self._order():
            if number not in self._here and number not in self._busy and self._put_off.get(number, 0.0) <= now:
                return number
        return None

    def _bring(self, number: int, *, wait: bool) -> bool:
        """Have a shard, marked busy by the caller, in the cache and locked; False where that would mean waiting."""
        shard, brought = self.meta["shards"][number], False
        fault = functools.partial(shard_fault, shard=shard)
        try:
            brought = self._obtain(shard["name"], shard["bytes"], fault, number, wait)
        finally:
            with self._changed:
                self._busy.discard(number)
                if brought:
                    self._here.add(number)
                if not wait and number not in self._order():  # it came too late
                    self._let_go({number} & self._here)
                self._changed.notify_all()
        return brought

    def _obtain(
        self, name: str, size: int, fault: Callable[[Path], str | None], number: int | None = None, wait: bool = True
    ) -> bool:
        """Have a file, locked against deletion; one process fetches it while others wait, if they do."""
        path, part = self.folder / name, self.folder / f"{name}.{size}{PART}"
        until = time.monotonic() + self.server.patience.deadline_s
        while True:
            if self._stop.is_set():
                raise Stopped(f"{self.url}: {ENDED}")
            lacking = 0
            if path.exists():
                if self._locks.share(name):
                    if path.exists():
                        os.utime(path)
                        return True
                    self._locks.release(name)
            elif self._locks.own(name):
                try:
                    if not path.exists():
                        lacking = 0 if number is None else self._lacking(number, ahead=not wait)
                        if not lacking:
                            self._download(name, size, fault, part)
                except BaseException:
                    self._locks.release(name)
                    raise
                if not lacking:
                    return self._locks.share(name)  # from owned to shared in one step: nobody comes between
                self._locks.release(name)
            if not wait:
                return False
            if lacking and time.monotonic() > until:
                raise ValueError(self._full(name, lacking))
            time.sleep(POLL_S)

    def _lacking(self, number: int, *, ahead: bool) -> int:
        """Make room for a shard; return how many bytes too few there are.

        What is fetched ahead takes no room from what is needed sooner; what is needed now takes it from all others.
        """
        with self._changed:
            order = list(self._order())
            sooner = order[: order.index(number)] if ahead and number in order else []
            coming = [shard for shard in sooner if shard not in self._here and not self._part(shard).exists()]
            keep = {*self._busy, *self._here, *(order if ahead else ())}
        bytes_needed = self._bytes[number] + sum(self._bytes[shard] for shard in coming)
        paths = [self._path(shard) for shard in keep]
        lacking = make_room(self.options.root, self.options.limit, self._part(number), bytes_needed, paths)
        if lacking:
            with self._changed:
                self._full_until = time.monotonic() + 1.0
                if not ahead and self._wanted:  # for the next attempt; what is mapped stays readable
                    self._loose |= self._here
                    self._let_go(set(self._here), touch=False)
        return lacking

    def _full(self, name: str, lacking: int) -> str:
        ours = sum(self._bytes[number] for number in self._here)
        return (
            f"no room for {self.url}/{name} in {self.options.root}: {lacking:,} bytes too few. Of data.remote_cache_gb "
            f"{self.options.gb:g} this process uses {ours:,} bytes, and other processes may use the rest, or the disk "
            "is full: raise data.remote_cache_gb, or give another data.remote_cache_folder"
        )

    def _download(self, name: str, size: int, fault: Callable[[Path], str | None], part: Path) -> None:
        try:
            for _ in range(2):
                self.server.download(name, size, part, self._stop)
                problem = fault(part)
                if problem is None:
                    fsync_file(part)
                    os.replace(part, self.folder / name)
                    return
                part.unlink()  # perhaps what an earlier attempt had left, perhaps the way: once more, from byte 0
        except OSError as error:
            free = shutil.disk_usage(self.folder).free
            more = f": {free:,} bytes are free; lower data.remote_cache_gb, or" if error.errno == errno.ENOSPC else ";"
            what = f"{part}: {error.strerror or error}{more} give another data.remote_cache_folder"
            raise ValueError(what) from error
        raise ValueError(
            f"{self.url}/{name} is damaged: all {size:,} bytes came twice, and {problem}. It was changed after the "
            "set was made, or uploaded badly: upload it again (or all of the set, meta.json last)"
        )
