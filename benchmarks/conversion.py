"""A folder of images -> seconds that make_shards takes, beside cp -r and webdataset's ShardWriter on the same files.

    python benchmarks/conversion.py                       # draws its own images
    python benchmarks/conversion.py --images FOLDER       # PERSON/IMAGE.jpg, or a .tar of such

cp and ShardWriter look at no image; make_shards decodes every one, takes its crc32 and sha256, syncs to the disk.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import append, circumstances  # noqa: E402
from benchmarks.inputs import draw  # noqa: E402 - after the path that makes them importable
from benchmarks.loader import machine_s  # noqa: E402

WRITER = """
import sys, webdataset
from pathlib import Path
files = sorted(Path(sys.argv[1]).rglob("*.jpg"))
number = {name: k for k, name in enumerate(sorted({file.parent.name for file in files}))}
Path(sys.argv[2]).mkdir()
with webdataset.ShardWriter(sys.argv[2] + "/shard-%06d.tar", maxcount=int(sys.argv[3]), verbose=0) as writer:
    for k, file in enumerate(files):
        writer.write({"__key__": f"{k:09d}", "jpg": file.read_bytes(), "cls": number[file.parent.name]})
"""


def cases(folder: Path, archive: Path, count: int) -> dict[str, list[str]]:
    """Return the command of each row, less where it writes to."""
    shard_size = str(min(max(-(-count // 64), 256), 10_000))
    make = [sys.executable, str(ROOT / "tools/make_shards.py"), "folder"]
    return {
        "cp -r": ["cp", "-r", str(folder), "OUT"],
        "webdataset ShardWriter": [sys.executable, "-c", WRITER, str(folder), "OUT", shard_size],
        "make_shards, 1 worker": [*make, str(folder), "--workers", "1", "--out", "OUT"],
        "make_shards": [*make, str(folder), "--out", "OUT"],
        "make_shards, from a .tar": [*make, str(archive), "--out", "OUT"],
        "make_shards --size 112 --crop 0.5": [*make, str(folder), "--size", "112", "--crop", "0.5", "--out", "OUT"],
    }


def main() -> None:
    """Run every case in turn, several times, print the table and append it to a file."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--images", type=Path, help="a folder or .tar of PERSON/IMAGE.jpg; without it, images are drawn"
    )
    parser.add_argument("--draw", type=int, default=20_000, help="how many images to draw")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each case")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results/conversion.jsonl", help="where to append"
    )
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastface-bench-") as work:
        folder, archive = lay_out(Path(work), options.images, options.draw)
        sizes = [file.stat().st_size for file in folder.rglob("*.jpg")]
        results = measure(cases(folder, archive, len(sizes)), Path(work) / "out", options.repeat)
    record = summarise(results, len(sizes), sum(sizes), options)
    print_table(record)
    append(options.out, record)


def lay_out(work: Path, images: Path | None, count: int) -> tuple[Path, Path]:
    """Put the images into work/images and work/images.tar, and read them once so that all find them in memory."""
    folder, archive = work / "images", work / "images.tar"
    if images is None:
        draw(folder, count)
    elif images.is_dir():
        shutil.copytree(images, folder)
    else:
        with tarfile.open(images) as tar:
            tar.extractall(folder, filter="data")
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, ".")
    for file in folder.rglob("*.jpg"):
        file.read_bytes()
    return folder, archive


def children_s() -> float:
    """Return the processor seconds of ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(commands: dict[str, list[str]], out: Path, repeat: int) -> dict[str, list[dict[str, float]]]:
    """Time each command from its start to its end, disk synced before and after."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for number in range(repeat):
        for name, command in commands.items():
            os.sync()
            busy, own, clock = machine_s(), children_s(), time.perf_counter()
            command = [str(out) if word == "OUT" else word for word in command]
            subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            os.sync()
            seconds, processor = time.perf_counter() - clock, children_s() - own
            others = max(0.0, (machine_s() - busy - processor) / seconds)
            results[name].append({"seconds": seconds, "processor_s": processor, "others_cores": others})
            shutil.rmtree(out)
            print(f"{number + 1}/{repeat} {name}: {seconds:.1f} s", file=sys.stderr)
    return results


def summarise(
    results: dict[str, list[dict[str, float]]], count: int, size: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Put medians, spreads and circumstances in one JSON-able record."""
    rows = {}
    for name, runs in results.items():
        seconds = [run["seconds"] for run in runs]
        middle = statistics.median(seconds)
        rows[name] = {
            "seconds": round(middle, 2),
            "lowest": round(min(seconds), 2),
            "highest": round(max(seconds), 2),
            "processor_s": round(statistics.median(run["processor_s"] for run in runs), 2),
            "images_s": round(count / middle),
            "mb_s": round(size / 1e6 / middle, 1),
        }
    others = [run["others_cores"] for runs in results.values() for run in runs]
    return {
        **circumstances("conversion", options.note),
        "images": {"drawn": options.images is None, "count": count, "mean_bytes": round(size / count)},
        "method": {"repeats_interleaved": options.repeat, "statistic": "median", "synced": True},
        "cores_used_by_others": {"median": round(statistics.median(others), 2), "highest": round(max(others), 2)},
        "rows": rows,
    }


def print_table(record: dict[str, Any]) -> None:
    """Print the rows as a Markdown table."""
    images = record["images"]
    print(f"{record['cpu']}, {record['cores']} cores, {record['date']}: {images['count']:,} JPEGs of ", end="")
    print(f"{images['mean_bytes']:,} bytes; others used {record['cores_used_by_others']['median']} cores (median)")
    print("\n| case | MB/s | images/s | seconds | lowest to highest | processor seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, row in record["rows"].items():
        span = f"{row['lowest']:.1f} to {row['highest']:.1f}"
        rates = f"{row['mb_s']:,} | {row['images_s']:,} | {row['seconds']:.1f} | {span} | {row['processor_s']:.1f}"
        print(f"| {name} | {rates} |")


if __name__ == "__main__":
    main()
