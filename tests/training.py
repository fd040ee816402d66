"""Tiny runs for the tests: a shard set of random pictures and a network of seconds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from fastface.command import Command, load_config
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.run import Run, build_run
from fastface.trainer import train

ROOT = Path(__file__).resolve().parent.parent

CONFIG = """
task: {name: arcface, margin: {name: arcface, m: 0.1}, s: 16.0}
model: {backbone: mobilenetv3_small_050, embedding_size: 16, dropout: 0.2}
data: {shards: SHARDS, size: [32, 32]}
optim: {lr: 0.02, warmup_epochs: 0.5}
train: {epochs: 4, batch_size: 16, micro_batch: 8}
EVAL
checkpoint: {every_steps: 3, keep: 100}
log: {every_steps: 2, tensorboard: false}
runtime: {device: cpu, threads: 1}
out: OUT
"""


def write_config(folder: Path, shards: Path, evaluation: str = "eval: {every_epochs: null}") -> Path:
    path = folder / "tiny.yaml"
    text = CONFIG.replace("SHARDS", str(shards)).replace("OUT", str(folder / "runs"))
    path.write_text(text.replace("EVAL", evaluation))
    return path


def run_here(config: Path, *overrides: str, resume: str | None = None) -> Path:
    """Train in this process and return the run folder, without the picture: it takes longer than the steps."""
    AcceleratorState._reset_state()  # it keeps the first run's precision for the life of the process
    run = build_run(Command(load_config(config, overrides=overrides), config.stem, resume))
    with patch("fastface.trainer.try_draw"):
        assert train(run) == 0
    return run.folder


def command(config: Path, *arguments: str, processes: int = 1) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    launcher = torchrun if processes > 1 else []
    return [sys.executable, *launcher, str(ROOT / "fastface" / "train.py"), "--config", str(config), *arguments]


def environment() -> dict[str, str]:
    # Passive waiting: two processes that spin on the cores of a small machine slow each other twentyfold.
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def launch(config: Path, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config, *arguments, processes=processes), env=environment(), capture_output=True, text=True, check=False
    )


def newest_run(config: Path) -> Path:
    return max((config.parent / "runs" / config.stem).iterdir())


def log_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in log_lines(run) if "loss" in line}


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint by name."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    average = folder / "average.safetensors"
    averaged = {f"average/{name}": value for name, value in load_file(average).items()} if average.exists() else {}
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "optimizer.safetensors"), **averaged}


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different, f"{len(different)} of {len(a)} tensors differ, first {different[:3]}"


def write_people(folder: Path, people: int = 6, images: int = 8) -> Path:
    """Make a shard set of people who can be told apart: every image is its person's picture with noise."""
    for person in range(people):
        (folder / "raw" / f"person_{person:03d}").mkdir(parents=True)
        own = np.random.default_rng([person]).integers(60, 196, (4, 4, 3))
        for number in range(images):
            noise = np.random.default_rng([person, number]).integers(-20, 21, (4, 4, 3))
            picture = Image.fromarray((own + noise).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
            picture.save(folder / "raw" / f"person_{person:03d}" / f"{number:03d}.jpg", quality=90)
    convert(Options("folder", folder / "raw", folder / "set", shard_size=8, workers=1))
    return folder / "set"


def write_task(folder: Path, shards: Path, task: str, *overlays: str) -> Path:
    """Write a configuration with this task section, a network of tokens that is quick, and further YAML over it."""
    content = yaml.safe_load(write_config(folder, shards).read_text())
    content["task"] = yaml.safe_load(task)
    content["model"] |= {"backbone": "test_vit"}
    for overlay in overlays:
        for section, values in yaml.safe_load(overlay).items():
            content[section] |= values
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def limit_memory(run: Run, images: int, where: str) -> None:
    """Let a run be out of memory with more than so many images at once, in the network's `forward` or `backward` pass
    or in the `head`."""

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more. If reserved")

    def before(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if where != "backward" and len(inputs[0]) > images:
            run_out()

    def after(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        if where == "backward" and len(inputs[0]) > images and output.requires_grad:
            output.register_hook(run_out)

    (run.task.head if where == "head" else run.task.backbone).register_forward_pre_hook(before)
    run.task.backbone.register_forward_hook(after)


def launch_jobs(file: Path, jobs: dict[str, Any], processes: int) -> list[dict[str, dict[str, Any]]]:
    """Do the jobs of tests/spread_worker.py in `processes` processes; return what each of them says."""
    file.write_text(json.dumps(jobs))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words += [str(ROOT / "tests" / "spread_worker.py"), str(file)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(file.with_suffix(f".{rank}.json").read_text()) for rank in range(processes)]


def cut_back(run: Path, step: int) -> None:
    """Take away the checkpoints after a step, as if the run had been killed before the next."""
    for folder in sorted((run / "checkpoints").iterdir()):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
