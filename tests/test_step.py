"""One optimizer step: the length of its gradient, what becomes of infinite ones, and which labels it is told."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from fastface import trainer
from fastface.command import Command, load_config
from fastface.data.index import Index
from fastface.heads.class_rows import ClassRows
from fastface.run import Run, build_run
from fastface.step import FiniteGuard, NotFiniteError, finish_gradients, seed_of, statistics_kept
from fastface.trainer import train
from tests.spread_worker import do_all
from tests.training import log_lines, losses, weights, write_people, write_task

ARCFACE = "{name: arcface, s: 16, margin: {name: arcface, m: 0.2}}"
BASE = "model: {dropout: 0}\ntrain: {epochs: 50, max_steps: 8}\noptim: {lr: 0.01, warmup_epochs: 0}\n"


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's picture takes longer than its steps here."""
    monkeypatch.setattr(trainer, "try_draw", lambda folder, say: None)


class Rows(ClassRows):
    """A head without a loss."""


class Learned(nn.Module):
    """A convolution, kept with the channels innermost, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = Rows(7, 4)
        self.scale = nn.Parameter(torch.tensor(1.0))


class FakeScaler:
    """accelerate with loss scaling: divides all gradients by 8, and notices an infinite one of what all share."""

    def __init__(self) -> None:
        self.found = False

    def unscale_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    mine = parameter.shape == (7, 4)  # the head's rows: another process has others
                    self.found |= not mine and not bool(parameter.grad.isfinite().all())
                    parameter.grad /= 8


def run_of(task: Learned, clip: float | None, scaler: FakeScaler | None = None, parts: str = "all") -> Any:
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    accelerator = SimpleNamespace(scaler=scaler, device=torch.device("cpu"))
    if scaler is not None:
        accelerator.unscale_gradients = scaler.unscale_gradients
    config = SimpleNamespace(optim=SimpleNamespace(clip_norm=clip, clip_parts=parts))
    return SimpleNamespace(task=task, optimizer=optimizer, accelerator=accelerator, config=config)


def with_gradients(task: Learned) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    for parameter in task.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 4:
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        parameter.grad = gradient
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def length(gradients: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(x) ** 2 for g in gradients.values() for x in g.flatten().tolist()))


@pytest.mark.parametrize("clip", [None, 0.5, 1000.0])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("parts", ["all", "network"])
def test_the_length_is_of_the_whole_gradient_and_its_parts_are_clipped(
    clip: float | None, scaled: bool, parts: str
) -> None:
    task = Learned()
    given = with_gradients(task)
    norm = finish_gradients(run_of(task, clip, FakeScaler() if scaled else None, parts))
    part = 1 / 8 if scaled else 1.0
    assert float(norm) == pytest.approx(length(given) * part, rel=1e-6)
    clipped = {name: g for name, g in given.items() if parts == "all" or name.startswith("backbone.")}
    factor = 1.0 if clip is None else min(1.0, clip / (length(clipped) * part))
    for name, parameter in task.named_parameters():
        whole = part * factor if name in clipped else part
        torch.testing.assert_close(parameter.grad, given[name] * whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clip", [0.5, 1000.0])
def test_the_network_alone_is_clipped_as_torch_clips_it(clip: float) -> None:
    """InsightFace's trainer: torch.nn.utils.clip_grad_norm_(backbone.parameters(), 5)."""
    task, other = Learned(), Learned()
    with_gradients(task)
    with_gradients(other)
    finish_gradients(run_of(task, clip, parts="network"))
    torch.nn.utils.clip_grad_norm_(other.backbone.parameters(), clip)
    for mine, theirs in zip(task.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["backbone.weight", "head.weight", "scale"])
@pytest.mark.parametrize("clip", [None, 5.0])
@pytest.mark.parametrize("parts", ["all", "network"])
def test_no_gradient_is_left_where_one_is_not_finite(bad: float, where: str, clip: float | None, parts: str) -> None:
    task = Learned()
    with_gradients(task)
    gradient = task.get_parameter(where).grad
    assert gradient is not None
    gradient[(-1,) * gradient.ndim] = bad
    norm = finish_gradients(run_of(task, clip, parts=parts))
    assert not norm.isfinite()
    assert all(not p.grad.any() for p in task.parameters() if p.grad is not None)


@pytest.mark.parametrize("first", ["backbone", "scale"])
def test_infinite_rows_of_one_process_reach_what_all_hold(first: str) -> None:
    """Another process finds infinity by the gradient that all share, whatever its memory format or shape."""
    for infinite in (False, True):
        task = Learned()
        with_gradients(task)
        if infinite:
            task.head.weight.grad[2, 1] = torch.inf  # type: ignore[index]
        run = run_of(task, None, FakeScaler())
        if first == "scale":
            run.optimizer.param_groups[0]["params"] = [task.scale, task.backbone.weight, task.head.weight]
            task.backbone.bias.grad = None
        finish_gradients(run)
        shared = task.scale if first == "scale" else task.backbone.weight
        found = run.accelerator.scaler.found
        assert found is infinite
        assert bool(shared.grad.isfinite().all())  # type: ignore[union-attr] # emptied, or as it was
        assert bool(shared.grad.any()) is not infinite  # type: ignore[union-attr]


def test_the_guard_names_the_first_bad_step() -> None:
    guard = FiniteGuard(torch.device("cpu"))
    good, bad = torch.tensor(1.0), torch.tensor(torch.nan)
    guard.add(0, good, good, scaled=False)
    guard.check()
    guard.add(1, bad, good, scaled=False)  # a loss alone: no gradient is wrong, so the next look finds it
    with pytest.raises(NotFiniteError, match="in step 3: nothing was saved"):
        FiniteGuard(torch.device("cpu")).add(2, good, bad, scaled=False)
    with pytest.raises(NotFiniteError) as caught:
        guard.check()
    assert caught.value.step == 1
    scaled = FiniteGuard(torch.device("cpu"))
    scaled.add(0, good, bad, scaled=True)  # loss scaling is looking for its scale
    scaled.check()


def test_seeds_differ() -> None:
    seeds = {seed_of(seed, step, micro) for seed in range(3) for step in range(40) for micro in range(40)}
    assert len(seeds) == 3 * 40 * 40
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_statistics_are_kept_and_those_of_the_batch_used() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(2, 3, 5, 5)
    with statistics_kept(network):
        kept = network(images)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(network(images), kept, rtol=0, atol=0)
    assert not torch.equal(network[1].running_mean, before["1.running_mean"])  # type: ignore[arg-type]
    assert torch.equal(network[2].running_mean, before["2.running_mean"])  # type: ignore[arg-type]


def scaled_by(run: Run, scale: float) -> None:
    """Train with loss scaling, as fp16 does on a GPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    run.accelerator.scaler, run.accelerator.native_amp = scaler, True
    run.accelerator.state._mixed_precision = "fp16"
    run.optimizer = AcceleratedOptimizer(run.optimizer.optimizer, device_placement=False, scaler=scaler)


@pytest.mark.parametrize("more", ["", "sample_rate: 0.5, "])
def test_loss_scaling_skips_steps_until_its_scale_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    config = write_task(tmp_path, write_people(tmp_path / "people", 4, 4), ARCFACE.replace("s:", f"{more}s:"), BASE)
    AcceleratorState._reset_state()
    run = build_run(Command(load_config(config, overrides=["--train.max_steps", "24"]), config.stem, None))
    scaled_by(run, 2.0**127)  # no gradient above 2 fits into float32 then; halved at every step that is skipped
    monkeypatch.setattr(run.accelerator, "autocast", torch.enable_grad)
    before = {name: value.clone() for name, value in run.task.state_dict().items()}
    seen: list[bool] = []
    after_step = run.task.after_step

    def look(optimizer: torch.optim.Optimizer) -> None:
        after_step(optimizer)
        names = {name for name, _ in run.task.named_parameters()}
        state = run.task.state_dict()
        seen.append(any(not torch.equal(state[name], before[name]) for name in names & state.keys()))

    monkeypatch.setattr(run.task, "after_step", look)
    assert train(run) == 0
    assert not any(seen[:3])
    assert seen[-1]
    found = log_lines(run.folder)
    assert [math.isfinite(line["grad_norm"]) for line in found] == seen
    assert all(math.isfinite(value) for value in losses(run.folder).values())
    assert all(bool(value.isfinite().all()) for value in weights(run.folder, 24).values())


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("data", ["shards", "separate", "merge-by-name"])
def test_the_labels_a_step_is_told_are_those_that_come(tmp_path: Path, data: str, damaged: bool) -> None:
    first, second = write_people(tmp_path / "first", 4, 6), write_people(tmp_path / "second", 5, 4)
    if damaged:
        index = Index.open(first)
        for record in (3, 14):
            path = index.shard_path(int(index.shard[record]))
            content = bytearray(path.read_bytes())
            content[int(index.offset[record]) + 100] ^= 16
            path.write_bytes(content)
    task = ARCFACE.replace("s:", "sample_rate: 0.3, s:")
    several = f"data: {{shards: null, labels: {data}, sources: [{{shards: {first}}}, {{shards: {second}}}]}}"
    more = [] if data == "shards" else [several]
    config = write_task(tmp_path, first, task, BASE, "data: {max_damaged: 0.2}", *more)
    found = do_all({"run": {"config": str(config)}})["run"]
    assert found["odd_labels"] == []
    assert (Path(found["folder"]) / "damaged.csv").exists() is damaged
    assert np.isfinite(list(losses(Path(found["folder"])).values())).all()
