"""A loader that is killed again and again -> whether its samples are those of one that never was, to the last one.

    python benchmarks/interruption.py --shards shards/NAME

A process that only loads is killed with SIGKILL 1 to 5 s after each first batch and started again, from its own last
durable step, until it has done its epochs. Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, append, circumstances  # noqa: E402

ROW = np.dtype([("step", "<i8"), ("slot", "<i4"), ("record", "<i8"), ("key", "<u8"), ("pixels", "<u4")])


def main() -> int:
    """Run the loader through its kills and once undisturbed, compare what they delivered, keep the verdict."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="a shard set whose images have one size")
    parser.add_argument("--epochs", type=int, default=10, help="how far the loader has to get")
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument("--seed", type=int, default=0, help="of the order of samples, and of the moments of the kills")
    parser.add_argument("--save-every", type=int, default=7, help="steps between two durable states")
    parser.add_argument(
        "--kill-after", type=float, nargs=2, default=(1.0, 5.0), metavar="S", help="from and to, seconds"
    )
    parser.add_argument(
        "--images-per-s", type=float, default=1000, help="pace of the consumer, as a network sets it; 0: none"
    )
    parser.add_argument("--decoders", nargs="+", default=["torch", "dali-cpu"], help="taken in turn, start by start")
    parser.add_argument("--out", type=Path, default=RESULTS / "interruption.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # set in the processes that this one starts
    parser.add_argument("--decoder", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        load(options)
        return 0
    with tempfile.TemporaryDirectory(prefix="fastface-interruption-") as folder:
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        facts = interrupt(options, killed)
        start(options, whole, options.decoders[0], threads=2, pace=0).wait()
        verdict = compare(killed / "rows", whole / "rows")
    steps = verdict["rows"] // options.batch
    record = circumstances("interruption", options.note) | facts | verdict | {"steps": steps}
    record |= {name: getattr(options, name) for name in ("epochs", "batch", "seed", "save_every", "images_per_s")}
    record |= {"kill_after_s": list(options.kill_after), "decoders": options.decoders}
    done = "{kills} kills in {wall_s} s, {repeated_steps} whole steps done again; {rows:,} rows in {steps:,} steps"
    print(done.format(**record))
    print(f"step, slot, record, key and pixels of every row: {verdict['verdict']}")
    append(options.out, record)
    return 0 if verdict["verdict"] == "equal" else 1


def interrupt(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Start, wait for a first batch, kill 1 to 5 s later, until a process reaches the end by itself."""
    rng = np.random.default_rng(options.seed)
    kills, starts, lost, began = 0, 0, [], time.perf_counter()
    while True:
        decoder, threads = options.decoders[starts % len(options.decoders)], int(rng.integers(1, 4))
        process = start(options, work, decoder, threads, options.images_per_s)
        starts += 1
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("first batch"):
            if process.wait() == 0:  # the kill before it came when all was done
                break
            raise RuntimeError(f"start {starts} ended with exit code {process.returncode} before its first batch")
        try:
            process.wait(rng.uniform(*options.kill_after))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"start {starts} failed with exit code {process.returncode}")
        kills += 1
        step = read_state(work).get("step", 0)
        written = (work / "rows").stat().st_size // ROW.itemsize
        lost.append(written // options.batch - step)
        print(f"kill {kills}: {decoder}, {threads} threads, durable step {step}", file=sys.stderr, flush=True)
    return {"kills": kills, "starts": starts, "repeated_steps": sum(lost), "wall_s": round(time.perf_counter() - began)}


def start(options: argparse.Namespace, work: Path, decoder: str, threads: int, pace: float) -> subprocess.Popen[str]:
    """Start a process that loads."""
    work.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--work", str(work), "--decoder", decoder, "--threads", str(threads)]
    for name in ("shards", "epochs", "batch", "seed", "save_every"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    command += ["--images-per-s", str(pace)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def load(options: argparse.Namespace) -> None:
    """Go on from the last durable step to the end, writing a row for every sample delivered."""
    import torch

    from fastface.data.augment import Augment
    from fastface.data.index import Index
    from fastface.data.loader import Loader
    from fastface.data.plans import Shuffled
    from fastface.durable import write_durably

    torch.set_num_threads(1)
    index = Index.open(options.shards)
    assert index.image_size is not None
    plan = Shuffled(index.num_samples, options.batch, options.seed)
    identity = {"dataset_id": index.dataset_id, "plan": plan.describe()}  # and the step: all that a loader is
    state = read_state(options.work) or {**identity, "step": 0}  # killed before anything was durable: from the start
    if {name: state[name] for name in identity} != identity:
        raise ValueError(f"the state is of another data set or plan: {state}")
    stop = options.epochs * plan.steps_per_epoch
    micro = options.batch // 2  # two micro-batches a step: a kill may fall between them
    loader = Loader(
        index,
        plan,
        augment=Augment(flip=0.5),
        decoder=options.decoder,
        size=index.image_size,
        micro_batch=micro,
        threads=options.threads,
        check_crc=True,
    )
    (options.work / "rows").touch()
    with loader, open(options.work / "rows", "r+b") as file:
        file.truncate(state["step"] * options.batch * ROW.itemsize)  # rows after it are not known to be whole
        file.seek(0, os.SEEK_END)
        for number, batch in enumerate(loader.batches(state["step"], stop)):
            if number == 0:
                print(f"first batch, step {batch.step}", flush=True)
            slots = np.arange(batch.micro * micro, (batch.micro + 1) * micro)
            rows = np.empty(micro, ROW)
            rows["step"], rows["slot"], rows["record"] = batch.step, slots, batch.records
            rows["key"] = plan[batch.step].keys[slots]
            rows["pixels"] = [zlib.crc32(image) for image in batch.images.numpy()]
            file.write(rows.tobytes())
            file.flush()  # to the kernel, which outlives this process
            done = batch.step + (batch.micro == 1)
            if batch.micro == 1 and (done % options.save_every == 0 or done == stop):
                os.fsync(file.fileno())
                write_durably(options.work / "state.json", json.dumps({**identity, "step": done}).encode())
            if options.images_per_s:
                time.sleep(micro / options.images_per_s)


def read_state(work: Path) -> dict[str, Any]:
    """Return the last durable state; empty where a kill came before the first."""
    file = work / "state.json"
    return json.loads(file.read_text()) if file.exists() else {}


def compare(one: Path, other: Path) -> dict[str, Any]:
    """Say whether two files hold the same rows, and where they first differ."""
    a, b = np.fromfile(one, ROW), np.fromfile(other, ROW)
    common = min(len(a), len(b))
    differs = np.flatnonzero(a[:common] != b[:common])
    if len(differs):
        verdict = f"row {differs[0]:,} is {a[differs[0]]} and undisturbed {b[differs[0]]}"
    elif len(a) != len(b):
        verdict = f"{len(a):,} rows, undisturbed {len(b):,}"
    else:
        verdict = "equal"
    return {"rows": len(a), "crc32": f"{zlib.crc32(a.tobytes()):08x}", "verdict": verdict}


if __name__ == "__main__":
    sys.exit(main())
