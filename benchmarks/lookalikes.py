"""Drawn people with look-alikes -> what mining gains: equal runs but for whom they meet, over several seeds.

    python -m benchmarks.lookalikes                       # 3 seeds x 2 plans, 2 minutes on 2 idle cores

People are patterns that come in families: a member's own features are an eighth as strong as those it shares. Both
plans train the same network from the same start on as many images; `random` draws identities at random, `mined` lets
them meet those nearest to them, mined anew on the way. Scored on families never trained on. Method and results:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, append  # noqa: E402
from benchmarks.report import circumstances  # noqa: E402
from fastface.command import Command, load_config  # noqa: E402
from fastface.conversion.convert import convert  # noqa: E402
from fastface.conversion.options import Options  # noqa: E402
from fastface.run import build_run  # noqa: E402
from fastface.trainer import train as train_run  # noqa: E402

SIZE, MEMBERS, IMAGES = 32, 3, 6
FAMILIES = {"train": 150, "val": 40}
SHARED, OWN, BLUR, GRAIN = 40.0, 5.0, 3.0, 4.0  # standard deviations, in levels of 255
IMPOSTORS = 10  # pairs of images for each two members of a family
BATCH = 48
ALIKE = {"source": "embeddings", "listed": 2, "cap": 1.0}  # a family is 3: a list of 50 would hold hardly any of it
PLANS: dict[str, dict[str, Any]] = {
    "random": {"name": "per-identity", "images": 4, "scope": "global"},
    "mined": {"name": "mined", "images": 4, "neighbours": 1, "scope": "global", **ALIKE},
}
TASKS: dict[str, dict[str, Any]] = {
    "triplet": {"name": "triplet", "margin": 0.2, "mining": "semi-hard"},
    "supcon": {"name": "supcon", "temperature": 0.1},
}


def main() -> int:
    """Draw the people, train with each plan and seed, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="triplet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=240, help="of 48 images")
    parser.add_argument("--refresh", type=int, default=40, help="steps between two minings")
    parser.add_argument("--work", type=Path, help="where pictures and runs go, and stay (default: nowhere)")
    parser.add_argument("--out", type=Path, default=RESULTS / "lookalikes.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastface-lookalikes-") as temporary:
        work = options.work or Path(temporary)
        draw(work)
        rows = []
        for seed in range(options.seeds):
            for plan in PLANS:
                figures = train(work, options.task, plan, seed, options.steps, options.refresh)
                rows.append({"plan": plan, "seed": seed, **figures})
                print(rows[-1], file=sys.stderr, flush=True)
    print_table(rows)
    method = {"task": options.task, "steps": options.steps, "refresh_steps": options.refresh}
    append(options.out, circumstances("lookalikes", options.note) | method | {"rows": rows})
    return 0


def draw(work: Path) -> None:
    """Draw the families into shard sets work/train and work/val, and the pairs to score: work/*.csv."""
    if (work / "val" / "meta.json").is_file():
        return
    for which, (split, count) in enumerate(FAMILIES.items()):
        for number, member in itertools.product(range(count), range(MEMBERS)):
            folder = work / "raw" / split / f"family-{number:03d}-{member}"
            folder.mkdir(parents=True, exist_ok=True)
            shared = pattern(np.random.default_rng([which, number]), 4)
            own = pattern(np.random.default_rng([which, number, member]), 4)
            for image in range(IMAGES):
                rng = np.random.default_rng([which, number, member, image])
                picture = 128 + SHARED * shared + OWN * own + BLUR * pattern(rng, 8)
                picture *= rng.uniform(0.95, 1.05)
                picture += GRAIN * rng.standard_normal(picture.shape)
                pixels = Image.fromarray(picture.clip(0, 255).round().astype(np.uint8))
                pixels.save(folder / f"{image}.jpg", quality=92)
        convert(Options("folder", work / "raw" / split, work / split, workers=1))
    for name, other in (("family", 0), ("anyone", 1)):
        with open(work / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["a", "b", "same"], *pairs(FAMILIES["val"], other)])


def pattern(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Draw smooth colours of mean 0 and standard deviation 1 on a grid of cells: float64 [SIZE, SIZE, 3]."""
    grid = rng.standard_normal((cells, cells, 3)).astype(np.float32)
    layers = [Image.fromarray(grid[..., c]).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for c in range(3)]
    smooth = np.stack([np.asarray(layer) for layer in layers], axis=2).astype(np.float64)
    return (smooth - smooth.mean()) / smooth.std()


def pairs(families: int, other: int) -> list[list[object]]:
    """List genuine pairs, and as many impostors: of members of a family, or of a family and the `other`-th after it."""
    rng, found = np.random.default_rng(0), []
    for number in range(families):
        for a, b in itertools.combinations(range(MEMBERS), 2):
            people = f"family-{number:03d}-{a}", f"family-{(number + other) % families:03d}-{b}"
            for _ in range(IMPOSTORS):
                one, two = rng.choice(IMAGES, 2, replace=False).tolist()
                found.append([f"{people[0]}/{one}.jpg", f"{people[1]}/{two}.jpg", 0])
                found.append([f"{people[0]}/{one}.jpg", f"{people[0]}/{two}.jpg", 1])
    return found


def train(work: Path, task: str, plan: str, seed: int, steps: int, refresh: int) -> dict[str, float]:
    """Train with a plan; return the figures of both kinds of pairs."""
    settings = PLANS[plan] | ({"refresh_steps": refresh} if plan == "mined" else {})
    sets = {name: {"images": str(work / "val"), "pairs": str(work / f"{name}.csv")} for name in ("family", "anyone")}
    config = {
        "seed": seed,
        "out": str(work / "runs"),
        "task": TASKS[task],
        "model": {"backbone": "test_resnet", "stem": "keep", "embedding_size": 32},
        "data": {"shards": str(work / "train"), "size": [SIZE, SIZE], "plan": settings},
        "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "schedule": "constant", "warmup_epochs": 0},
        "train": {"epochs": 1_000, "max_steps": steps, "batch_size": BATCH},
        "eval": {"every_epochs": None, "sets": sets},
        "log": {"tensorboard": False},
        "runtime": {"device": "cpu", "threads": 1},
    }
    file = work / f"{task}-{plan}-{seed}.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    AcceleratorState._reset_state()  # it keeps the first run's settings for the life of the process
    run = build_run(Command(load_config(file), file.stem, None))
    train_run(run)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == steps
    (found,) = [line["eval"] for line in lines if "eval" in line]
    return {f"{name}_{key}": round(found[f"{name}/{key}"], 4) for name in sets for key in ("acc", "auc", "tar_1e-2")}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the figures of each plan, mean and spread over the seeds, and the gain of every seed, as Markdown."""
    keys = [key for key in rows[0] if key not in ("plan", "seed")]
    by = {(row["plan"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    print(f"| plan | {' | '.join(keys)} |\n|---|{'---:|' * len(keys)}")
    for plan in PLANS:
        cells = []
        for key in keys:
            values = [by[plan, seed][key] for seed in seeds]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        print(f"| {plan} | {' | '.join(cells)} |")
    gains = [" ".join(f"{by['mined', seed][key] - by['random', seed][key]:+.3f}" for seed in seeds) for key in keys]
    print(f"| mined less random | {' | '.join(gains)} |")


if __name__ == "__main__":
    sys.exit(main())
