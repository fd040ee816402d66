"""A margin head of many classes -> memory and time of a training step, beside the ways that others write it.

    python benchmarks/head.py                        # 6 minutes of processor time, 9 GB of memory
    python benchmarks/head.py --only "93,431 classes"

Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, append, forget_peak, memory_mb, others_s  # noqa: E402
from benchmarks.report import circumstances  # noqa: E402
from fastface.heads.margin_head import MarginHead  # noqa: E402
from fastface.losses.class_softmax import CHUNK_BYTES  # noqa: E402
from fastface.losses.margins import build_margin  # noqa: E402

BATCH, SIZE, MEMORY_MB = 512, 512, 512
MANY, MS1MV3 = 1_000_000, 93_431
CASES: dict[str, tuple[str, int, float]] = {
    # name -> which implementation, classes, sample rate; a step of all of a million takes a minute: two are made
    f"{MANY:,} classes, fastface": ("fastface", MANY, 1.0),
    f"{MANY:,} classes, fastface, sampled 0.1": ("fastface", MANY, 0.1),
    f"{MS1MV3:,} classes, fastface": ("fastface", MS1MV3, 1.0),
    f"{MS1MV3:,} classes, fastface, nothing kept": ("nothing kept", MS1MV3, 1.0),
    f"{MS1MV3:,} classes, fastface, sampled 0.1": ("fastface", MS1MV3, 0.1),
    f"{MS1MV3:,} classes, torch, own column": ("column", MS1MV3, 1.0),
    f"{MS1MV3:,} classes, torch, one-hot": ("one-hot", MS1MV3, 1.0),
    f"{MS1MV3:,} classes, pytorch-metric-learning": ("pytorch-metric-learning", MS1MV3, 1.0),
}


def main() -> int:
    """Measure each case in a process of its own; print and keep the result."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose names begin so")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--out", type=Path, default=RESULTS / "head.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # set in the processes that this one starts
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(*CASES[options.case], options.threads)), flush=True)
        return 0
    rows = []
    for name in CASES:
        if not name.startswith(options.only):
            continue
        command = [sys.executable, __file__, "--case", name, "--threads", str(options.threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        rows.append({"name": name, **json.loads(done.stdout.splitlines()[-1])})
        print(f"{name}: {rows[-1]}", file=sys.stderr)
    print_table(rows)
    record = {"batch": BATCH, "embedding_size": SIZE, "threads": options.threads, "rows": rows}
    append(options.out, circumstances("head", options.note) | record)
    return 0


def measure(way: str, classes: int, rate: float, threads: int) -> dict[str, Any]:
    """Train some steps of forward, backward and SGD with momentum; look at peak memory and at the time of each."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    embedding = torch.randn(BATCH, SIZE, requires_grad=True)
    labels = torch.randint(0, classes, (BATCH,))
    build(way, 100, rate)(0, embedding, labels % 100)  # what is loaded on first use is not the head's
    before = memory_mb()["rss"]
    forget_peak()
    step = build(way, classes, rate)
    rows, seconds, processor, others = 0, [], [], []
    for number in range(2 if classes * rate > 500_000 else 3):
        begun, used, theirs = time.perf_counter(), time.process_time(), others_s()
        rows = step(number, embedding, labels)
        seconds.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
        others.append((others_s() - theirs) / seconds[-1])
    held = 2 * classes * SIZE * 4 / 1e6  # weights and momentum; and for the rows of a step, once more where sampled
    held += (1 if rate == 1.0 else 3) * rows * SIZE * 4 / 1e6  # their gradient
    return {
        "step_s": round(statistics.median(seconds), 3),
        "lowest_s": round(min(seconds), 3),
        "highest_s": round(max(seconds), 3),
        "processor_s": round(statistics.median(processor), 3),
        "others_cores": round(statistics.median(others), 2),
        "steps": len(seconds),
        "rows": rows,
        "weights_gradient_momentum_mb": round(held),
        "peak_above_mb": round(memory_mb()["peak"] - before - held),
        "formula_mb": round(formula(rows, 0 if way == "nothing kept" else MEMORY_MB << 20) / 1e6)
        if way in ("fastface", "nothing kept")
        else None,
    }


def formula(rows: int, memory_bytes: int) -> int:
    """Return the bytes that fastface/losses/class_softmax.py promises to stay below."""
    exponentials = BATCH * rows * 4
    kept = exponentials if exponentials <= memory_bytes else 0
    return kept + 12 * CHUNK_BYTES["cpu"] + 12 * BATCH * SIZE * 4


class Plain(nn.Module):
    """ArcFace (CVPR 2019, equation 3) as it is commonly written, the whole softmax at once.

    one_hot: every class gets the margin and a mask says which ones count; else only the own column is computed.
    """

    def __init__(self, classes: int, *, one_hot: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, SIZE) * 0.01)
        self.one_hot = one_hot

    def forward(self, embedding: Tensor, labels: Tensor) -> Tensor:
        cosine = F.linear(F.normalize(embedding), F.normalize(self.weight)).clamp(-1, 1)
        if self.one_hot:
            hardened = cosine * math.cos(0.5) - (1 - cosine**2).clamp_min(1e-9).sqrt() * math.sin(0.5)
            mask = F.one_hot(labels, len(self.weight)).to(cosine.dtype)
            return F.cross_entropy(64 * (mask * hardened + (1 - mask) * cosine), labels)
        rows = torch.arange(len(labels))
        own = cosine[rows, labels]
        hardened = own * math.cos(0.5) - (1 - own**2).clamp_min(1e-9).sqrt() * math.sin(0.5)
        return F.cross_entropy(64 * cosine.index_put((rows, labels), hardened), labels)


def build(way: str, classes: int, rate: float) -> Callable[[int, Tensor, Tensor], int]:
    """Return a training step: number, embedding and labels -> how many rows of centres took part."""
    if way in ("fastface", "nothing kept"):
        memory = 0 if way == "nothing kept" else MEMORY_MB
        head = MarginHead(classes, SIZE, margin=build_margin("arcface"), sample_rate=rate, memory_mb=memory)
        optimizer = torch.optim.SGD([head.learning], lr=0.1, momentum=0.9)

        def ours(number: int, embedding: Tensor, labels: Tensor) -> int:
            head.choose(number, labels.numpy, optimizer)
            head(embedding, labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            head.put_back(optimizer)
            return len(head.learning)

        return ours
    if way == "pytorch-metric-learning":
        from pytorch_metric_learning.losses import ArcFaceLoss

        loss: nn.Module = ArcFaceLoss(classes, SIZE, margin=math.degrees(0.5), scale=64)
    else:
        loss = Plain(classes, one_hot=way == "one-hot")
    learner = torch.optim.SGD(loss.parameters(), lr=0.1, momentum=0.9)

    def theirs(number: int, embedding: Tensor, labels: Tensor) -> int:
        loss(embedding, labels).backward()
        learner.step()
        learner.zero_grad()
        return classes

    return theirs


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a Markdown table; ratios are to fastface with the same classes."""
    columns = ["head", "step, s", "lowest to highest", "processor, s", "of fastface"]
    columns += ["weights, gradient, momentum, MB", "memory above, MB", "of fastface", "formula, MB"]
    print(f"| {' | '.join(columns)} |\n|---|{'---:|' * 8}")
    for row in rows:
        base = next(other for other in rows if other["name"].split(" classes")[0] == row["name"].split(" classes")[0])
        time_of, memory_of = (row[key] / base[key] for key in ("processor_s", "peak_above_mb"))
        print(f"| {row['name']} | {row['step_s']:.2f} | {row['lowest_s']:.2f} to {row['highest_s']:.2f} ", end="")
        print(f"| {row['processor_s']:.2f} | {time_of:.2f} | {row['weights_gradient_momentum_mb']:,} ", end="")
        print(f"| {row['peak_above_mb']:,} | {memory_of:.2f} | {row['formula_mb'] or '-'} |")


if __name__ == "__main__":
    sys.exit(main())
