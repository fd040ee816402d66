"""One network, one number of identities -> the loops that are compared, all begun from the same weights."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.inputs import SIDE
from benchmarks.steppers import (
    CLIP,
    MARGIN,
    MOMENTUM,
    SCALE,
    WEIGHT_DECAY,
    ArcFaceTorch,
    ByHand,
    DenseHead,
    Ours,
    Precision,
    Stepper,
    metric_learning_head,
)
from fastface.command import Command
from fastface.config import RunConfig
from fastface.data.batch import Batch
from fastface.models import build_backbone
from fastface.run import Run, build_run

LR = 1e-4  # so low that rounding stays below AGREE over the compared steps from random weights


class Setting(NamedTuple):
    """What all loops of one table share."""

    network: str
    options: argparse.Namespace
    work: Path
    shards: Path
    batches: list[Batch]
    first: dict[str, Tensor]  # weights of the network
    centres: Tensor  # [C, D]


def begin(network: str, shards: Path, work: Path, options: argparse.Namespace) -> Setting:
    """Take batches, first weights and first centres from a run of ours."""
    setting = Setting(network, options, work, shards, [], {}, torch.empty(0))
    run = our_run(setting, channels_last=False, sample_rate=1.0)
    first = {name: value.cpu().clone() for name, value in run.task.backbone.state_dict().items()}
    return setting._replace(first=first, centres=run.task.head.weight.detach().cpu().clone())  # type: ignore[union-attr]


def ours(setting: Setting, *, channels_last: bool = True, sample_rate: float = 1.0) -> Stepper:
    stepper = Ours(our_run(setting, channels_last, sample_rate), setting.batches)
    stepper.run.task.backbone.load_state_dict(setting.first)
    stepper.run.task.head.weight.data.copy_(setting.centres)  # type: ignore[union-attr]
    return stepper


def by_hand(setting: Setting, head: Callable[[Tensor], torch.nn.Module], *, channels_last: bool = False) -> Stepper:
    network = bare_network(setting)
    precision = setting.options.precision
    kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    rest: Any = (head(setting.centres), setting.batches, LR, Precision(kind, precision == "fp16"))
    return ByHand(network, *rest, channels_last=channels_last)


def arcface_torch(setting: Setting, *, sample_rate: float = 1.0) -> Stepper:
    precision = Precision(None, setting.options.precision != "fp32")  # it knows float32 and float16
    kept: Any = (setting.first, setting.centres, sample_rate, setting.batches, LR, precision)
    return ArcFaceTorch(setting.options.arcface_torch.resolve(), setting.network, *kept)


def our_run(setting: Setting, channels_last: bool, sample_rate: float) -> Run:
    """Build the run as train.py does, with InsightFace's recipe."""
    options = setting.options
    margin = {"name": "arcface", "m": MARGIN}
    task = {"name": "arcface", "margin": margin, "s": SCALE, "gradient": "straight_through", "sample_rate": sample_rate}
    optim = {"name": "sgd", "lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "decay_norms": True}
    train = {"batch_size": options.batch, "precision": options.precision, "channels_last": channels_last}
    config = RunConfig.model_validate(
        {
            "task": task,
            "model": {"backbone": setting.network, "embedding_size": 512},
            "data": {"shards": setting.shards, "size": (SIDE, SIDE)},
            "optim": {**optim, "schedule": "constant", "clip_norm": CLIP},
            "train": train,
            "eval": {"every_epochs": None},
            "runtime": {"device": options.device, "threads": options.threads},
            "out": Path(tempfile.mkdtemp(dir=setting.work)),
        }
    )
    run = build_run(Command(config, "step", None))
    if not setting.batches:
        kept = run.loader.batches(start=0, stop=kept_batches(options))
        setting.batches.extend(b._replace(images=b.images.clone(), labels=b.labels.clone()) for b in kept)
    run.loader.close()
    run.lock.close()
    return run


def bare_network(setting: Setting) -> torch.nn.Module:
    network = build_backbone(setting.network, embedding_size=512, input_size=(SIDE, SIDE), dropout=0.0)
    network.load_state_dict(setting.first)
    return network


def kept_batches(options: argparse.Namespace) -> int:
    """Return how many batches are kept; steps go round them."""
    return max(options.check_steps, 4)


class Case(NamedTuple):
    """A row of the table."""

    build: Callable[[Setting], Stepper]
    equal: str | None = None
    """The row that has the same first losses: one with the same memory layout, since another order of the same sums
    grows to another loss within three steps from random weights."""
    losses: int | None = None
    """How many of them; None: all that are compared."""


BASE, CONTIGUOUS = "fastface", "fastface, contiguous"
METRIC_LEARNING = "loop by hand, pytorch-metric-learning"
CASES = {
    BASE: Case(ours),
    CONTIGUOUS: Case(lambda s: ours(s, channels_last=False), BASE, 1),
    "loop by hand, channels last": Case(lambda s: by_hand(s, DenseHead, channels_last=True), BASE),
    "loop by hand": Case(lambda s: by_hand(s, DenseHead), CONTIGUOUS),
    # Its margin has the exact gradient.
    METRIC_LEARNING: Case(lambda s: by_hand(s, metric_learning_head), CONTIGUOUS, 1),
    "arcface_torch": Case(arcface_torch, CONTIGUOUS),
    # Whoever samples classes draws others.
    "fastface, sample_rate 0.1": Case(lambda s: ours(s, sample_rate=0.1)),
    "arcface_torch, sample_rate 0.1": Case(lambda s: arcface_torch(s, sample_rate=0.1)),
}
