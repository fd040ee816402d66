"""make demo: synthetic faces -> shards -> a trained ArcFace model -> held-out evaluation -> ONNX -> two faces compared.

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

FACES, SHARDS, RUNS = Path("runs/demo-faces"), Path("shards/demo"), Path("runs/demo")
IDENTITIES, IMAGES, SIZE = 400, 20, 64


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    os.chdir(root)
    began = time.perf_counter()
    for made in (FACES, SHARDS):  # the demo's own earlier output
        shutil.rmtree(made, ignore_errors=True)
    call(f"tools/make_faces.py --out {FACES} --identities {IDENTITIES} --images {IMAGES} --size {SIZE}")
    call(f"tools/make_shards.py folder {FACES} --out {SHARDS} --split train=0.75,val=0.1,test=0.15")
    before = set(RUNS.glob("*"))
    # One process, whatever the machine has or its accelerate configuration says: the demo is sized for it.
    launch = "-m accelerate.commands.launch --num_processes 1 --mixed_precision no"
    call(f"{launch} fastface/train.py --config configs/demo.yaml", shown="accelerate launch", skip=2)
    run = max(set(RUNS.glob("*")) - before)
    test = SHARDS / "test"
    call(f"fastface/evaluate.py --checkpoint {run} --images {test} --pairs 10000 --baselines --out {run}/test")
    call(f"fastface/export.py --checkpoint {run}")
    people = Index.open(test).classes  # never trained on
    first, second = (FACES / people[0] / f"{i:04d}.jpg" for i in (0, 1))
    other = FACES / people[1] / "0000.jpg"
    model = run / "export" / "model.onnx"
    call(f"fastface/verify.py --recognition {model} {first} {second}")
    call(f"fastface/verify.py --recognition {model} {first} {other}")
    print(closing(run, time.perf_counter() - began))
    return 0


def call(arguments: str, *, shown: str = "python", skip: int = 0) -> None:
    """Run one command of the README with this Python, showing it first."""
    words = shlex.split(arguments)
    print(f"\n$ {shown} {' '.join(words[skip:])}", flush=True)
    # accelerate announces its defaults at length; the demo wants just those.
    environment = {**os.environ, "ACCELERATE_LOG_LEVEL": "error", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, *words], env=environment, check=False)
    if done.returncode:
        sys.exit(f"demo.py: the command above failed with exit code {done.returncode}")


def closing(run: Path, seconds: float) -> str:
    """Return the table that ends the demo."""
    results = json.loads((run / "test" / "metrics.json").read_text(encoding="utf-8"))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    card = json.loads((run / "export" / "model.json").read_text(encoding="utf-8"))
    head = f"{'held-out identities':<20}{'accuracy':>10}{'TAR@1e-2':>10}{'AUC':>8}"
    lines = ["", head, "-" * len(head)]
    for name in ("trained", "untrained", "raw pixels"):
        m = results[name]["metrics"]
        lines.append(f"{name:<20}{m['acc']:>10.3f}{m['tar_1e-2']:>10.3f}{m['auc']:>8.3f}")
    lines += [
        "",
        f"training      {summary['images_per_s']:,.0f} images/s, {summary['data_wait']:.1%} of it waiting for data",
        f"ONNX          differs from torch by {card['training']['onnx_difference']:.1e} (unit embeddings)",
        f"picture       {run / 'test' / 'verification.png'}",
        f"whole demo    {seconds / 60:.1f} minutes",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
