"""Records -> images decoded once and kept, in memory, in a file or on the device, for as many epochs as there are."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastface.data.augment import Draws, apply_on_host
from fastface.data.batch import Finisher
from fastface.data.damage import BadImage
from fastface.data.decode_torch import TorchDecoder
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.durable import fsync_file, write_durably
from fastface.spelling import nearest

MEMORY_SHARE, DEVICE_SHARE = 0.8, 0.5  # of what is free, that a cache may take
PLACES = ("none", "memory", "device", "auto")
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Store(Protocol):
    """Where the planes lie. `filled[i]` may only be read as True when the planes of record i are complete."""

    filled: np.ndarray  # bool [N]

    def put(self, records: np.ndarray, planes: np.ndarray) -> None:
        """Keep uint8 [n, 3, H, W] of distinct records."""
        ...

    def finish(self, records: np.ndarray, draws: Draws, out: Tensor) -> None:
        """Augment, mirror and normalise the kept planes of `records` into `out`."""
        ...

    def close(self) -> None: ...


class DecodedCache:
    """Fill a batch from kept images; those not kept yet are decoded first, by libjpeg-turbo in the calling thread."""

    def __init__(
        self, store: Store, size: tuple[int, int], resize: bool, finish: Finisher, reader: ShardReader
    ) -> None:
        self.store, self.size, self._reader = store, size, reader
        self._decoder = TorchDecoder(size, resize, 1, Finisher(torch.device("cpu"), 0.0, 1.0))
        self._finish = finish

    def __call__(self, records: np.ndarray, draws: Draws, out: Tensor) -> None:
        """Fill `out`, [B, 3, H, W]. Raises BadImage."""
        missing = np.unique(records[~self.store.filled[records]])
        if len(missing):
            planes = torch.empty((len(missing), 3, self.size[1], self.size[0]), dtype=torch.uint8)
            try:
                self._decoder(self._reader.views(missing), Draws(np.zeros(len(missing), bool)), planes)
            except BadImage as error:
                row = int(np.flatnonzero(records == missing[error.row])[0])
                raise BadImage(row, error.reason) from error
            self.store.put(missing, planes.numpy())
        self.store.finish(records, draws, out)

    @property
    def share(self) -> float:
        """Return which share of the images is kept, 0 to 1."""
        return float(self.store.filled.mean())

    def close(self) -> None:
        """Let go of the store; a file keeps what it has."""
        self.store.close()


class HostStore:
    """Planes in an array, of this process's memory or of a file."""

    def __init__(self, planes: np.ndarray, filled: np.ndarray, finish: Finisher) -> None:
        self.planes, self.filled, self._finish = planes, filled, finish

    def put(self, records: np.ndarray, planes: np.ndarray) -> None:
        self.planes[records] = planes
        self.filled[records] = True  # after the pixels: other threads look here

    def finish(self, records: np.ndarray, draws: Draws, out: Tensor) -> None:
        with self._finish.target(out) as target:
            if not draws.operators and out.shape[2:] == self.planes.shape[2:]:
                self._finish.planes(self.planes, records, draws.flip, target)
                return
            pixels = np.ascontiguousarray(self.planes[records].transpose(0, 2, 3, 1))
            apply_on_host(pixels, draws)
            self._finish.pixels(pixels, draws.flip, target)

    def close(self) -> None:
        pass


class FileStore(HostStore):
    """Planes in a file that all processes of a machine share and later runs find again.

    After a crash of the machine, pixels may be lost that were marked as there, so what another boot left half filled
    is started anew; a file that was filled to the end is marked so durably, and lasts.
    """

    def __init__(self, path: Path, index: Index, size: tuple[int, int], finish: Finisher) -> None:
        count = index.num_samples
        plane_bytes = 3 * size[0] * size[1]
        self.path, self._complete = path, path.with_suffix(".complete")
        about = {"boot": BOOT.read_text().strip() if BOOT.is_file() else "", "images": count, "size": list(size)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process makes the file, the others find it
            if _read_json(path.with_suffix(".json")) != about and not self._complete.exists():
                path.unlink(missing_ok=True)
            if not path.exists() or path.stat().st_size != count * (plane_bytes + 1):
                self._complete.unlink(missing_ok=True)
                self._make(count * (plane_bytes + 1))
                write_durably(path.with_suffix(".json"), json.dumps(about).encode())
            with open(path, "r+b") as file:
                self._map = mmap.mmap(file.fileno(), 0)
        every = np.frombuffer(self._map, np.uint8)
        planes = every[count:].reshape(count, 3, size[1], size[0])
        super().__init__(planes, every[:count].view(np.bool_), finish)

    def _make(self, length: int) -> None:
        """Take the disk's blocks now: a full disk would kill a process that writes to a map."""
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, length)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Mark a full file as such, once its pixels are on the disk."""
        if self.filled.all() and not self._complete.exists():
            self._map.flush()
            fsync_file(self.path)
            write_durably(self._complete, b"")


class DeviceStore:
    """Planes on the device that trains: from the second epoch on, loading is a gather in its memory."""

    def __init__(self, count: int, size: tuple[int, int], finish: Finisher) -> None:
        self.planes = torch.empty((count, 3, size[1], size[0]), dtype=torch.uint8, device=finish.device)
        self.filled = np.zeros(count, bool)
        self._finish = finish

    def put(self, records: np.ndarray, planes: np.ndarray) -> None:
        there = torch.from_numpy(planes).to(self._finish.device)
        self.planes[torch.from_numpy(records).to(self._finish.device)] = there
        if there.is_cuda:
            torch.cuda.current_stream(there.device).synchronize()  # only now may other threads' streams read it
        self.filled[records] = True

    def finish(self, records: np.ndarray, draws: Draws, out: Tensor) -> None:
        assert not draws.operators  # build_cache has seen to it
        device = self._finish.device
        with self._finish.stream():
            rows = self.planes.index_select(0, torch.from_numpy(records).to(device))
            self._finish.from_device(rows, out, torch.from_numpy(draws.flip).to(device))

    def close(self) -> None:
        pass


def build_cache(
    place: str,
    index: Index,
    size: tuple[int, int],
    finish: Finisher,
    reader: ShardReader,
    processes: int,
    resize: bool = False,
    augmented: bool = False,
) -> DecodedCache | None:
    """Build the cache for `place`: "none"; "memory" of this process; "device"; "auto"; or a folder for its file.

    auto takes the first of device (a GPU), memory and none where everything fits. ValueError, with the numbers, where
    it does not fit; `processes` of this machine share its memory. augmented: images pass the host's operators, so
    the device cannot keep them.
    """
    needed = index.num_samples * 3 * size[0] * size[1]
    if place == "auto":
        on_gpu = finish.device.type == "cuda" and not augmented and needed <= DEVICE_SHARE * _free_on(finish.device)
        fits = needed * processes <= MEMORY_SHARE * _free_memory()
        place = "device" if on_gpu else "memory" if fits else "none"
    if place == "none":
        return None
    if place == "device":
        if augmented:
            raise ValueError("data.cache device only mirrors images: set data.augment to none, or data.cache to memory")
        _check_room("device", needed, DEVICE_SHARE * _free_on(finish.device), f"half of what {finish.device} has free")
        store: Store = DeviceStore(index.num_samples, size, finish)
    elif place == "memory":
        what = f"{MEMORY_SHARE:.0%} of the memory that is free, of which {processes} processes take as much each"
        _check_room("memory", needed * processes, MEMORY_SHARE * _free_memory(), what)
        planes = np.empty((index.num_samples, 3, size[1], size[0]), np.uint8)  # taken page by page, as it fills
        store = HostStore(planes, np.zeros(index.num_samples, bool), finish)
    else:
        if os.sep not in place and not Path(place).is_dir():  # a slip of the pen, rather than a folder of that name
            raise ValueError(
                f"data.cache {place!r}{nearest(place, PLACES)}; choose {', '.join(PLACES)}, or a folder: ./{place}"
            )
        path = Path(place) / f"{index.dataset_id[:16]}-{size[0]}x{size[1]}.planes"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_room(place, needed, shutil.disk_usage(path.parent).free, "what its disk has free")
        store = FileStore(path, index, size, finish)
    return DecodedCache(store, size, resize, finish, reader)


def _check_room(place: str, needed: int, room: float, what: str) -> None:
    if needed > room:
        raise ValueError(
            f"data.cache {place}: the decoded images take {needed / 1e9:,.1f} GB, more than {what} ({room / 1e9:,.1f} "
            f"GB); set data.cache to none, or to a folder on a larger disk"
        )


def _free_memory() -> float:
    """Return the bytes of memory that can be taken without swapping."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    return int(lines["MemAvailable"].split()[0]) * 1024


def _free_on(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
