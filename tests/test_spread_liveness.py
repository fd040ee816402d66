"""However a step of task liveness is spread over micro-batches and processes, it learns the same."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.attacked import write_attacks
from tests.spread_worker import do_all
from tests.training import launch_jobs, log_lines, weights, write_task

pytestmark = [pytest.mark.slow, pytest.mark.dist]

STEPS = 10
BASE = (
    "optim: {lr: 0.02, warmup_epochs: 0}\n"
    "data: {plan: {name: weighted}}\n"
    f"train: {{epochs: 50, max_steps: {STEPS}, micro_batch: 8, precision: fp64}}\n"
    f"checkpoint: {{every_steps: {STEPS}}}\n"
)
TASKS = {
    "tokens": ("loss: {name: focal}, classes: attack", "model: {dropout: 0}"),
    "all": (
        "fourier_weight: 0.5, patch_px: 24, keep_hardest: 0.5, loss: {name: am-softmax, s: 10}",
        "model: {backbone: test_resnet, dropout: 0.2}\ndata: {augment: liveness_aggressive}",
    ),
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("spread")
    shards, made = write_attacks(folder), {}
    for name, (task, more) in TASKS.items():
        (folder / name).mkdir()
        config = write_task(folder / name, shards / "train", f"{{name: liveness, {task}}}", BASE, more)
        made[name] = {"config": str(config), "still": name == "tokens"}  # still: BatchNorm as it was
    return made


@pytest.fixture(scope="module")
def alone(jobs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One process, two micro-batches a step."""
    return do_all(jobs)


def assert_same_course(found: dict[str, Any], expected: dict[str, Any]) -> None:
    lines, others = log_lines(Path(found["folder"])), log_lines(Path(expected["folder"]))
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line, other in zip(lines, others, strict=True):
        for key in ("loss", "grad_norm", "live_right", "spoof_right"):
            assert line[key] == pytest.approx(other[key], rel=1e-9, abs=1e-9), (line["step"], key)


def test_micro_batches_learn_what_the_whole_batch_does(jobs: Any, alone: Any) -> None:
    whole = do_all({"tokens": {**jobs["tokens"], "overrides": ["--train.micro_batch", "16"]}})["tokens"]
    lines, others = log_lines(Path(alone["tokens"]["folder"])), log_lines(Path(whole["folder"]))
    for line, other in zip(lines, others, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-9)


def test_two_processes_learn_what_one_does(jobs: Any, alone: Any, tmp_path: Path) -> None:
    both = launch_jobs(tmp_path / "two.json", jobs, 2)[0]
    for name in TASKS:
        mine, theirs = (weights(Path(found[name]["folder"]), STEPS) for found in (alone, both))
        assert_same_course(both[name], alone[name])
        for key, value in mine.items():
            if "running_" not in key and "num_batches" not in key:  # moved by two micro-batches, or by a mean of two
                torch.testing.assert_close(theirs[key], value, rtol=1e-7, atol=1e-9, msg=key)
