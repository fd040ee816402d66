"""Shards -> what each augmentation costs, and how near the backends are to the specification.

    python benchmarks/augment.py --shards shards/NAME   # any shard set whose images have one size

CPU time of one thread, the process's own, so that neighbours on the machine matter little; the least of several
interleaved rounds. Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastface.data.augment import Augment, apply_reference  # noqa: E402 - after the path is set
from fastface.data.augment.presets import OPERATORS, PRESETS, operators  # noqa: E402
from fastface.data.decode import build_decoder  # noqa: E402
from fastface.data.index import Index  # noqa: E402
from fastface.data.plan import Shuffled, Slots  # noqa: E402
from fastface.data.shards import ShardReader  # noqa: E402

BACKENDS = ("torch", "dali-cpu")
ROWS, DRAWN_TOGETHER = 256, 2048


class Row(NamedTuple):
    """One list of operators."""

    name: str
    draw_us: float  # per row, all of its parameters
    us: dict[str, float]  # per image by backend: decoding, augmentation, normalisation
    largest: dict[str, int]  # greatest difference to the specification, in levels of 0 to 255
    differing: dict[str, float]  # share of values that differ


def main() -> None:
    """Measure, print two tables, append a line to the results."""
    parser = argparse.ArgumentParser(description="Cost and parity of augmentation.")
    parser.add_argument("--shards", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "augment.jsonl", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    index = Index.open(options.shards)
    if index.image_size is None:
        sys.exit(f"augment: {options.shards} holds images of several sizes")
    slots = Shuffled(len(index), ROWS, 0)[0]
    blobs = ShardReader(index).views(slots.records)
    lists = {"none": ()} | {name: (kind(p=1.0),) for name, kind in OPERATORS.items()}
    lists |= {f"preset {name}": operators(name) for name in PRESETS if name != "none"}
    rows = [
        measure(name, Augment(0.5, chosen), blobs, slots, index.image_size, options.rounds)
        for name, chosen in lists.items()
    ]
    print(table(rows))
    entry = {
        "benchmark": "augment",
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("numpy", "numba", "pillow", "simplejpeg")},
        "size": index.image_size,
        "rows": [row._asdict() for row in rows],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def measure(
    name: str, augment: Augment, blobs: list[np.ndarray], slots: Slots, size: tuple[int, int], rounds: int
) -> Row:
    """Decode all blobs `rounds` times by each backend."""
    draws = augment.draw(slots)
    many = Slots(0, 0, np.zeros(DRAWN_TOGETHER, np.int64), np.resize(slots.keys, DRAWN_TOGETHER))
    drawing = min(cpu_time(lambda: augment.draw(many)) for _ in range(rounds + 1)) / DRAWN_TOGETHER
    plain = np.stack([simplejpeg.decode_jpeg(blob) for blob in blobs])
    expected = apply_reference(plain, draws)
    expected[draws.flip] = expected[draws.flip, :, ::-1]
    decoders = {backend: build_decoder(backend, size=size, threads=1, mean=0, std=1) for backend in BACKENDS}
    us: dict[str, float] = {}
    largest, differing = {}, {}
    out = torch.empty(len(blobs), 3, size[1], size[0])
    for round_number in range(rounds + 1):
        for backend, decoder in decoders.items():
            spent = cpu_time(lambda decoder=decoder: decoder(blobs, draws, out)) / len(blobs) * 1e6
            if not round_number:  # compiles, builds
                difference = np.abs(out.numpy().transpose(0, 2, 3, 1) - expected)
                largest[backend], differing[backend] = int(difference.max()), float((difference > 0).mean())
            else:
                us[backend] = min(us.get(backend, spent), spent)
    for decoder in decoders.values():
        decoder.close()
    return Row(name, drawing * 1e6, us, largest, differing)


def cpu_time(work: object) -> float:
    """Run a function; return the CPU seconds that the process spent on it."""
    start = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - start


def table(rows: list[Row]) -> str:
    """Lay out cost and parity, in Markdown."""
    none = rows[0].us
    lines = [
        "| operators | draw us | torch us | + | images/s | dali-cpu us | + | largest difference | values that differ |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        host, dali = row.us["torch"], row.us["dali-cpu"]
        cells = [row.name, f"{row.draw_us:.2f}", f"{host:.0f}", f"{host - none['torch']:.0f}", f"{1e6 / host:,.0f}"]
        cells += [f"{dali:.0f}", f"{dali - none['dali-cpu']:.0f}"]
        cells += [", ".join(str(row.largest[backend]) for backend in BACKENDS)]
        cells += [", ".join(f"{row.differing[backend]:.2%}" for backend in BACKENDS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
