"""A network and a number of identities -> how long one optimizer step takes, here and in other trainers.

    python benchmarks/step.py --arcface-torch insightface/recognition/arcface_torch    # a clone of InsightFace
    python benchmarks/step.py --networks mbf --classes 10000 --quick                   # minutes, without a peer

Exit code 1: losses that should be equal are not. Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.common import RESULTS, append, others_s  # noqa: E402
from benchmarks.inputs import draw  # noqa: E402
from benchmarks.peaks import wait  # noqa: E402
from benchmarks.report import circumstances  # noqa: E402
from benchmarks.start import make_index  # noqa: E402
from benchmarks.step_cases import BASE, CASES, CONTIGUOUS, LR, METRIC_LEARNING, begin, kept_batches  # noqa: E402
from benchmarks.steppers import INSIGHTFACE, Stepper  # noqa: E402
from fastface.conversion.convert import Options, convert  # noqa: E402

AGREE = 1e-5  # largest relative difference of losses that should be equal; a GPU and half precision are not held to it
NEEDED = "partial_fc_v2.py"  # what tells a clone of arcface_torch
HELD = 2  # of the first losses; from random weights rounding grows a hundredfold with each further step
PARTS = ("forward", "loss", "backward", "optimizer")


GOALS = (  # row, what it is compared with, least ratio
    (BASE, "loop by hand, channels last", 0.98),
    (CONTIGUOUS, "loop by hand", 0.98),
    (BASE, "arcface_torch", 1.0),
    (CONTIGUOUS, "arcface_torch", 1.0),
    ("fastface, sample_rate 0.1", "arcface_torch, sample_rate 0.1", 1.0),
)


def main(arguments: list[str] | None = None) -> int:
    """Measure every network with every number of identities; print a table of each and append the results."""
    options = parse(arguments)
    tables, wrong = [], []
    with tempfile.TemporaryDirectory(prefix="fastface-step-") as folder:
        work = Path(folder)
        draw(work / "raw", 512, distinct=512)
        convert(Options("folder", work / "raw", work / "drawn", shard_size=512))
        for classes in options.classes:
            shards = work / f"{classes}-identities"
            make_index(work / "drawn", shards, samples=classes, identities=classes, per_shard=512)
            for network in options.networks:
                table = measure(network, shards, work, options)
                gc.collect()
                tables.append(table)
                print_table(table)
                wrong += table["disagree"]
    record = circumstances("step", options.note) | {"method": method(options), "tables": tables}
    if options.out:
        append(options.out, record)
    if wrong:
        print(f"losses that should be equal differ by more than {AGREE:g}: {'; '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--arcface-torch", type=Path, help="recognition/arcface_torch of a clone of InsightFace")
    parser.add_argument("--networks", nargs="+", default=["mbf", "iresnet18", "iresnet50"], choices=list(INSIGHTFACE))
    parser.add_argument("--classes", nargs="+", type=int, default=[10_000, 93_431], help="numbers of identities")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--rounds", type=int, default=5, help="how often every loop has its turn")
    parser.add_argument("--steps", type=int, help="steps of a turn; default: 1, on a GPU 20")
    parser.add_argument("--check-steps", type=int, default=3, help="unclipped steps before, whose losses are compared")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: all cores")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows beside fastface, by how their names begin")
    parser.add_argument("--quick", action="store_true", help="three rounds of the smallest network and head named")
    parser.add_argument("--out", type=Path, default=RESULTS / "step.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    options = parser.parse_args(arguments)
    options.steps = options.steps or (20 if options.device.startswith("cuda") else 1)
    if options.quick:
        options.networks, options.classes, options.rounds = options.networks[:1], [min(options.classes)], 3
    if options.arcface_torch is None:
        print("arcface_torch: left out, --arcface-torch names no clone", file=sys.stderr)
    elif not (options.arcface_torch / NEEDED).exists():
        parser.error(f"{options.arcface_torch} has no {NEEDED}: name recognition/arcface_torch of a clone")
    chosen = [n for n in CASES if not options.only or n == BASE or any(n.startswith(word) for word in options.only)]
    options.cases = [n for n in chosen if options.arcface_torch or not n.startswith("arcface_torch")]
    if METRIC_LEARNING in options.cases and find_spec("pytorch_metric_learning") is None:
        print(f"{METRIC_LEARNING}: left out, pytorch-metric-learning is not installed", file=sys.stderr)
        options.cases.remove(METRIC_LEARNING)
    if min(options.classes) < options.batch * kept_batches(options):
        parser.error(f"--classes must be at least {options.batch * kept_batches(options)}: an image of each is kept")
    return options


def measure(network: str, shards: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build all loops, compare their first losses, then let them take turns."""
    setting = begin(network, shards, work, options)
    device = setting.batches[0].images.device
    steppers = {name: CASES[name].build(setting) for name in options.cases}
    losses = {name: first_losses(stepper, options.check_steps) for name, stepper in steppers.items()}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in steppers}
    others, clock, number = others_s(), time.perf_counter(), 0
    for turn in range(-1, options.rounds):  # the first is not counted: momentum and clipping allocate
        names = list(steppers)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken = take_turn(steppers[name], number, options.steps, device)
            if turn >= 0:
                turns[name].append(taken)
                print(f"{turn + 1}/{options.rounds} {name}: {taken['ms']:,.0f} ms", file=sys.stderr)
        number += options.steps
    busy = max(0.0, (others_s() - others) / (time.perf_counter() - clock))
    rows = {name: row(turns[name], turns[BASE], losses[name], options.batch) for name in steppers}
    for name in rows:
        rows[name] |= compared(name, losses)
    held = options.precision == "fp32" and device.type == "cpu"
    apart = [n for n, r in rows.items() if max(r["differences"][:HELD], default=0.0) > AGREE]
    return {
        "network": network,
        "identities": len(setting.centres),
        "batch": options.batch,
        "cores_used_by_others": round(busy, 2),
        "rows": rows,
        "goals": goals(turns),
        "disagree": [f"{network}, {len(setting.centres):,}: {n}" for n in apart] if held else [],
    }


def first_losses(stepper: Stepper, steps: int) -> list[float]:
    """Train unclipped, since the loops do not clip the same gradients, and return the losses."""
    stepper.clip(False)
    losses = []
    for number in range(steps):
        losses.append(float(stepper.step(number % len(stepper.batches))))
        stepper.watch.end_step()
    stepper.watch.take()
    stepper.clip(True)
    return losses


def take_turn(stepper: Stepper, number: int, steps: int, device: torch.device) -> dict[str, float]:
    """Take some steps; return milliseconds of one, of the processor for it, and of its parts."""
    wait(device)
    start, processor = time.perf_counter(), time.process_time()
    for step in range(number, number + steps):
        stepper.step(step % len(stepper.batches))
        stepper.watch.end_step()
    wait(device)
    elapsed, processor = time.perf_counter() - start, time.process_time() - processor
    return {"ms": 1e3 * elapsed / steps, "processor_ms": 1e3 * processor / steps, **stepper.watch.take()}


def row(turns: list[dict[str, float]], base: list[dict[str, float]], losses: list[float], batch: int) -> dict[str, Any]:
    """Return medians and spread, the ratio to the base round by round, and the first losses."""
    rates = [1e3 * batch / taken["ms"] for taken in turns]
    return {
        "images_s": round(statistics.median(rates), 2),
        "lowest": round(min(rates), 2),
        "highest": round(max(rates), 2),
        "ratio": ratio(turns, base),
        "processor_ms": round(statistics.median(taken["processor_ms"] for taken in turns), 1),
        **{f"{part}_ms": round(statistics.median(taken.get(part, 0.0) for taken in turns), 2) for part in PARTS},
        "losses": losses,
    }


def compared(name: str, losses: dict[str, list[float]]) -> dict[str, Any]:
    """Return the row that a row's first losses should equal, and how far they are from its, relatively."""
    equal, count = CASES[name].equal, CASES[name].losses
    if equal not in losses:
        return {"equal": None, "differences": []}
    pairs = zip(losses[name][:count], losses[equal][:count], strict=True)
    return {"equal": equal, "differences": [abs(a - b) / abs(b) for a, b in pairs]}


def ratio(turns: list[dict[str, float]], base: list[dict[str, float]], clock: str = "ms") -> float:
    """Return how many times as fast as the base: the median over rounds, so that slow minutes cancel."""
    return round(statistics.median(b[clock] / t[clock] for t, b in zip(turns, base, strict=True)), 3)


def goals(turns: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Compare what was measured with what is wanted."""
    found = []
    for name, of, least in GOALS:
        if name in turns and of in turns:
            ratios = [ratio(turns[name], turns[of], clock) for clock in ("ms", "processor_ms")]
            found.append({"row": name, "of": of, "least": least, "ratio": ratios[0], "processor_ratio": ratios[1]})
    return found


def method(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a reader needs to repeat the measurement."""
    device = torch.device(options.device)
    peers = {}
    if METRIC_LEARNING in options.cases:
        peers["pytorch-metric-learning"] = version("pytorch-metric-learning")
    if options.arcface_torch:
        peers["partial_fc_v2.py, sha256"] = hashlib.sha256((options.arcface_torch / NEEDED).read_bytes()).hexdigest()
    return {
        "peers": peers,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": options.precision,
        "threads": torch.get_num_threads(),
        "rounds_interleaved": options.rounds,
        "steps_a_turn": options.steps,
        "check_steps": options.check_steps,
        "lr": LR,
        "statistic": "median",
    }


def print_table(table: dict[str, Any]) -> None:
    """Print the rows as a Markdown table, and the goals."""
    print(f"\n{table['network']}, {table['identities']:,} identities, batch {table['batch']}; ", end="")
    print(f"other processes used {table['cores_used_by_others']} cores\n")
    parts = " | ".join(PARTS)
    print(f"| loop | images/s | lowest to highest | of fastface | {parts}, ms | processor, ms | losses differ by |")
    print("|---|---:|---:|---:|" + "---:|" * (len(PARTS) + 2))
    for name, r in table["rows"].items():
        parts = " | ".join(f"{r[f'{part}_ms']:,.0f}" for part in PARTS)
        apart = ", ".join(f"{difference:.0e}" for difference in r["differences"])
        print(f"| {name} | {r['images_s']:.1f} | {r['lowest']:.1f} to {r['highest']:.1f} | ", end="")
        print(f"{r['ratio']:.2f} | {parts} | {r['processor_ms']:,.0f} | {apart} |")
    print(f"\nfirst losses of {BASE}: {', '.join(f'{loss:.6f}' for loss in table['rows'][BASE]['losses'])}")
    for goal in table["goals"]:
        met = "yes" if goal["ratio"] >= goal["least"] else "NO"
        print(
            f"{met}: {goal['row']} is {goal['ratio']:.2f} times as fast as {goal['of']}, wanted {goal['least']:.2f};",
            end="",
        )
        print(f" by processor time {goal['processor_ratio']:.2f}")


if __name__ == "__main__":
    sys.exit(main())
