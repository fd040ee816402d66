"""Configuration and checkpoint -> task, optimizer and average as a new run starts, or as the checkpoint left them."""

from pathlib import Path
from typing import NamedTuple

import torch

from fastface import checkpoint
from fastface.config import RunConfig
from fastface.data.attacks import ClassTargets, class_targets
from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.index import Index
from fastface.data.normalisation import PerColour
from fastface.data.plan import Plan
from fastface.data.plans.mined import Mined
from fastface.data.plans.neighbours import read_neighbours
from fastface.ema import WeightAverage
from fastface.fusion_settings import FusionTask
from fastface.inherited import load_teacher, start_centres
from fastface.liveness_settings import LivenessTask
from fastface.optim import build_optimizer, parameter_groups
from fastface.predictor import load_backbone_from
from fastface.resharding import restore_model, restore_optimizer
from fastface.task_settings import ArcFaceTask, MatchTask
from fastface.tasks import build_task
from fastface.tasks.arcface import ArcFace
from fastface.tasks.base import Task
from fastface.tasks.distill import Teacher
from fastface.tasks.fusion import Start, start_of
from fastface.temporal_settings import TemporalTask


class Restored(NamedTuple):
    task: Task
    loaded: list[str]
    """The tensors of the task that weights had filled when the run began."""
    normalisation: tuple[PerColour, PerColour] | None
    """Mean and std of the pixels those weights were trained on, where a new run loads them and something says so."""


def restored_task(config: RunConfig, index: Index, saved: checkpoint.Checkpoint | None, notes: list[str]) -> Restored:
    """Build the task as a new run starts, or as a checkpoint left it."""
    teacher = restored_teacher(config, index, saved, notes)
    torch.manual_seed(config.seed)
    model = config.model
    if saved is not None:  # everything comes from the checkpoint, so the file or timm's server need not be there
        model = model.model_copy(update={"pretrained": False})
    task = build_task(
        config.task,
        model,
        config.data,
        num_classes=index.num_classes,
        seed=config.seed,
        teacher=teacher,
        embedding_sizes=index.sizes if isinstance(index, EmbeddingIndex) else (),
        embedding_mean=embedding_mean(config, index) if saved is None else None,
        fusion_start=fusion_start(config, index) if saved is None else None,
        classes=classes_of(config, index),
    )
    if config.train.precision == "fp64":
        task.double()  # before loading, which would round to float32
    if saved is not None:
        restore_model(task, saved.model)
        return Restored(task, list(saved.state.get("loaded", [])), None)
    if isinstance(task, ArcFace) and isinstance(config.task, ArcFaceTask) and config.task.centres is not None:
        frozen = config.task.freeze_centres
        notes.append(start_centres(task.head, index.classes, config.data, config.task.centres, frozen=frozen))
    loaded, normalisation = set(), None
    if config.model.weights is not None:
        start = load_backbone_from(config.model.weights, task)
        notes.append(f"backbone starts from {start.origin}")
        loaded, normalisation = {f"backbone.{name}" for name in start.names}, start.normalisation
    elif config.model.pretrained:
        neck = tuple(f"{name}." for name in task.backbone.neck_modules)
        loaded = {f"backbone.{name}" for name in task.backbone.state_dict() if not name.startswith(neck)}
    if config.optim.backbone_lr_scale != 1 and not loaded:
        raise ValueError(
            "optim.backbone_lr_scale slows down what was loaded, and nothing was loaded: set model.weights or "
            "model.pretrained, or leave it at 1"
        )
    return Restored(task, sorted(loaded), normalisation)


def classes_of(config: RunConfig, index: Index) -> ClassTargets | None:
    """Return the classes that a task of live and spoof tells apart, and that of every record; None for other tasks."""
    return class_targets(index, config.task.classes) if isinstance(config.task, LivenessTask | TemporalTask) else None


def embedding_mean(config: RunConfig, index: Index) -> torch.Tensor | None:
    """Return the mean of the training embeddings [sum of sizes], where it is to be subtracted."""
    if not (isinstance(config.task, MatchTask) and config.task.centre):
        return None
    assert isinstance(index, EmbeddingIndex)
    return torch.from_numpy(index.mean())


def fusion_start(config: RunConfig, index: Index) -> Start | None:
    """Return what the training embeddings give a fusion to start from."""
    if not isinstance(config.task, FusionTask):
        return None
    assert isinstance(index, EmbeddingIndex)
    task = config.task
    size = None if task.network == "mlp" else task.embedding_size or sum(index.sizes)
    return start_of(index, map_size=size, kind=task.start)


def restored_teacher(
    config: RunConfig, index: Index, saved: checkpoint.Checkpoint | None, notes: list[str]
) -> Teacher | None:
    """Load the network to learn from, where there is one; a resumed run wants the one it began with."""
    teacher = None
    if config.task.distill is not None:
        crop = index.meta.get("options", {}).get("crop")
        teacher, said = load_teacher(config.task.distill.teacher, config.data, crop)
        notes += said
    before, now = None if saved is None else saved.state.get("teacher"), None if teacher is None else teacher.sha256
    if saved is not None and before != now:
        raise ValueError(
            f"--resume cannot change the teacher: the run began with {_named(before)}, task.distill gives "
            f"{_named(now)}. Start a new run, or restore it."
        )
    return teacher


def _named(sha256: str | None) -> str:
    return "none" if sha256 is None else f"weights of sha256 {sha256[:12]}"


def restored_optimizer(
    config: RunConfig, task: Task, device: torch.device, saved: checkpoint.Checkpoint | None, loaded: list[str]
) -> torch.optim.Optimizer:
    o = config.optim
    scales = dict.fromkeys(loaded, o.backbone_lr_scale)
    groups = parameter_groups(task, o.weight_decay, decay_norms=o.decay_norms, lr_scales=scales)
    fused = device.type == "cuda"
    optimizer = build_optimizer(
        o.name, groups, lr=o.lr, momentum=o.momentum, betas=o.betas, fused=fused, nesterov=o.nesterov
    )
    if saved is not None:
        restore_optimizer(optimizer, task, saved.optimizer)
    return optimizer


def restored_average(
    config: RunConfig, task: Task, saved: checkpoint.Checkpoint | None, notes: list[str]
) -> WeightAverage | None:
    if config.optim.ema_decay is None:
        return None
    average = WeightAverage(task.deploy(), config.optim.ema_decay)
    if saved is not None and saved.average:
        average.load_state_dict(saved.average)
    elif saved is not None:
        notes.append("the checkpoint has no average of the weights: it starts from the weights there")
    return average


def restored_neighbours(plan: Plan, task: Task, index: Index, saved: checkpoint.Checkpoint | None) -> None:
    """Let a plan that is mined on the way go on with the lists that the checkpoint names.

    Raises:
        ValueError: where they are not those, or the task has nothing to mine.
    """
    if not isinstance(plan, Mined) or plan.refreshing is None:
        return
    if plan.refreshing.source == "head" and not isinstance(task, ArcFace):
        raise ValueError(
            "data.plan.source head mines class centres, which only task arcface has: set data.plan.source: embeddings"
        )
    mined = saved.state.get("mined") if saved is not None else None
    if saved is None or mined is None:
        return
    file: Path = saved.path.parent.parent / mined["file"]
    found = read_neighbours(file, index, "the run's file of neighbours")
    if found.sha256 != mined["sha256"]:
        raise ValueError(
            f"{file} has sha256 {found.sha256[:12]}, and {saved.path} went on with {mined['sha256'][:12]}: restore the "
            f"file, or resume from a checkpoint up to step {mined['step']}"
        )
    plan.use(found)
