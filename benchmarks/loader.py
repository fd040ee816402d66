"""Shards -> images per second of this loader and of others, beside what libjpeg-turbo alone decodes.

    python benchmarks/loader.py                       # draws its own images
    python benchmarks/loader.py --shards shards/NAME  # any shard set whose images have one size

Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.inputs import describe_images, prepare  # noqa: E402 - after the path that makes them importable
from benchmarks.loaders import CASES  # noqa: E402

BATCH, SKIPPED = 128, 10  # images per batch; batches before the clock starts
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "numba",
    "simplejpeg",
    "webdataset",
    "nvidia-dali-cuda130",
    "pillow",
)


def main() -> None:
    """Prepare the inputs, run every case in its own process, print the table and append it to a file."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--shards", type=Path, help="a shard set to read; without it, images are drawn")
    parser.add_argument("--images", type=int, default=20_000, help="how many images to draw")
    parser.add_argument("--threads", type=int, default=2, help="decoding threads, or worker processes, of each loader")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each case")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each case is timed")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=list(CASES), help="cases to run")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/loader.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # set in the processes that this one starts
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(timed(options.case, options.work, options.threads, options.seconds)), flush=True)
        os._exit(0)  # worker processes of other loaders take seconds to end
    with tempfile.TemporaryDirectory(prefix="fastface-bench-") as folder:
        work = Path(folder)
        prepare(work, options.shards, options.images)
        results = measure(options, work)
        images = describe_images(work)
    record = summarise(results, options, images)
    print_table(record)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(f"\nappended to {options.out}")


def timed(case: str, work: Path, threads: int, seconds: float) -> dict[str, float]:
    """Run one case: batches are taken for `seconds`, or to the end of its epoch if that comes first."""
    started = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = "1"
    batches: Iterator[Any] = CASES[case].build(work, threads, BATCH)
    imported = time.perf_counter()  # building a case imports what it needs, then its generator starts the loader
    next_batch = next(batches)
    first = time.perf_counter() - imported
    check(next_batch, decoded=CASES[case].delivers)
    for _ in range(SKIPPED):
        next_batch = next(batches)
    images, clock = 0, time.perf_counter()
    elapsed = 0.0
    for next_batch in batches:
        images += len(next_batch[1])
        elapsed = time.perf_counter() - clock
        if elapsed >= seconds:
            break
    check(next_batch, decoded=CASES[case].delivers)
    return {
        "images_s": images / elapsed,
        "first_batch_s": first,
        "import_s": imported - started,
        "images": images,
    }


def check(batch: Any, decoded: bool) -> None:
    """Assert that a batch is what every loader has to deliver."""
    import torch

    images, labels = batch
    assert labels.dtype == torch.int64, labels.dtype
    assert len(labels) == BATCH, len(labels)
    if decoded:
        assert images.dtype == torch.float32, images.dtype
        assert images.is_contiguous()
        assert images.shape[:2] == (BATCH, 3), images.shape
        assert -1.0001 <= float(images.min()) < -0.5 < 0.5 < float(images.max()) <= 1.0001


def measure(options: argparse.Namespace, work: Path) -> dict[str, list[dict[str, float]]]:
    """Run the cases in turn, and all of them again, `repeat` times."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.only or CASES}
    for number in range(options.repeat):
        for name in results:
            command = [sys.executable, __file__, "--case", name, "--work", str(work)]
            command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
            environment = os.environ | CASES[name].environment | {"OMP_NUM_THREADS": "1"}
            busy, own, clock = machine_busy_s(), children_s(), time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            if not lines:
                print(f"{name}: no result\n{done.stderr[-2000:]}", file=sys.stderr)
                continue
            result = json.loads(lines[-1])
            elsewhere = machine_busy_s() - busy - (children_s() - own)
            result["others_cores"] = max(0.0, elsewhere / (time.perf_counter() - clock))
            results[name].append(result)
            print(f"{number + 1}/{options.repeat} {name}: {result['images_s']:,.0f} images/s", file=sys.stderr)
    return {name: rows for name, rows in results.items() if rows}


def machine_busy_s() -> float:
    """Return the seconds all cores have been busy or stolen since the start; 0 where /proc is not."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except OSError:
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def children_s() -> float:
    """Return the processor seconds of ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def summarise(
    results: dict[str, list[dict[str, float]]], options: argparse.Namespace, images: dict[str, Any]
) -> dict[str, Any]:
    """Put medians, spreads and circumstances in one JSON-able record."""
    rows = {}
    for name, runs in results.items():
        rates = [run["images_s"] for run in runs]
        rows[name] = {
            "images_s": round(statistics.median(rates)),
            "lowest": round(min(rates)),
            "highest": round(max(rates)),
            "runs": len(rates),
            "first_batch_s": round(statistics.median(run["first_batch_s"] for run in runs), 3),
        }
    base = rows.get("decode only", {}).get("images_s")
    for row in rows.values():
        row["ratio"] = round(row["images_s"] / base, 3) if base else None
    others = [run["others_cores"] for runs in results.values() for run in runs]
    return {
        "benchmark": "loader",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions(),
        "images": {"drawn": options.shards is None, **images},
        "method": {
            "batch": BATCH,
            "threads": options.threads,
            "skipped_batches": SKIPPED,
            "seconds": options.seconds,
            "repeats_interleaved": options.repeat,
            "statistic": "median",
        },
        "cores_used_by_others": {
            "median": round(statistics.median(others), 2),
            "highest": round(max(others), 2),
        },
        "note": options.note,
        "rows": rows,
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
    print("\n| loader | images/s | lowest to highest | of decode only | first batch, s |")
    print("|---|---:|---:|---:|---:|")
    for name, row in sorted(record["rows"].items(), key=lambda item: -item[1]["images_s"]):
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        span = f"{row['lowest']:,} to {row['highest']:,}"
        print(f"| {name} | {row['images_s']:,} | {span} | {ratio} | {row['first_batch_s']:.2f} |")


if __name__ == "__main__":
    main()
