"""Command -> Run: the folder, the processes, the network, the optimizer and the loader of a run, restored."""

import fcntl
import json
import os
import platform
import time
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
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.hardware import decode_threads_of, decoder_of, start_processes
from fastface.optim import Schedule, build_optimizer, build_schedule, parameter_groups
from fastface.predictor import load_backbone_from
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
    torch.manual_seed(config.seed)
    task: nn.Module = build_task(config.task, config.model, config.data, index.num_classes)
    if saved is not None:
        task.load_state_dict(saved.model)
    elif config.model.weights is not None:
        notes.append(load_backbone_from(config.model.weights, task))
    if config.train.precision == "fp64":
        task.double()
    task.to(accelerator.device)
    if config.train.channels_last:
        task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.train.compile:
        task.backbone.compile()  # in place: parameter names stay
    o = config.optim
    groups = parameter_groups(task, o.weight_decay, decay_norms=o.decay_norms)
    fused = accelerator.device.type == "cuda"
    optimizer = build_optimizer(o.name, groups, lr=o.lr, momentum=o.momentum, betas=o.betas, fused=fused)
    if saved is not None:
        checkpoint.restore_optimizer(optimizer, task, saved.optimizer)
    module, prepared = accelerator.prepare(task, optimizer)
    if saved is not None and accelerator.scaler is not None and saved.state.get("scaler"):
        accelerator.scaler.load_state_dict(saved.state["scaler"])
    plan = task.plan(index, config.train.batch_size, config.seed)  # type: ignore[operator]
    total = round(config.train.epochs * plan.steps_per_epoch)
    loader = Loader(
        index,
        plan,
        augment=Augment(flip=config.data.flip),
        decoder=decoder_of(config, accelerator.device),
        size=config.data.size,
        micro_batch=micro,
        rank=dist.rank(),
        world=dist.world(),
        device=accelerator.device,
        threads=decode_threads_of(config, accelerator.device),
        ahead=config.data.ahead,
        mean=config.data.mean,
        std=config.data.std,
        check_crc=config.data.check_crc,
    )
    schedule = build_schedule(
        o.schedule,
        o.lr,
        total_steps=total,
        warmup_steps=round(o.warmup_epochs * plan.steps_per_epoch),
        milestone_steps=[round(m * plan.steps_per_epoch) for m in o.milestones],
        gamma=o.gamma,
        power=o.power,
    )
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
    # Only now, with everything checked and built, does anything appear on disk.
    folder = resumed or new_folder(command)
    lock = hold(folder)
    if dist.is_main() and saved is None:
        classes = {"dataset_id": index.dataset_id, "classes": list(index.classes)}
        checkpoint.write_json(folder / "classes.json", classes)
    best_file = folder / "best.json"
    best = json.loads(best_file.read_text(encoding="utf-8")) if saved is not None and best_file.exists() else {}
    start = saved.state["step"] if saved is not None else 0
    if best.get("step", 0) > start:  # chosen after the checkpoint that is restored: it will be found again
        best = saved.state.get("best", {}) if saved is not None else {}
    return Run(
        config=config,
        folder=folder,
        accelerator=accelerator,
        task=task,
        module=module,
        optimizer=prepared,
        schedule=schedule,
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


def open_shards(config: RunConfig) -> Index:
    if config.data.shards is None:
        raise ValueError("data.shards is not set: name a folder made by tools/make_shards.py")
    return Index.open(config.data.shards)


def new_folder(command: Command) -> Path:
    """Make OUT/<stem>/<UTC time> on rank 0 and tell the others its name."""
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = command.config.out / command.stem / name
    if dist.is_main():
        try:
            while folder.exists():  # two runs within one second
                folder = folder.with_name(folder.name + "b")
            (folder / "checkpoints").mkdir(parents=True)
            (folder / "config.yaml").write_text(command.config.dump(), encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot write to {folder}: {error.strerror}; change `out` in the config") from None
    return Path(dist.share(str(folder)))


def find_resumable(command: Command) -> tuple[Path, checkpoint.Checkpoint]:
    """Find the run to go on with, and its newest verified checkpoint; what was skipped is noted in it."""
    runs = command.config.out / command.stem
    if command.resume:
        path = Path(command.resume)
        if (path / checkpoint.MANIFEST).is_file():
            return path.parent.parent, checkpoint.load(path)
        candidates = [path]
    else:
        candidates = sorted((p for p in runs.glob("*") if (p / "checkpoints").is_dir()), reverse=True)
    reasons: list[str] = []
    for folder in candidates:
        try:
            found = checkpoint.newest(folder / "checkpoints")
            return folder, found._replace(skipped=reasons + found.skipped)
        except FileNotFoundError as error:
            reasons.append(str(error))
    raise ValueError("nothing to resume: " + ("\n".join(reasons) or f"no run in {runs}") + "\nStart without --resume.")


def hold(folder: Path) -> Any:
    """Lock the run folder on rank 0 until the process ends; the kernel releases it even after SIGKILL."""
    if not dist.is_main():
        return None
    file = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise ValueError(
            f"{folder} is being written by another run (process {file.read().strip()}): stop it first"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()} on {platform.node()}")
    file.flush()
    return file


def check_resumable(config: RunConfig, state: dict[str, Any], dataset_id: str) -> list[str]:
    """Refuse what would make another run of it; return a line per harmless difference."""
    if state["dataset_id"] != dataset_id:
        raise ValueError(
            f"data.shards is dataset {dataset_id[:12]}, the checkpoint was trained on {state['dataset_id'][:12]}: "
            "resume with the same shards, or start a new run with model.weights"
        )
    before, now = _leaves(state["config"]), _leaves(config.model_dump(mode="json"))
    changed = {k: (before.get(k), now[k]) for k in now if before.get(k) != now[k]}
    fixed = ("seed", "task.", "model.", "data.size", "data.flip", "data.mean", "data.std", "optim.name")
    fixed += ("train.batch_size", "train.precision")
    fatal = {k: v for k, v in changed.items() if k.startswith(fixed) and k not in ("model.weights", "model.pretrained")}
    if fatal:
        table = "".join(f"\n  {k}: {a!r} -> {b!r}" for k, (a, b) in fatal.items())
        raise ValueError(f"--resume cannot change these settings:{table}\nStart a new run, or restore them.")
    return [f"changed since the checkpoint: {k} {a!r} -> {b!r}" for k, (a, b) in changed.items()]


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


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
