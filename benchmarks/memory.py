"""Ten epochs of the loader -> whether memory, threads and files stay as they are, and its work beside decoding.

    python benchmarks/memory.py --shards shards/NAME

Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, DecodeOnly, append, circumstances, memory_mb  # noqa: E402

BATCH = 128
WAYS = {"one": "one iteration", "many": "a new iteration each epoch"}


def main() -> int:
    """Measure each decoder and way in a process of its own; print and keep the result."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="a shard set whose images have one size")
    parser.add_argument("--epochs", type=int, default=10, help="how many to load")
    parser.add_argument("--threads", type=int, default=2, help="decoding threads")
    parser.add_argument("--decoders", nargs="+", default=["torch", "dali-cpu"], help="decoders to measure")
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)  # set in the processes that this one starts
    options = parser.parse_args()
    if options.case:
        decoder, way = options.case
        print(json.dumps(epochs(options.shards, decoder, way, options.epochs, options.threads)), flush=True)
        return 0
    rows = []
    for decoder in options.decoders:
        for way in WAYS:
            command = [sys.executable, __file__, "--shards", str(options.shards), "--case", decoder, way]
            command += ["--epochs", str(options.epochs), "--threads", str(options.threads)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            rows.append({"decoder": decoder, "way": WAYS[way], **json.loads(done.stdout.splitlines()[-1])})
            print(f"{decoder}, {WAYS[way]}: {rows[-1]['rss_mb']} MB", file=sys.stderr)
    print_table(rows)
    record = {"epochs": options.epochs, "threads": options.threads, "batch": BATCH, "rows": rows}
    append(options.out, circumstances("memory", options.note) | record)
    return 0


def epochs(path: Path, decoder: str, way: str, count: int, threads: int) -> dict[str, Any]:
    """Load `count` epochs, looking at the process after each and at the processor's time of each."""
    import torch

    from fastface.data.augment import Augment
    from fastface.data.index import Index
    from fastface.data.loader import Loader
    from fastface.data.plans import Shuffled
    from fastface.data.shards import ShardReader

    torch.set_num_threads(1)
    index = Index.open(path)
    assert index.image_size is not None
    plan = Shuffled(index.num_samples, BATCH, seed=0)
    with Loader(
        index,
        plan,
        augment=Augment(flip=0.5),
        decoder=decoder,
        size=index.image_size,
        micro_batch=BATCH,
        threads=threads,
        check_crc=True,
    ) as loader:
        decode = DecodeOnly(ShardReader(index), threads, images=index.num_samples)
        for view in [*loader.reader.views(np.arange(index.num_samples)), *decode.reader.views(np.arange(len(index)))]:
            view.max()  # from here on every page of the shards is in memory: what grows is the loader's
        steps = plan.steps_per_epoch
        iterator: Iterator[Any] = iter(())
        seen: list[dict[str, float]] = []
        costs, decoding = [], []
        for epoch in range(count):
            if way == "many" or epoch == 0:
                iterator = loader.batches(epoch * steps, (epoch + 1) * steps if way == "many" else count * steps)
            processor, images = time.process_time(), 0
            for _ in range(steps):
                images += len(next(iterator).records)
            costs.append((time.process_time() - processor) / images * 1e6)
            seen.append(look())
            time.sleep(0.05)  # the loader's threads fill their buffers, and wait
            done, seconds = decode(0.5)
            decoding.append(seconds / done * 1e6)
    gc.collect()
    last = look()
    result: dict[str, Any] = {
        f"{name}_mb": [round(row[name], 1) for row in seen] for name in ("rss", "anonymous", "file")
    }
    after = seen[1:]  # the first epoch touches memory for the first time
    for name in ("rss", "anonymous"):
        result[f"{name}_slope_mb"] = round(slope([row[name] for row in after]), 3)
    result |= {name: [int(row[name]) for row in seen] for name in ("threads", "files")}
    result |= {"closed_threads": int(last["threads"]), "closed_files": int(last["files"])}
    result |= {"images_per_epoch": steps * BATCH, "python_threads": threading.active_count()}
    result["total_us"], result["decode_us"] = (round(min(c[1:]), 1) for c in (costs, decoding))  # least disturbed
    result |= {"total_us_median": round(statistics.median(costs[1:]), 1)}
    result |= {"decode_us_median": round(statistics.median(decoding[1:]), 1)}
    result["beside_decoding_us"] = round(result["total_us"] - result["decode_us"], 1)
    return result


def look() -> dict[str, float]:
    """Return what this process holds now: megabytes, threads and open files."""
    threads, files = (len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd"))
    return {**memory_mb(), "threads": threads, "files": files}


def slope(values: list[float]) -> float:
    """Return how much the values grow from one to the next: the least-squares line through them."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a Markdown table."""
    print("| decoder | memory after epochs 1, 2, last, MB | growth an epoch (own memory) | threads | files ", end="")
    print("| processor, us an image | decoding | beside |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        memory = ", ".join(f"{row['rss_mb'][k]:,.1f}" for k in (0, min(1, len(row["rss_mb"]) - 1), -1))
        grows = f"{row['rss_slope_mb']:+.2f} ({row['anonymous_slope_mb']:+.2f})"
        counts = " | ".join(steady(row[name]) for name in ("threads", "files"))
        times = " | ".join(f"{row[name]:,.1f}" for name in ("total_us", "decode_us", "beside_decoding_us"))
        print(f"| {row['decoder']}, {row['way']} | {memory} | {grows} | {counts} | {times} |")


def steady(counts: list[int]) -> str:
    """Say one number, or from which to which."""
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


if __name__ == "__main__":
    sys.exit(main())
