"""A run that begins on too small a device is the run of a smaller micro-batch, to the bit, on all processes."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from fastface import dist, trainer
from fastface.collect import gather, gather_parts, largest, log_sum_exp_parts, sum_parts
from fastface.command import Command, load_config
from fastface.data.batch import Batch
from fastface.optim import build_optimizer, num_moments
from fastface.rehearsal import _as_large_as_any, _half, fit_micro_batch
from fastface.run import Run, build_run
from fastface.trainer import train
from tests.training import (
    assert_same_bits,
    launch_jobs,
    limit_memory,
    log_lines,
    run_here,
    weights,
    write_people,
    write_task,
)

STEPS = 4
BASE = (
    "model: {dropout: 0.2}\n"
    f"train: {{epochs: 50, max_steps: {STEPS}, micro_batch: null}}\n"
    "checkpoint: {every_steps: 2}\n"
)
IDENTITIES = "data: {plan: {name: per-identity, images: 4, scope: global}}"
TASKS: dict[str, tuple[str, ...]] = {
    "adaface": ("{name: arcface, s: 16, margin: {name: adaface, m: 0.2, t_alpha: 0.3}, keep_hardest: 0.5}",),
    "convolutions": ("{name: arcface, s: 16}", "model: {backbone: mobilenetv3_small_050}"),
    "curricularface, sampled, averaged": (
        "{name: arcface, s: 16, margin: {name: curricularface, m: 0.2, alpha: 0.3}, sample_rate: 0.5}",
        "optim: {name: adagrad, lr: 0.02, ema_decay: 0.8}",
    ),
    "triplet": ("{name: triplet, mining: distance-weighted}", IDENTITIES),
    "mixture": ("{name: arcface, s: 16, margin: {name: adaface, m: 0.2}, triplet: {mining: all}}", IDENTITIES),
    "pair": ("{name: pair}", "data: {plan: {name: pairs}}", "optim: {name: adamw, lr: 0.001}"),
}
PLACES = {"triplet": "forward", "pair": "forward", "curricularface, sampled, averaged": "head"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("rehearsal") / "people", people=12, images=4)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this machine's CPU for a device whose memory may end; without pictures, which take longer than the steps."""
    monkeypatch.setattr(trainer, "can_run_out", lambda device: True)
    monkeypatch.setattr(trainer, "try_draw", lambda folder, say: None)


def built(config: Path, *overrides: str, resume: str | None = None) -> Run:
    AcceleratorState._reset_state()
    return build_run(Command(load_config(config, overrides=overrides), config.stem, resume))


def assert_same_run(found: Path, expected: Path) -> None:
    assert (found / "metrics.jsonl").read_text() == (expected / "metrics.jsonl").read_text()
    for step in (STEPS // 2, STEPS):
        assert_same_bits(weights(found, step), weights(expected, step))


def micro_batch_in(run: Path, step: int = STEPS) -> int:
    return json.loads((run / "checkpoints" / f"step-{step:08d}" / "state.json").read_text())["micro_batch"]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.usefixtures("accelerator")
def test_what_fits_is_to_the_bit_the_run_of_that_micro_batch(shards: Path, tmp_path: Path, name: str) -> None:
    config = write_task(tmp_path, shards, TASKS[name][0], BASE, *TASKS[name][1:])
    run = built(config)
    limit_memory(run, 4, PLACES.get(name, "backward"))
    assert train(run) == 0
    with patch.object(trainer, "can_run_out", lambda device: False):
        expected = run_here(config, "--train.micro_batch", "4")
    assert len(log_lines(expected)) == STEPS
    assert_same_run(run.folder, expected)
    assert micro_batch_in(run.folder) == 4
    text = (run.folder / "log.txt").read_text()
    assert "out of memory with 16 images a forward pass: the micro-batch halves to 8, accumulation doubles to 2" in text
    assert (
        "with 8 images a forward pass: the micro-batch halves to 4, accumulation doubles to 4. A step has the" in text
    )
    assert "BatchNorm sees 4 of them at a time" in text


@pytest.mark.usefixtures("accelerator")
def test_what_fits_at_once_is_as_if_never_rehearsed(shards: Path, tmp_path: Path) -> None:
    config = write_task(tmp_path, shards, TASKS["adaface"][0], BASE)
    with patch.object(trainer, "can_run_out", lambda device: False):
        expected = run_here(config)
    found = run_here(config)
    assert_same_run(found, expected)
    assert "out of memory" not in (found / "log.txt").read_text()


@pytest.mark.usefixtures("accelerator")
def test_a_resumed_run_keeps_the_micro_batch_that_was_found(shards: Path, tmp_path: Path) -> None:
    config = write_task(tmp_path, shards, TASKS["adaface"][0], BASE)
    run = built(config, "--train.max_steps", "2")
    limit_memory(run, 4, "forward")
    assert train(run) == 0
    run.lock.close()
    run_here(config, resume=str(run.folder))
    assert micro_batch_in(run.folder) == 4
    assert_same_run(run.folder, run_here(config, "--train.micro_batch", "4"))


@pytest.mark.usefixtures("accelerator")
def test_what_learns_late_is_rehearsed_too_and_stays_as_it_was(shards: Path, tmp_path: Path) -> None:
    config = write_task(tmp_path, shards, TASKS["adaface"][0], BASE)
    source = run_here(config, "--train.max_steps", "2")
    frozen = ["--model.weights", str(source), "--optim.freeze_epochs", "0.67"]  # of 3 steps
    run = built(config, *frozen)
    learning: list[bool] = []
    limit_memory(run, 8, "backward")  # nothing comes back to a network that is kept as it is
    run.task.backbone.register_forward_hook(lambda m, i, output: learning.append(output.requires_grad))
    assert train(run) == 0
    assert learning[:3] == [True] * 3  # one rehearsal of 16, one of 8 and 8
    assert learning[3:] == [False] * 4 + [True] * 4
    with patch.object(trainer, "can_run_out", lambda device: False):
        expected = run_here(config, *frozen, "--train.micro_batch", "8")
    assert_same_run(run.folder, expected)


@pytest.mark.usefixtures("accelerator")
def test_what_was_set_is_halved_too_and_kept_by_resume(shards: Path, tmp_path: Path) -> None:
    config, eight = write_task(tmp_path, shards, TASKS["adaface"][0], BASE), ("--train.micro_batch", "8")
    run = built(config, *eight, "--train.max_steps", "2")
    limit_memory(run, 4, "backward")
    assert train(run) == 0
    assert "! train.micro_batch was set to 8: where BatchNorm matters" in (run.folder / "log.txt").read_text()
    run.lock.close()
    run_here(config, *eight, resume=str(run.folder))
    assert micro_batch_in(run.folder) == 4
    assert_same_run(run.folder, run_here(config, "--train.micro_batch", "4"))


@pytest.mark.parametrize(
    ("overlay", "batch", "expected"),
    [
        ("data: {plan: {name: pairs}}", 8, "with 8, 4, 2 images a forward pass, and 1 would part 2 rows"),
        ("data: {plan: {name: per-identity, images: 4, scope: rank}}", 24, "with 24, 12 images .* 6 would part 4 rows"),
        ("data: {}", 12, "with 12, 6, 3 images a forward pass, and 3 has no half"),
        ("data: {}", 4, "with 4, 2, 1 images a forward pass, and 1 has no half"),
    ],
)
@pytest.mark.usefixtures("accelerator")
def test_what_cannot_be_halved_says_what_was_tried(
    shards: Path, tmp_path: Path, overlay: str, batch: int, expected: str
) -> None:
    task = "{name: pair}" if "pairs" in overlay else TASKS["adaface"][0]
    run = built(write_task(tmp_path, shards, task, BASE, overlay), "--train.batch_size", str(batch))
    limit_memory(run, 0, "forward")
    with pytest.raises(ValueError, match=f"before the first step {expected}.*more memory, or less of it"):
        train(run)


@pytest.mark.parametrize("micro", range(1, 40))
@pytest.mark.parametrize("unit", [1, 2, 3, 4])
def test_a_half_divides_and_parts_nothing(micro: int, unit: int) -> None:
    possible = [n for n in range(1, micro) if 2 * n == micro and n % unit == 0]
    if possible:
        assert _half(micro, unit, [micro], "") == possible[0]
    else:
        with pytest.raises(ValueError, match=f"with {micro} images a forward pass"):
            _half(micro, unit, [micro], "")


@pytest.mark.usefixtures("accelerator")
def test_out_of_memory_later_names_the_remedy(shards: Path, tmp_path: Path) -> None:
    run = built(write_task(tmp_path, shards, TASKS["adaface"][0], BASE))
    after_step, done = run.task.after_step, []

    def shrink(optimizer: torch.optim.Optimizer) -> None:
        after_step(optimizer)
        done.append(1)
        if len(done) == 3:
            limit_memory(run, 4, "backward")

    run.task.after_step = shrink  # type: ignore[method-assign]
    expected = (
        r"out of memory: step 4, with 16 images a forward pass, does not fit \(CUDA out of memory\. Tried to allocate "
        r"2\.00 GiB\. GPU 0 has no more\)\. Lower train\.micro_batch to a divisor of 16; --resume goes on"
    )
    with pytest.raises(ValueError, match=expected):
        train(run)
    run.lock.close()
    run_here(tmp_path / "tiny.yaml", "--train.micro_batch", "4", resume=str(run.folder))
    assert micro_batch_in(run.folder) == 4


@pytest.mark.usefixtures("accelerator")
def test_an_evaluation_that_does_not_fit_names_its_own_batch(shards: Path, tmp_path: Path) -> None:
    overlay = f"eval: {{batch_size: 30, sets: {{val: {{images: {shards}, pairs: 20}}}}}}"
    run = built(write_task(tmp_path, shards, TASKS["adaface"][0], BASE, overlay))
    limit_memory(run, 16, "forward")
    with pytest.raises(ValueError, match=r"evaluation of 30 images at a time does not fit .* Lower eval\.batch_size"):
        train(run)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_moments_are_what_the_first_step_adds(name: str, momentum: float) -> None:
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = build_optimizer(name, [{"params": [weight]}], lr=0.1, momentum=momentum, betas=(0.9, 0.99), fused=False)

    def held() -> int:
        state = optimizer.state[weight].values()
        return sum(isinstance(value, Tensor) and value.shape == weight.shape for value in state)

    before, expected = held(), num_moments(optimizer)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert held() - before == expected


@pytest.mark.parametrize("function", [gather, gather_parts, sum_parts, log_sum_exp_parts, largest])
def test_a_process_alone_meets_the_shapes_of_all(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process group exists here: a word to another process would be an error."""
    monkeypatch.setattr("fastface.collect.world", lambda: 3)
    monkeypatch.setattr("fastface.collect.rank", lambda: 1)
    monkeypatch.setattr(dist, "world", lambda: 3)
    rows = torch.tensor([1.0, 2.0]).requires_grad_()
    with dist.alone():
        assert dist.is_alone()
        out = function(rows)
        if function is not largest:
            out.sum().backward()
            assert rows.grad is not None
            assert rows.grad.shape == rows.shape
    assert not dist.is_alone()
    assert out.tolist() == (rows.tolist() * 3 if "gather" in function.__name__ else rows.tolist())


@pytest.fixture(scope="module")
def both(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """Two processes, of which one runs out of memory: whichever it is, and wherever, the other must not wait for it."""
    folder = tmp_path_factory.mktemp("both")
    jobs: dict[str, dict[str, Any]] = {}
    for number, (name, (task, *more)) in enumerate(TASKS.items()):
        (folder / str(number)).mkdir()
        job = {"config": str(write_task(folder / str(number), shards, task, BASE, *more))}
        where = PLACES.get(name, "backward")
        jobs[name] = {**job, "room": [number % 2, 2, where]}
        jobs[f"{name}, as set"] = {**job, "overrides": ["--train.micro_batch", "2"]}
    jobs["never"] = {**jobs["pair"], "room": [1, 0, "backward"]}
    return launch_jobs(folder / "jobs.json", jobs, 2)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", TASKS)
def test_one_process_out_of_memory_halves_on_both(both: Any, name: str) -> None:
    for found in both:
        assert found[name]["error"] is None
    run = Path(both[0][name]["folder"])
    assert_same_run(run, Path(both[0][f"{name}, as set"]["folder"]))
    assert micro_batch_in(run) == 2
    process = list(TASKS).index(name) % 2
    text = (run / "log.txt").read_text()
    assert f"out of memory on process {process} with 8 images a forward pass: the micro-batch halves to 4" in text


@pytest.mark.slow
@pytest.mark.dist
def test_both_processes_end_with_the_same_error(both: Any) -> None:
    for found in both:
        assert "out of memory on process 1 before the first step with 8, 4, 2 images" in found["never"]["error"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_images_are_rehearsed_at_the_largest_size_a_step_may_draw(dtype: torch.dtype) -> None:
    batch = Batch(torch.ones(2, 3, 20, 30, dtype=dtype), torch.zeros(2), np.zeros(2, np.int64), 0, 0)
    for scales, height, width in (((), 20, 30), (((30, 20),), 20, 30), (((30, 20), (50, 40), (60, 30)), 40, 50)):
        (found,) = _as_large_as_any(iter([batch]), scales)
        assert found.images.shape == (2, 3, height, width)
        assert found.images.dtype == dtype


def test_no_more_is_rehearsed_than_one_step(shards: Path, tmp_path: Path) -> None:
    """And the loader begins again at the first image, with threads that have ended in between."""
    run = built(write_task(tmp_path, shards, TASKS["triplet"][0], BASE, IDENTITIES), "--train.micro_batch", "4")
    seen: list[int] = []
    run.task.backbone.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    random = torch.get_rng_state()
    fit_micro_batch(run, lambda line: None)
    assert seen == [4] * 8  # once for the embeddings, and once with their gradient
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in run.task.parameters())
    batch = next(run.loader.batches(0))
    assert (batch.step, batch.micro) == (0, 0)
    run.loader.close()
    run.lock.close()
