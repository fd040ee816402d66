"""A network -> how long an embedding takes on a CPU: torch beside onnxruntime in fp32, fp16 and int8, and the files.

    python benchmarks/latency.py                                # 3 networks with random weights, batches of 1 and 32
    python benchmarks/latency.py --networks mobilefacenet --threads 1

Exit code 1: an output is not what torch gives. Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.common import RESULTS, append, others_s  # noqa: E402
from benchmarks.report import circumstances  # noqa: E402
from fastface.card import Card  # noqa: E402
from fastface.evaluation import unit  # noqa: E402
from fastface.models import build_backbone  # noqa: E402
from fastface.predictor import Embedder, module_embedder, open_onnx  # noqa: E402
from fastface.ship.export import write_onnx  # noqa: E402
from fastface.ship.onnx_graph import seal  # noqa: E402
from fastface.ship.quantisation import to_fp16, to_int8  # noqa: E402

BASE = "torch"
LEAST = {"onnxruntime fp32": 0.99999, "onnxruntime fp16": 0.999, "onnxruntime int8": 0.9}
"""Smallest accepted cosine of an embedding with torch's; of random weights int8 is only asked to be no nonsense."""


def main(arguments: list[str] | None = None) -> int:
    """Measure every network; print a table of each and append the results."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["mobilefacenet", "mbf", "iresnet50"], help="backbones")
    parser.add_argument("--size", type=int, default=112, help="side of the images, px")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32], help="images a call")
    parser.add_argument("--rounds", type=int, default=7, help="how often every row has its turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a turn")
    parser.add_argument("--threads", type=int, default=2, help="of torch and of onnxruntime")
    parser.add_argument("--out", type=Path, default=RESULTS / "latency.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    tables = [measure(name, options) for name in options.networks]
    for table in tables:
        print_table(table)
    method = {"rounds_interleaved": options.rounds, "seconds_a_turn": options.seconds, "threads": options.threads}
    record = {"method": method | {"statistic": "median"}, "size": options.size, "tables": tables}
    append(options.out, circumstances("latency", options.note) | record)
    wrong = [f"{table['network']}, {name}" for table in tables for name in table["wrong"]]
    if wrong:
        print(f"embeddings are not those of torch: {'; '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Let all rows take turns with each size of batch."""
    torch.manual_seed(0)
    network = build_backbone(name, embedding_size=512, input_size=(options.size, options.size), dropout=0.0)
    card = Card(input_size=(options.size, options.size), mean=127.5, std=127.5, embedding_size=512)
    smooth = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    images = np.stack(
        [np.kron(image, np.ones((options.size // 8, options.size // 8, 1), np.uint8)) for image in smooth]
    )
    settle(network, torch.from_numpy(np.float32(images.transpose(0, 3, 1, 2)) / 127.5 - 1))
    with tempfile.TemporaryDirectory(prefix="fastface-latency-") as folder:
        embedders, sizes = build(network, card, images, Path(folder), options.threads)
        expected = unit(embedders[BASE](images))
        cosines = {row: float((unit(e(images)) * expected).sum(axis=1).min()) for row, e in embedders.items()}
        began, others = time.perf_counter(), others_s()
        timed = {batch: take_turns(embedders, images, batch, options) for batch in options.batches}
        others = (others_s() - others) / (time.perf_counter() - began)
    rows = {
        row: {
            "mb": sizes.get(row),
            "least_cosine": cosines[row],
            **{f"batch_{batch}": figures(timed[batch][row], timed[batch][BASE]) for batch in options.batches},
        }
        for row in embedders
    }
    wrong = [row for row, least in LEAST.items() if not cosines[row] >= least]
    return {"network": name, "cores_used_by_others": round(others, 2), "rows": rows, "wrong": wrong}


def settle(network: torch.nn.Module, images: torch.Tensor) -> None:
    """Let BatchNorm see some images: with its first statistics deep random networks die out or overflow."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(images[:16])
    network.eval()


def build(
    network: torch.nn.Module, card: Card, images: np.ndarray, folder: Path, threads: int
) -> tuple[dict[str, Embedder], dict[str, float]]:
    """Return a row's embedder by its name, and the size of its file in MB."""
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    embedders = {BASE: module_embedder(network, card, "cpu", origin="torch")}
    sizes: dict[str, float] = {}
    paths = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    write_onnx(network, card, paths["fp32"])
    to_fp16(paths["fp32"], paths["fp16"])
    to_int8(paths["fp32"], paths["int8"], images[:32], embedders[BASE].prepare)
    for precision, path in paths.items():
        seal(path, precision)  # type: ignore[arg-type]
        own = card.model_copy(update={"precision": precision})
        embedders[f"onnxruntime {precision}"] = open_onnx(path, own, threads=threads)
        sizes[f"onnxruntime {precision}"] = round(path.stat().st_size / 1e6, 2)
    return embedders, sizes


def take_turns(
    embedders: dict[str, Embedder], images: np.ndarray, batch: int, options: argparse.Namespace
) -> dict[str, list[tuple[float, float]]]:
    """Call each network on the same normalised batch, round by round: seconds and processor seconds of a call."""
    planar = embedders[BASE].prepare(np.resize(images, (batch, *images.shape[1:])))
    turns: dict[str, list[tuple[float, float]]] = {row: [] for row in embedders}
    for row in embedders:
        turn(embedders[row].network, planar, 0.0)  # first calls allocate
    for _ in range(options.rounds):
        for row, embedder in embedders.items():
            turns[row].append(turn(embedder.network, planar, options.seconds))
    return turns


def turn(network: Callable[[np.ndarray], np.ndarray], planar: np.ndarray, seconds: float) -> tuple[float, float]:
    began, processor, calls = time.perf_counter(), time.process_time(), 0
    while True:
        network(planar)
        calls += 1
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            return elapsed / calls, (time.process_time() - processor) / calls


def figures(turns: list[tuple[float, float]], base: list[tuple[float, float]]) -> dict[str, float]:
    """Return medians in ms a call, their spread, and how many times as fast as torch, round by round."""
    ms = [1e3 * seconds for seconds, _ in turns]
    return {
        "ms": round(statistics.median(ms), 3),
        "lowest": round(min(ms), 3),
        "highest": round(max(ms), 3),
        "processor_ms": round(1e3 * statistics.median(processor for _, processor in turns), 3),
        "ratio": round(statistics.median(b[0] / t[0] for t, b in zip(turns, base, strict=True)), 3),
    }


def print_table(table: dict[str, Any]) -> None:
    """Print the rows as a Markdown table."""
    batches = [key for key in next(iter(table["rows"].values())) if key.startswith("batch_")]
    print(f"\n{table['network']}; other processes used {table['cores_used_by_others']} cores\n")
    heads = [f"{key.replace('_', ' ')}, ms | lowest to highest | times torch" for key in batches]
    print(f"| row | file, MB | {' | '.join(heads)} | least cosine with torch |")
    print(f"|---|---:|{'---:|' * (3 * len(batches) + 1)}")
    for name, row in table["rows"].items():
        cells = [
            f"{row[key]['ms']:.1f} | {row[key]['lowest']:.1f} to {row[key]['highest']:.1f} | {row[key]['ratio']:.2f}"
            for key in batches
        ]
        size = "-" if row["mb"] is None else f"{row['mb']:.1f}"
        print(f"| {name} | {size} | {' | '.join(cells)} | {row['least_cosine']:.5f} |")


if __name__ == "__main__":
    sys.exit(main())
