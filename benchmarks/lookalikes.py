"""Drawn people with look-alikes -> what mining gains: equal runs but for whom they meet, over several seeds.

    python benchmarks/lookalikes.py                       # 3 seeds x 2 plans, 10 minutes on 2 idle cores

People come in families that share skin, hair, beard and glasses, and differ in the shape of head and face. Both plans
train the same network from the same start on as many images; `per-identity` draws identities at random, `mined` lets
them meet those nearest to them, mined anew on the way. Scored on families never trained on. Method and results:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, append  # noqa: E402
from benchmarks.report import circumstances  # noqa: E402
from fastface.conversion.convert import convert  # noqa: E402
from fastface.conversion.options import Options  # noqa: E402
from fastface.data.synthetic import Identity, Shot, photograph, render  # noqa: E402

OWN = ("head_width", "temple", "cheekbone", "jaw", "chin", "crown", "hairline")
OWN += ("eye_", "brow_", "nose_", "mouth_", "lip_")  # what tells the members of a family apart
SIZE, MEMBERS, IMAGES = 56, 3, 8
FAMILIES = {"train": 60, "val": 30}
IMPOSTORS = 10  # pairs of images for each two members of a family
PLANS = {
    "per-identity": {"name": "per-identity", "images": 4, "scope": "global"},
    "mined": {"name": "mined", "images": 4, "neighbours": 2, "scope": "global", "source": "embeddings", "cap": 1.0},
}
TASKS = {
    "triplet": {"name": "triplet", "margin": 0.2, "mining": "semi-hard"},
    "supcon": {"name": "supcon", "temperature": 0.1},
    "arcface": {"name": "arcface", "s": 16.0, "margin": {"name": "arcface", "m": 0.2}},
}


def main() -> int:
    """Draw the people, train with each plan and seed, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="triplet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of 72 images")
    parser.add_argument("--refresh", type=int, default=50, help="steps between two minings")
    parser.add_argument("--work", type=Path, help="where pictures and runs go, and stay (default: nowhere)")
    parser.add_argument("--out", type=Path, default=RESULTS / "lookalikes.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastface-lookalikes-") as temporary:
        work = options.work or Path(temporary)
        draw(work)
        rows = []
        for seed, plan in itertools.product(range(options.seeds), PLANS):
            figures = train(work, options.task, plan, seed, options.steps, options.refresh)
            rows.append({"plan": plan, "seed": seed, **figures})
            print(rows[-1], file=sys.stderr, flush=True)
    print_table(rows)
    record = {"task": options.task, "steps": options.steps, "refresh_steps": options.refresh, "rows": rows}
    append(options.out, circumstances("lookalikes", options.note) | record)
    return 0


def draw(work: Path) -> None:
    """Draw the families into shard sets work/train and work/val, and the pairs to score: work/*.csv."""
    if (work / "val" / "meta.json").is_file():
        return
    work.mkdir(parents=True, exist_ok=True)
    family = 0
    for split, count in FAMILIES.items():
        for number in range(count):
            for member in range(MEMBERS):
                who = relative(family, member)
                folder = work / "raw" / split / f"family-{number:03d}-{member}"
                folder.mkdir(parents=True, exist_ok=True)
                for image in range(IMAGES):
                    shot = Shot.draw(0, who, image)
                    (folder / f"{image}.jpg").write_bytes(photograph(render(who, shot, SIZE), shot))
            family += 1
        convert(Options("folder", work / "raw" / split, work / split, workers=1))
    for name, other in (("family", 0), ("anyone", 1)):
        with open(work / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["a", "b", "same"], *pairs(FAMILIES["val"], other)])


def relative(family: int, member: int) -> Identity:
    """Give a member of a family the features of its own that OWN names, and the family's otherwise."""
    base, own = (Identity.draw(0, family * MEMBERS + number) for number in (0, member))
    names = [field.name for field in dataclasses.fields(Identity) if field.name.startswith(OWN)]
    return dataclasses.replace(base, number=own.number, **{name: getattr(own, name) for name in names})


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
    """Train in a process of its own; return the figures of both kinds of pairs."""
    settings: dict[str, Any] = dict(PLANS[plan])
    if plan == "mined":
        settings["refresh_steps"] = refresh
    sets = {name: {"images": str(work / "val"), "pairs": str(work / f"{name}.csv")} for name in ("family", "anyone")}
    config = {
        "seed": seed,
        "out": str(work / "runs"),
        "task": TASKS[task],
        "model": {"backbone": "test_resnet", "stem": "keep", "embedding_size": 64},
        "data": {"shards": str(work / "train"), "size": [SIZE, SIZE], "plan": settings},
        "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "schedule": "cosine", "warmup_epochs": 0},
        # Plans differ in how many steps they call an epoch; all train for as many steps.
        "train": {"epochs": steps / (FAMILIES["train"] * MEMBERS / seeds_of(settings)), "batch_size": 72},
        "eval": {"every_epochs": None, "sets": sets},
        "log": {"tensorboard": False},
        "runtime": {"device": "cpu", "threads": 1},
    }
    file = work / f"{task}-{plan}-{seed}.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, str(ROOT / "fastface" / "train.py"), "--config", str(file)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    run = max((work / "runs" / file.stem).iterdir())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == steps
    (found,) = [line["eval"] for line in lines if "eval" in line]
    return {f"{name}_{key}": round(found[f"{name}/{key}"], 4) for name in sets for key in ("acc", "auc", "tar_1e-2")}


def seeds_of(settings: dict[str, Any]) -> int:
    """Return how many identities of an epoch a step of 72 images takes."""
    return 72 // (settings["images"] * (1 + settings.get("neighbours", 0)))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the figures of each plan, mean and spread over the seeds, and how each seed differs, as Markdown."""
    keys = [key for key in rows[0] if key not in ("plan", "seed")]
    print(f"| plan | {' | '.join(keys)} |\n|---|{'---:|' * len(keys)}")
    for plan in PLANS:
        own = [row for row in rows if row["plan"] == plan]
        cells = [
            f"{statistics.mean(r[k] for r in own):.3f} ({min(r[k] for r in own):.3f} to {max(r[k] for r in own):.3f})"
            for k in keys
        ]
        print(f"| {plan} | {' | '.join(cells)} |")
    pairs_of = [[row for row in rows if row["seed"] == seed] for seed in sorted({row["seed"] for row in rows})]
    gains = [
        [by["mined"][k] - by["per-identity"][k] for by in ({r["plan"]: r for r in p} for p in pairs_of)] for k in keys
    ]
    print(f"| mined less per-identity | {' | '.join(' '.join(f'{g:+.3f}' for g in gain) for gain in gains)} |")


if __name__ == "__main__":
    sys.exit(main())
