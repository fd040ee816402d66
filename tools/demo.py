"""make demo: synthetic faces -> shards -> a trained ArcFace model -> held-out evaluation -> ONNX -> two faces compared.

Then the same for liveness: drawn prints, screens and masks told from living faces, and clips of photographs from clips
of heads; an attack is refused where two faces are compared.

Runs the README's commands one after another, prints each, and closes with a table and a picture.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from fastface.data.index import Index

FACES, SHARDS = Path("runs/demo-faces"), Path("shards/demo")
ATTACKS, ATTACK_SHARDS = Path("runs/demo-attacks"), Path("shards/demo-attacks")
CLIPS, CLIP_SHARDS = Path("runs/demo-clips"), Path("shards/demo-clips")
IDENTITIES, IMAGES, SIZE = 400, 20, 64
PARTS = "train=0.7,val=0.15,test=0.15"


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    os.chdir(root)
    began = time.perf_counter()
    for made in (FACES, SHARDS, ATTACKS, ATTACK_SHARDS, CLIPS, CLIP_SHARDS):  # the demo's own earlier output
        shutil.rmtree(made, ignore_errors=True)
    call(f"tools/make_faces.py --out {FACES} --identities {IDENTITIES} --images {IMAGES} --size {SIZE}")
    call(f"tools/make_shards.py folder {FACES} --out {SHARDS} --split train=0.75,val=0.1,test=0.15")
    run = train("demo")
    test = SHARDS / "test"
    call(f"fastface/evaluate.py --checkpoint {run} --images {test} --pairs 10000 --baselines --out {run}/test")
    call(f"fastface/export.py --checkpoint {run}")
    people = Index.open(test).classes  # never trained on
    first, second = (FACES / people[0] / f"{i:04d}.jpg" for i in (0, 1))
    other = FACES / people[1] / "0000.jpg"
    model = run / "export" / "model.onnx"
    call(f"fastface/verify.py --recognition {model} {first} {second}")
    call(f"fastface/verify.py --recognition {model} {first} {other}")
    call(f"tools/make_faces.py --out {ATTACKS} --identities 80 --images 3 --size {SIZE} --attacks print,replay,mask")
    call(f"tools/make_shards.py liveness {ATTACKS} --split {PARTS} --out {ATTACK_SHARDS}")
    liveness = judged("demo_liveness", ATTACK_SHARDS)
    call(f"tools/make_faces.py --out {CLIPS} --identities 48 --images 2 --size {SIZE} --clips still,planar --sites 1")
    call(f"tools/make_shards.py liveness {CLIPS} --fps 12 --split {PARTS} --out {CLIP_SHARDS}")
    temporal = judged("demo_temporal", CLIP_SHARDS)
    call(f"fastface/export.py --checkpoint {liveness} {temporal}")
    shown = Index.open(ATTACK_SHARDS / "test")
    names = [shown.name(i) for i in range(len(shown))]
    attack, face = (ATTACKS / next(name for name in names if part in name) for part in ("/spoof/replay", "/live/"))
    alive = liveness / "export" / "model.onnx"
    # 1: it is refused, as it should be (0: this network took it for live)
    call(f"fastface/verify.py --recognition {model} --liveness {alive} --align none {attack} {face}", codes=(0, 1))
    print(closing(run, liveness, temporal, time.perf_counter() - began))
    return 0


def train(config: str) -> Path:
    """Train by configs/CONFIG.yaml; return the run folder."""
    runs = Path("runs") / config
    before = set(runs.glob("*"))
    # One process, whatever the machine has or its accelerate configuration says: the demo is sized for it.
    launch = "-m accelerate.commands.launch --num_processes 1 --mixed_precision no"
    call(f"{launch} fastface/train.py --config configs/{config}.yaml", shown="accelerate launch", skip=2)
    return max(set(runs.glob("*")) - before)


def judged(config: str, shards: Path) -> Path:
    """Train a model of live and spoof, and judge it on people it has not seen; return the run folder."""
    run = train(config)
    sets = f"--images {shards}/test --dev {shards}/val"
    call(f"fastface/evaluate.py --protocol liveness --checkpoint {run} {sets} --out {run}/test")
    return run


def call(arguments: str, *, shown: str = "python", skip: int = 0, codes: tuple[int, ...] = (0,)) -> None:
    """Run one command of the README with this Python, showing it first."""
    words = shlex.split(arguments)
    print(f"\n$ {shown} {' '.join(words[skip:])}", flush=True)
    # accelerate announces its defaults at length; the demo wants just those.
    environment = {**os.environ, "ACCELERATE_LOG_LEVEL": "error", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, *words], env=environment, check=False)
    if done.returncode not in codes:
        sys.exit(f"demo.py: the command above failed with exit code {done.returncode}")


def closing(run: Path, liveness: Path, temporal: Path, seconds: float) -> str:
    """Return the table that ends the demo."""
    results = json.loads((run / "test" / "metrics.json").read_text(encoding="utf-8"))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    card = json.loads((run / "export" / "model.json").read_text(encoding="utf-8"))
    head = f"{'held-out identities':<20}{'accuracy':>10}{'TAR@1e-2':>10}{'AUC':>8}"
    lines = ["", head, "-" * len(head)]
    for name in ("trained", "untrained", "raw pixels"):
        m = results[name]["metrics"]
        lines.append(f"{name:<20}{m['acc']:>10.3f}{m['tar_1e-2']:>10.3f}{m['auc']:>8.3f}")
    head = f"{'live or spoof':<20}{'ACER':>10}{'AUC':>10}"
    lines += ["", head, "-" * len(head)]
    for name, model in (("single images", liveness), ("clips", temporal)):
        m = metrics_of(model)
        lines.append(f"{name:<20}{m['acer']:>10.3f}{m['auc']:>10.3f}")
    lines += [
        "",
        f"training      {summary['images_per_s']:,.0f} images/s, {summary['data_wait']:.1%} of it waiting for data",
        f"ONNX          differs from torch by {card['training']['onnx_difference']:.1e} (unit embeddings)",
        f"picture       {run / 'test' / 'verification.png'}",
        f"whole demo    {seconds / 60:.1f} minutes",
    ]
    return "\n".join(lines)


def metrics_of(run: Path) -> dict[str, float]:
    """Return the figures of a model of live and spoof on people it has not seen."""
    found = json.loads((run / "test" / "metrics.json").read_text(encoding="utf-8"))
    return next(one["metrics"] for one in found.values() if isinstance(one, dict) and "metrics" in one)


if __name__ == "__main__":
    sys.exit(main())
