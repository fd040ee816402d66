"""A shard set at a URL -> the same set in a local folder, shard by shard, each there before it is needed."""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from fastface.data.download import Patience, Server, Stopped
from fastface.data.index import parse_meta
from fastface.data.received import checked, column_fault, npy_bytes, shard_fault
from fastface.data.shard_cache import LOCKS, PART, CacheOptions, NameLocks, make_room
from fastface.durable import fsync_file, write_durably

THREADS = 4  # that fetch ahead: one stream of a far server is slower than the line
SCAN = 1000  # steps looked ahead in one call
POLL_S = 0.05  # between two looks at a file that another process is fetching


@runtime_checkable
class NamesShards(Protocol):
    """A plan that says which shards a step reads; steps near each other must read the same few."""

    def shards_of(self, step: int) -> Iterable[int]: ...


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
        (self.folder / "index").mkdir(parents=True, exist_ok=True)
        write_durably(self.folder / "meta.json", text)
        self._locks = NameLocks(self.folder / LOCKS)
        self._bytes = [shard["bytes"] for shard in self.meta["shards"]]
        self._changed = threading.Condition()  # guards all that follows
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._here: set[int] = set()  # shards in the cache that we have locked
        self._busy: set[int] = set()  # that one of our threads is bringing
        self._put_off: dict[int, float] = {}  # that prefetching leaves alone until this time.monotonic()
        self._recent: deque[set[int]] = deque(maxlen=2)  # shards of the latest two groups of steps
        self._ahead: dict[int, None] = {}  # shards of later steps, in order
        self._step = self._horizon = -1  # first step not yet followed; first step not yet looked at
        for name, column in self.meta["columns"].items():
            self._obtain(f"index/{name}.npy", npy_bytes(column), lambda path, c=column: column_fault(path, c))
            self._locks.release(f"index/{name}.npy")

    def shard(self, number: int) -> Path:
        """Return the local file of a shard, downloaded if need be, and keep it from being deleted.

        ValueError names URL, byte and attempt where the server fails, or the setting where the cache is full.
        """
        while True:
            with self._changed:
                if number in self._here:
                    return self._path(number)
                if self._stop.is_set():
                    raise Stopped(f"{self.url}: reading has ended")
                if number in self._busy:
                    self._changed.wait()
                    continue
                self._busy.add(number)
            self._bring(number, wait=True)

    def follow(self, plan: object, first: int, last: int, stop: int | None = None) -> list[int]:
        """Say that steps first..last-1 come next, up to `stop`; return the shards let go of, to be unmapped.

        Shards of these steps and of the group before are kept; those of later steps are fetched in threads, as
        many bytes as the present ones have and half as many again, where they fit.
        """
        steps = plan.shards_of if isinstance(plan, NamesShards) else lambda _: range(len(self._bytes))
        with self._changed:
            if self._stop.is_set():
                raise Stopped(self.url)
            if first != self._step:
                self._recent.clear()
                self._ahead.clear()
                self._horizon = last
            self._recent.append({int(shard) for step in range(first, last) for shard in steps(step)})
            needed = set().union(*self._recent)
            if first != self._step:
                self._check_limit(needed, windowed=isinstance(plan, NamesShards))
                self._start_threads()
            self._step = last
            self._look_ahead(steps, needed, last + SCAN if stop is None else min(last + SCAN, stop))
            dropped = self._here - needed - set(self._ahead)
            self._let_go(dropped)
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
            self._step = -1

    def _path(self, number: int) -> Path:
        return self.folder / self.meta["shards"][number]["name"]

    def _let_go(self, shards: set[int]) -> None:
        for number in shards:
            if self._path(number).exists():
                os.utime(self._path(number))  # the order of deletion: last used, first kept
            self._locks.release(self._path(number).name)
        self._here -= shards

    def _size(self, shards: Iterable[int]) -> int:
        return sum(self._bytes[number] for number in shards)

    def _check_limit(self, needed: set[int], *, windowed: bool) -> None:
        """Refuse, before any work, a cache in which the plan cannot move on."""
        least, limit = min(sum(self._bytes), 2 * self._size(needed)), self.options.limit
        what = (
            f"a window takes {self._size(needed) / 1e9:.3f} GB, and the next must fit beside it"
            if windowed
            else "this plan reads all shards in no order, so the whole set must fit"
        )
        if limit < least:
            raise ValueError(
                f"data.cache_gb {self.options.gb:g} is too small for {self.url}: {what}; set at least "
                f"{math.ceil(least / 1e6) / 1e3:g}, or use {'smaller windows' if windowed else 'data.plan windowed'}"
            )
        if not windowed and not all(self._path(number).exists() for number in needed):
            warnings.warn(
                f"{self.url}: {what} ({least / 1e9:.3f} GB), and the first batches wait for it to come; "
                "data.plan windowed reads shards from a server as they come",
                stacklevel=4,
            )

    def _look_ahead(self, steps: Callable[[int], Iterable[int]], needed: set[int], end: int) -> None:
        now = self._size(needed)
        budget = min(self.options.limit - now, now + now // 2)
        self._ahead = {number: None for number in self._ahead if number not in needed}
        self._horizon = max(self._horizon, self._step)
        while self._horizon < end and len(needed) + len(self._ahead) < len(self._bytes):
            try:
                coming = [int(number) for number in steps(self._horizon)]
            except IndexError:  # a plan with an end
                return
            for number in coming:
                if number not in needed and number not in self._ahead:
                    if self._size(self._ahead) + self._bytes[number] > budget:
                        return
                    self._ahead[number] = None
            self._horizon += 1

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
                    self._changed.wait(0.2 if self._put_off else None)
                if number is None or self._stop.is_set():
                    return
                self._busy.add(number)
            try:
                again_s = 0.0 if self._bring(number, wait=False) else 0.2  # another process has it, or no room yet
            except Stopped:
                return
            except Exception as error:
                warnings.warn(f"not fetched ahead: {error}", stacklevel=1)
                again_s = math.inf  # who needs it will try once more, and raise
            with self._changed:
                self._put_off[number] = time.monotonic() + again_s

    def _next(self) -> int | None:
        now = time.monotonic()
        for number in [*sorted(set().union(*self._recent)), *self._ahead]:
            if number not in self._here and number not in self._busy and self._put_off.get(number, 0.0) <= now:
                return number
        return None

    def _bring(self, number: int, *, wait: bool) -> bool:
        """Have a shard, marked busy by the caller, in the cache and locked; False where that would mean waiting."""
        shard, brought = self.meta["shards"][number], False
        try:
            brought = self._obtain(
                shard["name"], shard["bytes"], lambda path: shard_fault(path, shard), number=number, wait=wait
            )
        finally:
            with self._changed:
                self._busy.discard(number)
                if brought:
                    self._here.add(number)
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
                raise Stopped(f"{self.url}/{name}")
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
                        lacking = 0 if number is None else self._lacking(number, part)
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

    def _lacking(self, number: int, part: Path) -> int:
        with self._changed:
            wanted = self._here.union(self._busy, self._ahead, *self._recent)
        keep = [self._path(other) for other in wanted]
        return make_room(self.options.root, self.options.limit, part, self._bytes[number], keep)

    def _full(self, name: str, lacking: int) -> str:
        ours = self._size(self._here) / 1e9
        return (
            f"no room for {self.url}/{name} in {self.options.root}: {lacking:,} bytes too few. This process uses "
            f"{ours:.3f} GB of data.cache_gb {self.options.gb:g}, other processes the rest: raise data.cache_gb, "
            "or give one of them another data.cache_folder"
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
            more = f": {free:,} bytes are free; lower data.cache_gb, or" if error.errno == errno.ENOSPC else ";"
            raise ValueError(f"{part}: {error.strerror or error}{more} give another data.cache_folder") from error
        raise ValueError(
            f"{self.url}/{name} is damaged: all {size:,} bytes came twice, and {problem}. It was changed after the "
            "set was made, or uploaded badly: upload it again (or all of the set, meta.json last)"
        )
