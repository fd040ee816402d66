"""All pairs of many embeddings -> time and memory of exact figures, beside the bare matrix products and other ways.

    python benchmarks/pairs.py                          # 5,000,000,000 pairs; 10 minutes on two quiet cores, 2 GB
    python benchmarks/pairs.py --rows 20000 --repeat 1

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, append, forget_peak, memory_mb, others_s  # noqa: E402
from benchmarks.report import circumstances  # noqa: E402
from fastface.metrics.all_pairs import AllPairs, all_pairs  # noqa: E402
from fastface.metrics.all_pairs.panels import Panels, scan  # noqa: E402
from fastface.metrics.all_pairs.passes import Pass, grid_side  # noqa: E402
from fastface.metrics.all_pairs.products import product  # noqa: E402
from fastface.metrics.all_pairs.tally import Counts, Tally, no_counts  # noqa: E402
from fastface.metrics.scores import unit  # noqa: E402

WIDTH, IMAGES = 512, 10  # numbers of an embedding; images of an identity, on average
TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FEW = 5_000  # embeddings whose scores fit into memory one by one: 12,497,500 pairs
CASES: dict[str, tuple[str, str, bool]] = {  # name -> way, precision, whether only FEW rows are compared
    "products alone, float32": ("bare", "float32", False),
    "fastface, float32": ("ours", "float32", False),
    "products alone, half": ("bare", "half", False),
    "fastface, half": ("ours", "half", False),
    "FAISS range_search at one threshold": ("faiss", "float32", False),
    f"fastface, float32, {FEW:,} rows": ("ours", "float32", True),
    f"numpy and scikit-learn, {FEW:,} rows": ("sklearn", "float32", True),
}
BARE = {"float32": "products alone, float32", "half": "products alone, half"}


def main() -> int:
    """Measure each case in a process of its own, one after the other and all again; print and keep the result."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000, help="embeddings")
    parser.add_argument("--only", nargs="*", default=[""], help="cases whose names begin so")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "pairs.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)  # of started processes
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case[0], Path(options.case[1]), options.threads)), flush=True)
        return 0
    names = [name for name in CASES if name.startswith(tuple(options.only))]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "embeddings.npz"
        rows, labels = draw(options.rows)
        np.save(file.with_suffix(".npy"), rows)
        np.save(file.with_suffix(".labels.npy"), labels)
        for _ in range(options.repeat):
            for name in names:
                command = [sys.executable, __file__, "--case", name, str(file), "--threads", str(options.threads)]
                environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE"}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                runs[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{name}: {runs[name][-1]}", file=sys.stderr)
    wrong = disagreements(runs)
    rows_of = [summary(name, runs) for name in names]
    print_table(rows_of, options.rows)
    print("\n".join(wrong) or "all cases agree on every count they have in common")
    about = {"embeddings": options.rows, "width": WIDTH, "threads": options.threads, "disagreements": wrong}
    append(options.out, circumstances("pairs", options.note) | about | {"rows": rows_of})
    return bool(wrong)


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw embeddings of people, float32 [N, 512], not of unit length, shuffled; some twice, a few not usable."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, max(number // IMAGES, 2), number)
    centres = rng.standard_normal((labels.max() + 1, WIDTH), dtype=np.float32)
    rows = np.empty((number, WIDTH), np.float32)
    for start in range(0, number, 10_000):
        some = labels[start : start + 10_000]
        spread = rng.uniform(1.2, 3.0, (len(some), 1)).astype(np.float32)  # good pictures and poor ones
        rows[start : start + len(some)] = centres[some] + spread * rng.standard_normal(
            (len(some), WIDTH), dtype=np.float32
        )
    rows[: number // 1_000] = rows[number // 2 : number // 2 + number // 1_000]
    rows[rng.integers(0, number, 5)] = np.nan
    return rows, labels


def measure(name: str, file: Path, threads: int) -> dict[str, Any]:
    """Do it once; return time, memory and what was found."""
    way, precision, few = CASES[name]
    rows, labels = np.load(file.with_suffix(".npy"), mmap_mode="r"), np.load(file.with_suffix(".labels.npy"))
    if few:
        rows, labels = rows[:FEW], labels[:FEW]
    torch.set_num_threads(threads)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: figures(all_pairs(rows, labels, TARGETS, precision=precision, threads=threads)),
        "bare": lambda: bare(rows, labels, precision, threads),
        "faiss": lambda: by_faiss(rows, threads),
        "sklearn": lambda: by_sklearn(rows, labels),
    }
    all_pairs(np.asarray(rows[:300]), labels[:300] % 9, TARGETS, precision=precision)  # compiled, all libraries there
    np.asarray(rows).sum()  # read into the page cache
    before = memory_mb()["anonymous"]
    forget_peak()
    begun, used, theirs = time.perf_counter(), time.process_time(), others_s()
    found = ways[way]()
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "processor_s": time.process_time() - used,
        "others_cores": (others_s() - theirs) / seconds,
        "pairs": len(rows) * (len(rows) - 1) // 2,
        "peak_above_mb": memory_mb()["peak"] - before,  # pages of the mapped file among it
        **found,
    }


def figures(found: AllPairs) -> dict[str, Any]:
    counts = [[point.threshold, round(point.tar * point.genuine), point.errors] for point in found.points]
    equal = [found.equal_threshold, found.equal.false_matches, found.equal.false_non_matches]
    certain = {"auc": found.auc.value, "auc_error": found.auc.error}
    return {"passes": found.passes, "rescored": found.rescored, "points": counts, "equal": equal, **certain}


class Products(Pass):
    """The same tiles by the same threads, multiplied and dropped."""

    def tally(self) -> Tally:
        return Nothing()  # type: ignore[return-value]


class Nothing:
    def add(self, *tile: Any) -> None:
        pass

    def take(self) -> Counts:
        return no_counts([])


def bare(rows: np.ndarray, labels: np.ndarray, precision: str, threads: int) -> dict[str, Any]:
    """Normalise all rows and multiply all pairs, once."""
    device = torch.device("cpu")
    usable = scan(rows, labels, device, half=False)
    multiply = product(torch.float32 if precision == "float32" else torch.bfloat16, WIDTH, 0.003)
    panels = Panels(usable, grid_side(len(usable.order)), multiply.kind, device, 1_024)
    over = Products(panels, [], multiply, threads=threads, loops=None, counted=lambda pairs: None)
    for _ in over.run(panels.units()):
        pass
    return {"passes": 1}


def by_faiss(rows: np.ndarray, threads: int) -> dict[str, Any]:
    """Count pairs of a float32 product of at least 0.2; of what is there, FAISS comes closest to counting."""
    import faiss

    faiss.omp_set_num_threads(threads)
    vectors = np.nan_to_num(unit(np.asarray(rows))).astype(np.float32)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(vectors)
    accepted = 0
    for start in range(0, len(vectors), 4_096):  # results of all rows at once would not fit into memory
        limits = index.range_search(vectors[start : start + 4_096], 0.2)[0]
        accepted += int(limits[-1])
    own = int((np.einsum("ij,ij->i", vectors, vectors) >= 0.2).sum())
    return {"passes": 1, "accepted_at_0.2": (accepted - own) // 2}


def by_sklearn(rows: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Write all scores down, and read the thresholds off scikit-learn's curve."""
    from sklearn.metrics import roc_auc_score, roc_curve

    vectors = unit(np.asarray(rows))
    upper = np.triu_indices(len(vectors), 1)
    scores = (vectors @ vectors.T)[upper].astype(np.float32)
    same = labels[upper[0]] == labels[upper[1]]
    scores = np.where(np.isfinite(scores), scores, np.float32(-2))
    wrong, right, thresholds = roc_curve(same, scores, drop_intermediate=False)
    genuine, impostors = int(same.sum()), int((~same).sum())
    points = []
    for target in TARGETS:
        last = int(np.searchsorted(wrong, target, side="right")) - 1
        above = np.nextafter(np.float32(thresholds[last + 1]), np.float32(2))
        points.append([float(above), round(right[last] * genuine), round(wrong[last] * impostors)])
    return {"passes": 1, "points": points, "auc": float(roc_auc_score(same, scores))}


def disagreements(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """List where cases that compare the same pairs differ in a count, or an AUC is further off than it says."""
    found = []
    for few in (False, True):
        results = [(name, run) for name in runs if CASES[name][2] == few for run in runs[name] if "points" in run]
        for name, run in results[1:]:
            first = results[0][1]
            differ = [key for key in ("points", "equal") if key in run and run[key] != first[key]]
            found += [f"{name}: {key} differ from {results[0][0]}" for key in differ]
            bound = first["auc_error"] + run.get("auc_error", 0.0)
            if abs(first["auc"] - run["auc"]) > bound + 1e-12:
                found.append(f"{name}: AUC is {abs(first['auc'] - run['auc'])} from {results[0][0]}, more than {bound}")
    return sorted(set(found))


def summary(name: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Put the medians of a case in a row; its ratio is to the products of as many pairs, as often."""
    own = runs[name]
    row = {key: statistics.median(run[key] for run in own) for key in ("seconds", "processor_s", "peak_above_mb")}
    row |= {"lowest_s": min(run["seconds"] for run in own), "highest_s": max(run["seconds"] for run in own)}
    row |= {"others_cores": statistics.median(run["others_cores"] for run in own)}
    row |= {key: value for key, value in own[-1].items() if key not in row}
    _, precision, few = CASES[name]
    base = runs.get(BARE[precision])
    if base and not few:
        each = statistics.median(run["processor_s"] for run in base)
        row["of_products"] = each * row["passes"] / row["processor_s"]
    return {"name": name, "runs": len(own), **row}


def print_table(rows: list[dict[str, Any]], number: int) -> None:
    """Print a Markdown table."""
    print(f"{number:,} embeddings of {WIDTH}, {number * (number - 1) // 2:,} pairs\n")
    print(
        "| way | s | lowest to highest | processor, ns a pair | products' share | passes | scored again | memory, MB |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        share = f"{row['of_products']:.2f}" if "of_products" in row else "-"
        again = f"{row['rescored'] / row['pairs']:.2%}" if "rescored" in row else "-"
        print(f"| {row['name']} | {row['seconds']:.1f} | {row['lowest_s']:.1f} to {row['highest_s']:.1f} ", end="")
        print(f"| {row['processor_s'] / row['pairs'] * 1e9:.2f} | {share} | {row['passes']} | {again} ", end="")
        print(f"| {row['peak_above_mb']:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
