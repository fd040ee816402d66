"""Results of all repetitions -> one JSON-able record with medians, spreads and circumstances, and its table."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BASE = "decode only"  # the row that ratios are of
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "numba",
    "simplejpeg",
    "pillow",
    "opencv-python-headless",
    "webdataset",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "spdl",
    "ffcv",
    "litdata",
    "mosaicml-streaming",
    "grain",
    "array-record",
)


def summarise(
    results: dict[str, list[dict[str, float]]], method: dict[str, Any], images: dict[str, Any], note: str
) -> dict[str, Any]:
    """Put medians, spreads and circumstances in one record."""

    def median(runs: list[dict[str, float]], key: str, digits: int) -> float:
        return round(statistics.median(run[key] for run in runs), digits)

    rows = {}
    for name, runs in results.items():
        rates = [run["images_s"] for run in runs]
        rows[name] = {
            "images_s": round(statistics.median(rates)),
            "lowest": round(min(rates)),
            "highest": round(max(rates)),
            "runs": len(rates),
            "cpu_us": median(runs, "cpu_us", 1),
            "first_batch_s": median(runs, "first_batch_s", 3),
            "import_s": median(runs, "import_s", 3),
        }
    base = rows.get(BASE, {}).get("images_s")
    for row in rows.values():
        row["ratio"] = round(row["images_s"] / base, 3) if base else None
    others = [run["others_cores"] for runs in results.values() for run in runs]
    return {
        **circumstances("loader", note),
        "images": images,
        "method": method,
        "cores_used_by_others": {
            "median": round(statistics.median(others), 2),
            "highest": round(max(others), 2),
        },
        "rows": rows,
    }


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


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter here, of those installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def print_table(record: dict[str, Any]) -> None:
    """Print the rows as a Markdown table, fastest first."""
    print(f"{record['cpu']}, {record['cores']} cores, {record['date']}; other processes used ", end="")
    print("{median} cores (median), {highest} at most".format(**record["cores_used_by_others"]))
    print("\n| loader | images/s | lowest to highest | of decode only | CPU us/image | first batch, s | import, s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, row in sorted(record["rows"].items(), key=lambda item: -item[1]["images_s"]):
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        span = f"{row['lowest']:,} to {row['highest']:,}"
        times = f"{row['cpu_us']:.0f} | {row['first_batch_s']:.2f} | {row['import_s']:.1f}"
        print(f"| {name} | {row['images_s']:,} | {span} | {ratio} | {times} |")
