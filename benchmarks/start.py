"""An index of 42 million images -> seconds and megabytes from constructing the loader to its first batch.

    python benchmarks/start.py --shards shards/NAME      # any shard set whose images have one size

The index is made up: its records point, again and again, at the real images of that set, so the first batch decodes.
Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, append, forget_peak, memory_mb  # noqa: E402
from benchmarks.report import circumstances  # noqa: E402

BATCH = 128
GOAL_S, GOAL_MB = 3.0, 300.0
STATES = ("on disk", "as the last start left it", "read as a whole before")  # of the index, in this order


def main() -> int:
    """Make the index, start a loader on it in new processes, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="a shard set whose images are read")
    parser.add_argument("--samples", type=int, default=42_000_000, help="records of the index")
    parser.add_argument("--identities", type=int, default=2_000_000, help="classes of the index")
    parser.add_argument("--per-shard", type=int, default=10_000, help="records of each shard of the index")
    parser.add_argument("--repeat", type=int, default=3, help="starts of each kind")
    parser.add_argument("--threads", type=int, default=2, help="decoding threads")
    parser.add_argument("--decoders", nargs="+", default=["torch", "dali-cpu"], help="decoders to start with")
    parser.add_argument("--work", type=Path, help="where the index is made, and left (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULTS / "start.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # set in the processes that this one starts
    options = parser.parse_args()
    if options.case:
        print(json.dumps(start(options.shards, options.case, options.threads)), flush=True)
        return 0
    with tempfile.TemporaryDirectory(prefix="fastface-start-") as folder:
        made = (options.work or Path(folder)) / f"index-{options.samples}-{options.identities}"
        if not (made / "meta.json").exists():
            print(f"making an index of {options.samples:,} records in {made}", file=sys.stderr)
            make_index(options.shards, made, options.samples, options.identities, options.per_shard)
        runs = [
            measure(made, decoder, state, options.threads)
            for _ in range(options.repeat)
            for decoder in options.decoders
            for state in STATES
        ]
        size = sum(file.stat().st_size for file in [*(made / "index").iterdir(), made / "meta.json"])
    rows = summarise(runs)
    index = {"samples": options.samples, "identities": options.identities, "bytes": size}
    index["shards"] = -(-options.samples // options.per_shard)
    record = circumstances("start", options.note) | {"index": index, "threads": options.threads, "batch": BATCH}
    record |= {"repeats": options.repeat, "statistic": "median; memory: the highest", "rows": rows}
    print_table(rows, index)
    append(options.out, record)
    quick = all(row["slowest_s"] <= GOAL_S for row in rows)
    own = all(row["grown_anonymous_mb"] < GOAL_MB for row in rows)
    whole = {state: all(r["grown_peak_mb"] < GOAL_MB for r in rows if r["index"] == state) for state in STATES}
    print(f"every first batch within {GOAL_S:.0f} s: {yes(quick)}")
    print(f"grown by less than {GOAL_MB:.0f} MB: {yes(own)}, its own memory; with pages of mapped files:")
    print("; ".join(f"{yes(small)}, index {state}" for state, small in whole.items()))
    return 0 if quick and own and all(whole.values()) else 1


def yes(good: bool) -> str:
    """Say it so that a failure is seen."""
    return "yes" if good else "NO"


def make_index(source: Path, folder: Path, samples: int, identities: int, per_shard: int) -> None:
    """Write a shard set whose shards are links to those of `source`, each visited until it fills `per_shard` rows."""
    from fastface.data.columns import RECORD_COLUMNS
    from fastface.data.index import Index
    from fastface.data.index_write import write_index

    real = Index.open(source)
    folder.mkdir(parents=True)
    bounds = np.searchsorted(real.shard, np.arange(real.num_shards + 1))
    num_shards = -(-samples // per_shard)
    chosen = [np.resize(np.arange(bounds[k], bounds[k + 1]), per_shard) for k in range(real.num_shards)]
    records = np.concatenate([chosen[k % real.num_shards] for k in range(num_shards)])[:samples]
    columns = {name: real.columns[name][records] for name in RECORD_COLUMNS}
    columns["shard"] = (np.arange(samples) // per_shard).astype("<i4")
    columns["label"] = np.random.default_rng(0).permutation(np.arange(samples) % identities).astype("<i4")
    del records
    names = np.empty((samples, 9), np.uint8)  # numbers of nine digits, in order: derive_columns would sort them
    for place in range(9):
        names[:, place] = np.arange(samples, dtype=np.int32) // 10 ** (8 - place) % 10 + ord("0")
    columns |= {
        "by_label": np.argsort(columns["label"], kind="stable").astype("<i4"),
        "label_start": np.concatenate([[0], np.cumsum(np.bincount(columns["label"], minlength=identities))]),
        "names": names.reshape(-1),
        "names_start": np.arange(0, 9 * samples + 1, 9),
        "by_name": np.arange(samples, dtype="<i4"),
    }
    shards = []
    for k in range(num_shards):
        name = f"shard-{k:06d}.tar"
        (folder / name).symlink_to(real.shard_path(k % real.num_shards).resolve())
        count = min(per_shard, samples - k * per_shard)
        row = real.meta["shards"][k % real.num_shards]
        shards.append({"name": name, "bytes": row["bytes"], "samples": count, "sha256": row["sha256"]})
    write_index(folder, columns, [f"identity-{k:08d}" for k in range(identities)], shards, {})


def measure(made: Path, decoder: str, state: str, threads: int) -> dict[str, Any]:
    """Start a loader in a new process, with the index put into one of STATES before."""
    for file in [*(made / "index").iterdir(), made / "meta.json"]:
        with open(file, "rb") as opened:
            if state != STATES[1]:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while state == STATES[2] and opened.read(1 << 24):
                pass
    command = [sys.executable, __file__, "--shards", str(made), "--case", decoder, "--threads", str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{decoder}: {done.stderr[-2000:]}")
    row = {"decoder": decoder, "index": state}
    row |= json.loads(done.stdout.splitlines()[-1])
    print(f"{decoder}, index {row['index']}: {row['first_batch_s']:.2f} s", file=sys.stderr)
    return row


def start(path: Path, decoder: str, threads: int) -> dict[str, float]:
    """Import all that is needed, then open, plan, construct and take one batch, looking at clock and memory between."""
    clock = time.perf_counter()
    import torch

    from fastface.data.augment import Augment
    from fastface.data.index import Index
    from fastface.data.kernels import kernels
    from fastface.data.loader import Loader
    from fastface.data.plans import Shuffled

    if decoder.startswith("dali"):
        from nvidia.dali import fn  # noqa: F401 - imported here, not within the time that is measured
    imported = time.perf_counter()
    kernels()  # compiled once per machine, then read from numba's cache
    result = {"import_s": imported - clock, "kernel_s": time.perf_counter() - imported}
    torch.set_num_threads(1)
    before = memory_mb()
    forget_peak()
    clock = time.perf_counter()
    index = Index.open(path)
    result["open_s"], opened = time.perf_counter() - clock, memory_mb()
    assert index.image_size is not None
    plan = Shuffled(index.num_samples, BATCH, seed=0)
    constructed = time.perf_counter()
    with Loader(
        index,
        plan,
        augment=Augment(),
        decoder=decoder,
        size=index.image_size,
        micro_batch=BATCH,
        threads=threads,
        check_crc=True,
    ) as loader:
        batch = next(loader.batches(start=plan.steps_per_epoch // 2))
        now = time.perf_counter()
        after = memory_mb()
        assert batch.images.shape[0] == BATCH
        assert -1.0001 <= float(batch.images.min()) < -0.5 < 0.5 < float(batch.images.max()) <= 1.0001
    result |= {"loader_s": now - constructed, "first_batch_s": now - clock, "imported_rss_mb": before["rss"]}
    result |= {f"opened_{kind}_mb": opened[kind] - before[kind] for kind in ("rss", "anonymous", "file")}
    result |= {f"grown_{kind}_mb": after[kind] - before[kind] for kind in ("rss", "anonymous", "file")}
    return result | {"grown_peak_mb": after["peak"] - before["rss"]}


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each decoder and state of the index: median times, highest memory."""
    rows = []
    for key in dict.fromkeys((run["decoder"], run["index"]) for run in runs):
        same = [run for run in runs if (run["decoder"], run["index"]) == key]
        row: dict[str, Any] = {"decoder": key[0], "index": key[1], "slowest_s": max(r["first_batch_s"] for r in same)}
        for name in same[0].keys() - {"decoder", "index"}:
            values = [run[name] for run in same]
            row[name] = max(values) if name.endswith("_mb") else statistics.median(values)
        rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in sorted(row.items())})
    return rows


def print_table(rows: list[dict[str, Any]], index: dict[str, Any]) -> None:
    """Print the rows as a Markdown table."""
    shape = "{samples:,} records of {identities:,} identities in {shards:,} shards, index of {bytes:,} bytes"
    print(shape.format(**index))
    print("\n| decoder, index | open, s | first batch, s | memory grown, MB | anonymous | files | peak | imports, s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        seconds = f"{row['open_s']:.2f} | {row['first_batch_s']:.2f} (slowest {row['slowest_s']:.2f})"
        memory = " | ".join(f"{row[f'grown_{kind}_mb']:,.0f}" for kind in ("rss", "anonymous", "file", "peak"))
        print(f"| {row['decoder']}, {row['index']} | {seconds} | {memory} | {row['import_s'] + row['kernel_s']:.1f} |")


if __name__ == "__main__":
    sys.exit(main())
