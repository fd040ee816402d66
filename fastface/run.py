"""Command -> Run: the folder, the processes, the network, the optimizer and the loader of a run, restored."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from fastface import __version__, checkpoint, dist
from fastface.advice import advise
from fastface.command import Command
from fastface.config import RunConfig
from fastface.data.augment import Augment
from fastface.data.augment.presets import operators
from fastface.data.delivery import Delivery
from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.embedding_loader import EmbeddingLoader
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.mixed_index import MixedIndex
from fastface.data.plan import Plan
from fastface.data.selection import Selection, select
from fastface.data.shard_cache import CacheOptions
from fastface.ema import WeightAverage
from fastface.fusion_card import draw_embeddings
from fastface.fusion_settings import FusionTask
from fastface.hardware import decode_threads_of, decoder_of, memory_mb, memory_told, start_processes
from fastface.kinds import KINDS
from fastface.leakage import check_leakage
from fastface.optim import LateStart, Schedule, build_schedule
from fastface.restored import restored_average, restored_neighbours, restored_optimizer, restored_task
from fastface.run_folder import check_plan, check_resumable, differences, find_resumable, hold, new_folder, settle
from fastface.tasks.base import Task


@dataclass
class Run:
    """Everything the loop needs, built and restored."""

    config: RunConfig
    folder: Path
    accelerator: Accelerator
    task: Task
    about: str
    """The network's name and cost."""
    network: nn.Module
    """The task's backbone as the loop calls it: wrapped for several processes and mixed precision."""
    optimizer: Any
    schedule: Schedule
    late: LateStart
    """Keeps what was loaded as it is for the first epochs, where the configuration says so."""
    average: WeightAverage | None
    """Of the weights over the steps, which is then what ships."""
    loader: Delivery
    plan: Plan
    index: Index
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
    imported_mb: float
    """Memory of this process before anything was built, 1e6 bytes."""

    def labels_of(self, step: int) -> np.ndarray:
        """Return the identities of a step's whole batch, over all processes, int64 [batch_size]."""
        return self.index.labels_of(self.plan[step].records)

    def use_micro_batch(self, micro: int) -> None:
        """Let a step's images come in portions of `micro` from the next call of `loader.batches` on."""
        self.loader.close()  # first: a cache of the device holds memory
        self.loader = build_loader(self.config, self.index, self.plan, micro, self.accelerator.device)
        self.accumulation, self.state["micro_batch"] = self.loader.accumulation, micro

    def start_part(self, step: int) -> None:
        """Let the loaded part start to learn when its step has come."""
        if self.late.at(step) and dist.world() > 1:
            # DistributedDataParallel learns only when it is built which parameters train. The old one goes for good:
            # while it lives, it averages too.
            self.accelerator._models.clear()
            bare = self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
            # A network of which nothing learned was prepared without one, and bears the mark that it is done with.
            bare._is_accelerate_prepared = False
            del self.network
            self.network = wrapped(bare, self.accelerator)


def build_run(command: Command) -> Run:
    """Build the run a command asks for; with --resume, restored from the newest verified checkpoint.

    Raises:
        ValueError: for settings that contradict each other, the data, the checkpoint or the launcher.
    """
    imported_mb = memory_mb()[0]
    config, notes = command.config, []
    accelerator = start_processes(config)
    index = open_data(config)
    notes += index.notes if isinstance(index, EmbeddingIndex) else []
    resumed, saved = find_resumable(command) if command.resume is not None else (None, None)
    if saved is not None:
        notes += [f"skipped: {reason}" for reason in saved.skipped] + [f"resuming from {saved.path}"]
        notes += check_resumable(config, saved.state, index.dataset_id, embeddings_of(index))
    if config.task.kind in ("liveness", "temporal"):
        notes += check_leakage(config, index)
    micro = micro_batch_of(config, saved)
    task, loaded, normalisation = restored_task(config, index, saved, notes)
    about = task.about()
    with memory_told(f"{about}, with what its task learns,", "Take a smaller network, or more devices for the head"):
        task.to(accelerator.device)
        if config.train.channels_last:
            task.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.train.compile:
        task.backbone.compile()  # in place: parameter names stay
    plan = task.plan(config.data, index, config.train.batch_size, config.seed)
    notes += plan.notes
    restored_neighbours(plan, task, index, saved)
    optimizer = restored_optimizer(config, task, accelerator.device, saved, loaded)
    start = saved.state["step"] if saved is not None else 0
    freeze_steps = round(config.optim.freeze_epochs * plan.steps_per_epoch)
    late = LateStart(task, optimizer.param_groups, loaded, freeze_steps)
    late.at(start)
    average = restored_average(config, task, saved, notes)
    network = wrapped(task.backbone, accelerator)
    optimizer = accelerator.prepare(optimizer)
    if saved is not None and accelerator.scaler is not None and saved.state.get("scaler"):
        accelerator.scaler.load_state_dict(saved.state["scaler"])
    total = max(round(config.train.epochs * plan.steps_per_epoch), 1)
    loader = build_loader(config, index, plan, micro, accelerator.device)
    state = {
        "config": config.model_dump(mode="json"),
        "card": KINDS[config.task.kind].card(config, index).model_dump(mode="json"),
        "dataset_id": index.dataset_id,
        "embeddings": embeddings_of(index),
        "num_classes": index.num_classes,
        "plan": plan.describe(),
        "mined": saved.state.get("mined") if saved is not None else None,
        "micro_batch": micro,
        "loaded": loaded,
        "teacher": task.distillation.teacher.sha256 if task.distillation is not None else None,
        "threads": torch.get_num_threads(),
        "decoder": decoder_of(config, accelerator.device),
        "world": dist.world(),
        "versions": versions(),
    }
    if saved is not None:
        notes += check_plan(saved.state["plan"], state["plan"])
        notes += differences(saved.state, state)
    else:
        bf16 = accelerator.device.type == "cuda" and torch.cuda.is_bf16_supported()
        found = advise(
            config,
            num_classes=index.num_classes,
            num_images=index.num_samples,
            micro_batch=micro,
            bf16=bf16,
            weights_normalisation=normalisation,
        )
        notes += [f"advice: {line}" for line in found]
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
        about=about,
        network=network,
        optimizer=optimizer,
        schedule=schedule_of(config, total, plan.steps_per_epoch),
        late=late,
        average=average,
        loader=loader,
        plan=plan,
        index=index,
        accumulation=loader.accumulation,
        start_step=start,
        total_steps=min(total, config.train.max_steps or total),
        steps_per_epoch=plan.steps_per_epoch,
        state=state,
        best=best,
        notes=notes,
        lock=lock,
        imported_mb=imported_mb,
    )


def wrapped(backbone: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Wrap a network for several processes and mixed precision; one that learns nothing needs no other process."""
    learns = any(p.requires_grad for p in backbone.parameters())
    return accelerator.prepare_model(backbone, device_placement=False, evaluation_mode=not learns)


def build_loader(config: RunConfig, index: Index, plan: Plan, micro: int, device: torch.device) -> Delivery:
    data = config.data
    if isinstance(index, EmbeddingIndex):
        return EmbeddingLoader(
            index, plan, micro_batch=micro, rank=dist.rank(), world=dist.world(), device=device, ahead=data.ahead
        )
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
        step_size=max(round((o.step_epochs or 0) * steps_per_epoch), 1),
        gamma=o.gamma,
        power=o.power,
        min_lr=o.min_lr,
    )


def open_data(config: RunConfig) -> Index:
    data = config.data
    if isinstance(config.task, FusionTask) and config.task.drawn is not None:
        return EmbeddingIndex(draw_embeddings("train", config.task.drawn))
    if data.embeddings:
        return EmbeddingIndex(data.embeddings)
    selection = Selection(data.only, data.without, data.held_out)
    if data.sources and data.labels:
        indexes = [Index.open(source.shards, lost=data.max_damaged) for source in data.sources]
        return MixedIndex(select(indexes, selection, "data"), data.labels)
    if data.shards is None:
        raise ValueError("data.shards is not set: name a folder made by tools/make_shards.py, or its URL")
    cache = CacheOptions(data.remote_cache_folder, data.remote_cache_gb)
    return select([Index.open(data.shards, cache, lost=data.max_damaged)], selection, "data")[0]


def embeddings_of(index: Index) -> str | None:
    """Return what the embeddings to learn from are known by; None for images."""
    return index.sha256 if isinstance(index, EmbeddingIndex) else None


def micro_batch_of(config: RunConfig, saved: checkpoint.Checkpoint | None) -> int:
    """Images per forward pass: configured, or what the first start chose, or halved to what fitted."""
    batch, world = config.train.batch_size, dist.world()
    micro = config.train.micro_batch
    if saved is not None and micro in (None, saved.state["config"]["train"]["micro_batch"]):
        micro = saved.state["micro_batch"]
    micro = micro or max(batch // world, 1)
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
