"""Class centres -> the time, memory and recall of finding the 50 nearest of each, beside the ways that others do it.

    python benchmarks/mining.py                        # 100,000 centres of 512 values; long ways are cut short
    python benchmarks/mining.py --centres 1000000 --only fastface

Each way runs in a process of its own. One that would take longer than --seconds answers as many queries as it can in
that time, after its index is built; its time for all is calculated, as every query costs about the same. Method and
results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, append, forget_peak, memory_mb, others_s  # noqa: E402
from benchmarks.report import circumstances  # noqa: E402
from fastface.mining.hard import Finder  # noqa: E402
from fastface.mining.search import KINDS, QUERIES, Kind, Search, use_threads  # noqa: E402

WIDTH, NEIGHBOURS, CHECKED = 512, 50, 200
FAMILY = 20  # centres that lie around a common direction, as those of people who look alike do
Ask = Callable[[np.ndarray], np.ndarray]
"""Numbers of centres int64 [q] -> the nearest others of each, int64 [q, NEIGHBOURS], -1 where there are none."""


def main() -> int:
    """Measure each way in a process of its own; print and keep the result."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--centres", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of searching, for each way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="ways whose names begin so")
    parser.add_argument("--out", type=Path, default=RESULTS / "mining.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)  # set in the processes that this one starts
    options = parser.parse_args()
    if options.case:
        name, file = options.case
        print(json.dumps(measure(name, np.load(file, mmap_mode="r"), options.seconds, options.threads)), flush=True)
        return 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="fastface-mining-") as folder:
        file = Path(folder) / "centres.npy"
        np.save(file, centres(options.centres))
        for name in WAYS:
            if not name.startswith(options.only):
                continue
            command = [sys.executable, __file__, "--case", name, str(file)]
            command += ["--seconds", str(options.seconds), "--threads", str(options.threads)]
            environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE"}
            environment["OPENBLAS_NUM_THREADS"] = str(options.threads)
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            rows.append({"name": name, **json.loads(done.stdout.splitlines()[-1])})
            print(rows[-1], file=sys.stderr, flush=True)
    print_table(rows)
    record = {"centres": options.centres, "width": WIDTH, "neighbours": NEIGHBOURS, "threads": options.threads}
    append(options.out, circumstances("mining", options.note) | record | {"rows": rows})
    return 0


def centres(count: int) -> np.ndarray:
    """Draw unit centres around common directions, so that neighbours are nearer than chance: cosines of 0.3 to 0.6."""
    rng = np.random.default_rng(0)
    rows = np.empty((count, WIDTH), np.float32)
    common = rng.standard_normal((-(-count // FAMILY), WIDTH), np.float32)
    for start in range(0, count, QUERIES):
        part = rows[start : start + QUERIES]
        part[:] = rng.standard_normal(part.shape, np.float32)
        part += common[rng.integers(0, len(common), len(part))] * rng.uniform(0.6, 1.0, (len(part), 1)).astype("f4")
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def measure(name: str, rows: np.ndarray, seconds: float, threads: int) -> dict[str, Any]:
    """Build, ask for as many queries as `seconds` allow, and compare some answers with float64 products of all rows."""
    rows = np.asarray(rows).copy()
    use_threads(threads)
    WAYS[name](rows[:1_000])(np.arange(2))  # what is loaded on first use is not the search's
    before = memory_mb()["anonymous"]
    forget_peak()
    begun, theirs = time.perf_counter(), others_s()
    ask = WAYS[name](rows)
    built = time.perf_counter() - begun
    order = np.random.default_rng(1).permutation(len(rows))
    answers, asked, since = [], 0, time.perf_counter()
    while asked < len(rows) and time.perf_counter() - since < seconds:
        answers.append(ask(order[asked : asked + QUERIES]))
        asked += len(answers[-1])
    searched = time.perf_counter() - since
    found = np.concatenate(answers)[:CHECKED]
    return {
        "build_s": round(built, 2),
        "search_s": round(searched * len(rows) / asked, 2),
        "asked": asked,
        "recall": round(recall(rows, order[: len(found)], found), 4),
        "memory_mb": round(memory_mb()["peak"] - memory_mb()["file"] - before),
        "rows_mb": round(rows.nbytes / 1e6),
        "others_cores": round((others_s() - theirs) / (time.perf_counter() - begun), 2),
    }


def recall(rows: np.ndarray, queries: np.ndarray, found: np.ndarray) -> float:
    """Return which share of the true nearest others is among what was found, by float64 products."""
    hits, wide = 0, rows[queries].astype(np.float64)
    parts = [wide @ rows[start : start + 50_000].T for start in range(0, len(rows), 50_000)]
    scores = np.concatenate(parts, axis=1)
    scores[np.arange(len(queries)), queries] = -2
    wanted = min(NEIGHBOURS, len(rows) - 1)
    for row, answer in zip(scores, found, strict=True):
        hits += len(np.intersect1d(np.argsort(-row)[:wanted], answer))
    return hits / (len(queries) * wanted)


def ours(kind: Kind) -> Callable[[np.ndarray], Ask]:
    """Search through FAISS and score again in float64, without own rows: what training and mine.py do."""

    def build(rows: np.ndarray) -> Ask:
        finder = Finder(rows, np.arange(len(rows)), 0, Search(rows, kind, gpu=False), 1.0, NEIGHBOURS)

        def ask(numbers: np.ndarray) -> np.ndarray:
            links = finder(numbers)
            answer = np.full((len(numbers), NEIGHBOURS), -1, np.int64)
            order = np.argsort(links.row, kind="stable")
            owner = links.row[order]
            place = np.arange(len(owner)) - np.searchsorted(owner, owner, "left")
            number = np.argsort(numbers)[np.searchsorted(np.sort(numbers), owner)]
            answer[number, place] = links.other[order]
            return answer

        return ask

    return build


def numpy_products(rows: np.ndarray) -> Ask:
    """Multiply with all rows in float32 and keep the best by argpartition: exact, in plain numpy."""

    def ask(numbers: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(numbers), 256):
            part = numbers[start : start + 256]
            scores = rows[part] @ rows.T
            scores[np.arange(len(part)), part] = -2
            top = np.argpartition(scores, -min(NEIGHBOURS, len(rows) - 1), axis=1)[:, -min(NEIGHBOURS, len(rows) - 1) :]
            best = np.argsort(-np.take_along_axis(scores, top, 1), axis=1)
            parts.append(np.take_along_axis(top, best, 1))
        return np.concatenate(parts)

    return ask


def plain_faiss(factory: str, **settings: int) -> Callable[[np.ndarray], Ask]:
    """Use FAISS as its wiki does: index_factory, train, add, search k + 1, drop the query."""

    def build(rows: np.ndarray) -> Ask:
        import faiss

        words = factory.format(lists=max(1, min(int(4 * len(rows) ** 0.5), len(rows) // 39)))
        index = faiss.index_factory(WIDTH, words, faiss.METRIC_INNER_PRODUCT)
        index.train(rows)
        index.add(rows)
        for key, value in settings.items():
            faiss.ParameterSpace().set_index_parameter(index, key, value)
        return lambda numbers: without_own(index.search(rows[numbers], NEIGHBOURS + 1)[1], numbers)

    return build


def metric_learning(rows: np.ndarray) -> Ask:
    """pytorch-metric-learning's FaissKNN over an IndexFlatIP, built once."""
    import faiss
    import torch
    from pytorch_metric_learning.utils.inference import FaissKNN

    knn = FaissKNN(reset_before=False, reset_after=False, index_init_fn=faiss.IndexFlatIP)
    knn.train(torch.from_numpy(rows))

    def ask(numbers: np.ndarray) -> np.ndarray:
        _, ids = knn(torch.from_numpy(rows[numbers]), NEIGHBOURS + 1)
        return without_own(ids.numpy(), numbers)

    return ask


def without_own(ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Drop each query's own row, or its last answer where it did not find itself: [q, k + 1] to [q, k]."""
    own = ids == numbers[:, None]
    own[~own.any(axis=1), -1] = True
    return ids[~own].reshape(len(ids), -1)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a Markdown table."""
    keys = ["build_s", "search_s", "asked", "recall", "memory_mb", "others_cores"]
    print(f"| way | {' | '.join(['build, s', 'all queries, s', 'asked', 'recall', 'memory, MB', 'cores of others'])} |")
    print(f"|---|{'---:|' * len(keys)}")
    for row in rows:
        print(f"| {row['name']} | {' | '.join(f'{row[key]:,}' for key in keys)} |")


WAYS: dict[str, Callable[[np.ndarray], Ask]] = {
    **{f"fastface, {kind}": ours(kind) for kind in KINDS},
    "numpy": numpy_products,
    "FAISS, flat": plain_faiss("Flat"),
    "FAISS, ivf": plain_faiss("IVF{lists},Flat", nprobe=16),
    "FAISS, hnsw": plain_faiss("HNSW32", efSearch=64),
    "FAISS, pq": plain_faiss("IVF{lists},PQ64", nprobe=16),
    "pytorch-metric-learning, FaissKNN": metric_learning,
}

if __name__ == "__main__":
    sys.exit(main())
