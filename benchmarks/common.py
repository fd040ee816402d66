"""What the benchmarks beside loader.py share: who measured, what a process holds, and where results go."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.loader import ROOT, cpu_name, versions

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
