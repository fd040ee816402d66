"""What the benchmarks beside loader.py share: who measured, what a process holds, and where results go."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loader import ROOT, machine_s
from benchmarks.report import cpu_name, versions
from fastface.data.decode_torch import decode_into
from fastface.data.plans import Shuffled
from fastface.data.shards import ShardReader

RESULTS = ROOT / "benchmarks/results"


def circumstances(benchmark: str, note: str = "") -> dict[str, Any]:
    """Return what every result says about the machine and the moment."""
    return {
        "benchmark": benchmark,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions(),
        "note": note,
    }


def others_s() -> float:
    """Return the seconds of processor time that all but this process have used so far."""
    return machine_s() - time.process_time()


def append(file: Path, record: Mapping[str, Any]) -> None:
    """Add one JSON line to a file of results, and say so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
    print(f"\nappended to {file}")


def memory_mb(pid: str = "self") -> dict[str, float]:
    """Return what a process holds, in MB of 10^6 bytes: all of it, its own (anonymous), and pages of files.

    Pages of mapped shards and indices are the page cache's: the kernel takes them back when it needs room.
    """
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    names = {"rss": "VmRSS", "anonymous": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
    return {name: int(fields[field].split()[0]) * 1024 / 1e6 for name, field in names.items()}


def forget_peak() -> None:
    """Let VmHWM, the peak of memory, start anew from what this process holds now (Linux 4.0 and later)."""
    Path("/proc/self/clear_refs").write_text("5")


class DecodeOnly:
    """Decode the same images again and again as the loader does, in as many threads, keeping nothing: the roofline."""

    def __init__(self, reader: ShardReader, threads: int, images: int = 4096, batch: int = 128) -> None:
        index = reader.index
        assert index.image_size is not None
        count = min(images, index.num_samples)
        self.batches = np.array_split(Shuffled(index.num_samples, count, seed=0)[0].records, -(-count // batch))
        self.reader, self.threads = reader, threads
        width, height = index.image_size
        self._memory = [np.empty((height, width, 4), np.uint8) for _ in range(threads)]

    def __call__(self, seconds: float) -> tuple[int, float]:
        """Decode for some seconds; return how many images, and the seconds of processor time they took."""
        end, processor = time.perf_counter() + seconds, time.process_time()
        with ThreadPoolExecutor(self.threads) as pool:
            counts = list(pool.map(lambda thread: self._decode(thread, end), range(self.threads)))
        return sum(counts), time.process_time() - processor

    def _decode(self, thread: int, end: float) -> int:
        image, done, number = self._memory[thread], 0, thread
        while time.perf_counter() < end:
            for blob in self.reader.views(self.batches[number % len(self.batches)]):
                decode_into(blob, image)
                done += 1
            number += self.threads
        return done
