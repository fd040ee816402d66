"""A synthetic index of 42 million records -> what each plan costs: to begin, to jump, and for every row.

    python benchmarks/plans.py                     # 42 million records of 2 million people, 2.6 GB of disk
    python benchmarks/plans.py --records 2000000

Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastface.data.index import Index  # noqa: E402 - after the path that makes it importable
from fastface.data.mixed_index import MixedIndex  # noqa: E402
from fastface.data.plans import Clips, Mined, Mixture, Pairs, PerIdentity, Shuffled, Weighted, Windowed  # noqa: E402
from fastface.data.plans.neighbours import write_neighbours  # noqa: E402
from tests.data.fake_index import fake_index, open_fake  # noqa: E402

BATCH, STEPS = 480, 2000  # rows of a batch; steps timed
FAR = 10**9  # the step to jump to

PLANS: dict[str, Callable[[Index], Any]] = {
    "Shuffled": lambda index: Shuffled(index.num_samples, BATCH, 0),
    "PerIdentity, K = 4": lambda index: PerIdentity(index, 4, BATCH, 0),
    "Weighted by label": lambda index: Weighted(index, "label", BATCH, 0),
    "Weighted by a column": lambda index: Weighted(index, "attack", BATCH, 0),
    "Pairs": lambda index: Pairs(index, 0.5, BATCH, 0),
    "Clips, 8 frames": lambda index: Clips(index, 8, BATCH, 0),
    "Windowed, 16 shards": lambda index: Windowed(index, 16, BATCH, 0),
    "Mined, K = 4, 3 of 10": lambda index: Mined(index, index.path / "neighbours.npz", 4, 3, BATCH, 0),
    "Mixture of two Shuffled": lambda index: mixture(index, lambda n: Shuffled(index.num_samples, 1, n)),
    "Mixture of two PerIdentity": lambda index: mixture(index, lambda n: PerIdentity(index, 4, 4, n)),
}


def mixture(index: Index, plan: Callable[[int], Any]) -> Mixture:
    mixed = MixedIndex([index, index], "merge-by-name")
    return Mixture(mixed, [plan(0), plan(1)], [3.0, 1.0], BATCH, 0)


def main() -> None:
    """Write the index, measure every plan in a process of its own, print the table and append it to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--records", type=int, default=42_000_000, help="records of the index (21 of each person)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/plans.jsonl", help="where to append")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)  # set in the processes that this one starts
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(open_fake(Path(arguments.case[1])), PLANS[arguments.case[0]])))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.records)
        for name in PLANS:
            command = [sys.executable, __file__, "--case", name, folder]
            rows[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{name:28}" + "".join(f"  {key} {value:8.2f}" for key, value in rows[name].items()), flush=True)
    result = {
        "benchmark": "plans",
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "method": {"records": arguments.records, "batch": BATCH, "steps": STEPS, "clock": "CPU time of the process"},
        "rows": rows,
    }
    with open(arguments.out, "a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def write(folder: Path, records: int) -> None:
    """Write columns of labels in no order, attacks and clips of 30 frames, and ten neighbours of everybody."""
    rng, people = np.random.default_rng(0), records // 21
    frames = np.arange(records)
    index = fake_index(
        rng.integers(0, people, records),
        shards=max(1, records // 10_000),
        folder=folder,
        attack=rng.integers(0, 10, records).astype(np.int32),
        clip=(frames // 30).astype(np.int32),
        time_ms=frames % 30 * 40,
    )
    neighbours = (
        rng.integers(1, index.num_classes, (index.num_classes, 10)) + np.arange(index.num_classes)[:, None]
    ) % (index.num_classes)
    write_neighbours(folder / "neighbours.npz", neighbours, index.dataset_id)


def measure(index: Index, build: Callable[[Index], Any]) -> dict[str, float]:
    """Measure one plan, the index open; columns are in the page cache or come into it."""
    before, start = private_mb(), time.process_time()
    plan = build(index)
    plan[0]
    begun, memory = time.process_time(), private_mb()
    plan[FAR]
    jumped = time.process_time()
    first = FAR - FAR % plan.steps_per_epoch + plan.steps_per_epoch // 4
    plan[first]  # the tables of this epoch are made
    timed = time.process_time()
    for step in range(first, first + STEPS):
        plan[step]
    row = (time.process_time() - timed) / STEPS / BATCH
    return {
        "begin_s": begun - start,
        "memory_mb": memory - before,
        "jump_ms": 1e3 * (jumped - begun),
        "us_a_row": 1e6 * row,
    }


def private_mb() -> float:
    """Return the memory of this process that no file backs, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
