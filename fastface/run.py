"""Command -> Run: the folder, the processes, the network, the optimizer and the loader of a run, restored."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fastface import __version__, checkpoint, dist
from fastface.card import card_of
from fastface.command import Command
from fastface.config import RunConfig
from fastface.data.augment import Augment
from fastface.data.augment.presets import operators
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.mixed_index import MixedIndex
from fastface.data.plan import Plan
from fastface.data.shard_cache import CacheOptions
from fastface.hardware import decode_threads_of, decoder_of, start_processes
from fastface.optim import Schedule, build_optimizer, build_schedule, parameter_groups
from fastface.predictor import load_backbone_from
from fastface.run_folder import check_plan, check_resumable, differences, find_resumable, hold, new_folder, settle
from fastface.tasks import build_task


@dataclass
class Run:
    """Everything the loop needs, built and restored."""

    config: RunConfig
    folder: Path
    accelerator: Accelerator
    task: nn.Module
    """The task itself; `module` is what the loop calls: the task, wrapped for several processes."""
    module: nn.Module
    optimizer: Any
    schedule: Schedule
    loader: Loader
    accumulation: int
    start_step: int
    total_steps: int
    steps_per_epoch: int
    state: dict[str, Any]
    """What every checkpoint says about its run: config, card, plan, versions."""
    best: dict[str, Any]
    notes: list[str]
    """What happened while building, to be said once the log is open."""
    lock: Any
    """Held for as long as the run lives: a second process cannot write to the same folder."""


def build_run(command: Command) -> Run:
    """Build the run a command asks for; with --resume, restored from the newest verified checkpoint.

    Raises:
        ValueError: for settings that contradict each other, the data, the checkpoint or the launcher.
    """
    config, notes = command.config, []
    accelerator = start_processes(config)
    index = open_shards(config)
    resumed, saved = find_resumable(command) if command.resume is not None else (None, None)
    if saved is not None:
        notes += [f"skipped: {reason}" for reason in saved.skipped] + [f"resuming from {saved.path}"]
        notes += check_resumable(config, saved.state, index.dataset_id)
    micro = micro_batch_of(config, saved)
    task = restored_task(config, index, saved, notes).to(accelerator.device)
    if config.train.channels_last:
        task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.train.compile:
        task.get_submodule("backbone").compile()  # in place: parameter names stay
    optimizer = restored_optimizer(config, task, accelerator.device, saved)
    module, optimizer = accelerator.prepare(task, optimizer)
    if saved is not None and accelerator.scaler is not None and saved.state.get("scaler"):
        accelerator.scaler.load_state_dict(saved.state["scaler"])
    plan: Plan = task.plan(config.data, index, config.train.batch_size, config.seed)  # type: ignore[operator]
    notes += plan.notes
    total = max(round(config.train.epochs * plan.steps_per_epoch), 1)
    loader = build_loader(config, index, plan, micro, accelerator.device)
    state = {
        "config": config.model_dump(mode="json"),
        "card": card_of(config, index.meta.get("options", {})).model_dump(mode="json"),
        "dataset_id": index.dataset_id,
        "num_classes": index.num_classes,
        "plan": plan.describe(),
        "micro_batch": micro,
        "threads": torch.get_num_threads(),
        "decoder": decoder_of(config, accelerator.device),
        "world": dist.world(),
        "versions": versions(),
    }
    start = 0
    if saved is not None:
        start = saved.state["step"]
        notes += check_plan(saved.state["plan"], state["plan"])
        notes += differences(saved.state, state)
    # Only now, with everything checked and built, does anything appear on disk.
    folder = resumed or new_folder(command, task)
    lock = hold(folder)
    best = saved.state.get("best", {}) if saved is not None else {}
    if best.get("metric") != config.eval.best_metric:
        best = {}
    if dist.is_main():
        notes += settle(folder, config, start, best, index)
    return Run(
        config=config,
        folder=folder,
        accelerator=accelerator,
        task=task,
        module=module,
        optimizer=optimizer,
        schedule=schedule_of(config, total, plan.steps_per_epoch),
        loader=loader,
        accumulation=config.train.batch_size // micro // dist.world(),
        start_step=start,
        total_steps=min(total, config.train.max_steps or total),
        steps_per_epoch=plan.steps_per_epoch,
        state=state,
        best=best,
        notes=notes,
        lock=lock,
    )


def restored_task(config: RunConfig, index: Index, saved: checkpoint.Checkpoint | None, notes: list[str]) -> nn.Module:
    """Build the task as a new run starts, or as a checkpoint left it."""
    torch.manual_seed(config.seed)
    task: nn.Module = build_task(config.task, config.model, config.data, index.num_classes)
    if config.train.precision == "fp64":
        task.double()  # before loading, which would round to float32
    if saved is not None:
        task.load_state_dict(saved.model)
    elif config.model.weights is not None:
        notes.append(load_backbone_from(config.model.weights, task))
    return task


def restored_optimizer(
    config: RunConfig, task: nn.Module, device: torch.device, saved: checkpoint.Checkpoint | None
) -> torch.optim.Optimizer:
    o = config.optim
    groups = parameter_groups(task, o.weight_decay, decay_norms=o.decay_norms)
    fused = device.type == "cuda"
    optimizer = build_optimizer(o.name, groups, lr=o.lr, momentum=o.momentum, betas=o.betas, fused=fused)
    if saved is not None:
        checkpoint.restore_optimizer(optimizer, task, saved.optimizer)
    return optimizer


def build_loader(config: RunConfig, index: Index, plan: Plan, micro: int, device: torch.device) -> Loader:
    data = config.data
    return Loader(
        index,
        plan,
        augment=Augment(data.flip, operators(data.augment), data.scales, config.seed),
        decoder=decoder_of(config, device),
        size=data.size,
        resize=data.resize,
        micro_batch=micro,
        rank=dist.rank(),
        world=dist.world(),
        device=device,
        threads=decode_threads_of(config, device),
        ahead=data.ahead,
        mean=data.mean,
        std=data.std,
        output=data.output,
        check_crc=data.check_crc,
        max_damaged=data.max_damaged,
        cache=data.cache,
        processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )


def schedule_of(config: RunConfig, total_steps: int, steps_per_epoch: int) -> Schedule:
    o = config.optim
    return build_schedule(
        o.schedule,
        o.lr,
        total_steps=total_steps,
        warmup_steps=round(o.warmup_epochs * steps_per_epoch),
        milestone_steps=[round(m * steps_per_epoch) for m in o.milestones],
        gamma=o.gamma,
        power=o.power,
    )


def open_shards(config: RunConfig) -> Index:
    data = config.data
    if data.sources and data.labels:
        indexes = [Index.open(source.shards, lost=data.max_damaged) for source in data.sources]
        return MixedIndex(indexes, data.labels)
    if data.shards is None:
        raise ValueError("data.shards is not set: name a folder made by tools/make_shards.py, or its URL")
    cache = CacheOptions(data.remote_cache_folder, data.remote_cache_gb)
    return Index.open(data.shards, cache, lost=data.max_damaged)


def micro_batch_of(config: RunConfig, saved: checkpoint.Checkpoint | None) -> int:
    """Images per forward pass: configured, or what the first start chose."""
    batch, world = config.train.batch_size, dist.world()
    micro = config.train.micro_batch or (saved.state["micro_batch"] if saved is not None else max(batch // world, 1))
    if batch % (micro * world):
        raise ValueError(
            f"train.batch_size {batch} is not processes x accumulation x micro_batch = {world} x ? x {micro}; "
            "change train.batch_size, train.micro_batch or the number of processes"
        )
    return micro


def versions() -> dict[str, str]:
    return {
        "fastface": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "accelerate", "timm", "numpy")},
    }
