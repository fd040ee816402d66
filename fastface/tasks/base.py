"""What a task is: one learning problem, from its batch to its loss to the network it ships."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastface.config import DataConfig
from fastface.data.batch import Batch
from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.index import Index
from fastface.data.plan import Plan
from fastface.data.plans import build_plan
from fastface.models import Backbone, describe
from fastface.tasks.distill import Distillation
from fastface.timing import Watch, silent

Targets = dict[str, Tensor]
"""What embeddings are compared with, row by row: labels [B], and what else a task needs."""


class Output(NamedTuple):
    """A NamedTuple, because accelerate turns bf16 outputs back to float32 only in tuples and dicts."""

    loss: Tensor
    """Scalar: what is optimised."""
    terms: dict[str, Tensor]
    """Scalars that are only looked at."""


class StepInfo(NamedTuple):
    """What is known of an optimizer step before its first image arrives."""

    step: int
    epoch: float
    """Epochs done."""
    micro_batch: int
    labels: Callable[[], np.ndarray]
    """Gives the labels of the step's whole batch, over all processes, int64 [train.batch_size]."""


class Task(nn.Module):
    """One learning problem. The loop knows nothing else.

    The loop calls `backbone`, wrapped for several processes and mixed precision, with `inputs(batch)`, and `objective`
    with what comes out. Parameters outside the backbone are averaged over the processes after each step, except the
    rows of a fastface.heads.ClassRows, of which every process has its own.
    """

    backbone: Backbone
    """What learns and ships: [B, 3, H, W] -> [B, embedding_size]."""
    across_batch = False
    """True where the loss compares images with each other: then it sees the embeddings of the whole step at once."""
    calls_classes = "identities"
    """What the classes of the data are, for the log."""
    watch: Watch = staticmethod(silent)  # type: ignore[assignment]
    """Times parts of the loss, such as the choice of triplets; the loop gives its stopwatch."""
    collapsed_loss: float | None = None
    """The loss where all embeddings are one, if that says something."""

    def __init__(self, backbone: Backbone, window: tuple[int, int, int, int] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.window = window
        self.step, self.epoch = 0, 0.0  # of the step under way
        self.distillation: Distillation | None = None
        """Another network to learn from beside the task's own loss."""

    def about(self) -> str:
        """Describe the network in a line: its name and cost."""
        own = getattr(self.backbone, "describe", None)  # of what sees no images
        return describe(self.backbone) if own is None else own()

    @property
    def set_size(self) -> int:
        """Neighbouring rows of a batch of which the backbone makes one embedding: a set of images of one person."""
        return getattr(self.backbone, "set_size", 1)

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        """Say which records make up each step: as data.plan says, or as the problem needs."""
        plan = build_plan(data.plan, index, batch_size, seed, [source.weight for source in data.sources])
        if isinstance(index, EmbeddingIndex) and getattr(plan, "refreshing", None) is not None:
            raise ValueError("data.embeddings do not change while a task trains: mine once, and name data.plan.file")
        return plan if self.set_size == 1 else check_sets(plan, index, data.plan.name, self.set_size)

    def before_step(self, info: StepInfo, optimizer: torch.optim.Optimizer) -> None:
        """Prepare for a step."""
        self.step, self.epoch = info.step, info.epoch

    def inputs(self, batch: Batch) -> Tensor:
        """Return what the backbone sees."""
        return cut(batch.images, self.window)

    def targets(self, batch: Batch) -> Targets:
        """Return what the embeddings of a micro-batch will be compared with."""
        found = {"labels": batch.labels[:: self.set_size]}
        if self.distillation is not None:
            found["teacher"] = self.distillation.teacher(batch.images)
        return found

    def loss(self, embedding: Tensor, targets: Targets) -> Output:
        """Return the loss of a micro-batch, or of this process's whole step where the task is `across_batch`.

        The average over the processes of what they return is what is optimised.
        """
        raise NotImplementedError

    def objective(self, embedding: Tensor, targets: Targets) -> Output:
        """Return what is optimised: the loss and, where there is a teacher, the distance to its embeddings."""
        out = self.loss(embedding, targets)
        if self.distillation is None:
            return out
        cosine = self.distillation(embedding, targets["teacher"])
        terms = {"task_loss": out.loss, "teacher_cosine": cosine, **out.terms}
        return Output(out.loss + self.distillation.weight * (1 - cosine), terms)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Follow up when the optimizer has stepped."""

    def forget_step(self) -> None:
        """Drop what the losses of a step have left behind that is not taken."""

    def deploy(self) -> nn.Module:
        """Return what export ships: [B, 3, H, W] float, normalised -> [B, embedding_size]."""
        own = getattr(self.backbone, "deployed", None)
        return Windowed(self.backbone, self.window) if own is None else own()


class Windowed(nn.Module):
    """A backbone that sees a fixed window of its input, so that a 112x96 network takes 112x112 images."""

    def __init__(self, backbone: Backbone, window: tuple[int, int, int, int] | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.window = window

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(cut(images, self.window))


def check_sets(plan: Plan, index: Index, name: str, set_size: int) -> Plan:
    """Refuse a plan whose neighbouring rows are not sets of images of one person."""
    labels = index.labels_of(plan[0].records)
    if len(labels) % set_size or (labels.reshape(-1, set_size) != labels[::set_size, None]).any():
        raise ValueError(
            f"task.set_size {set_size} takes so many neighbouring images of a person, and data.plan {name} "
            f"does not bring them: set data.plan.name: per-identity, with data.plan.images a multiple of {set_size}"
        )
    return plan


def cut(images: Tensor, window: tuple[int, int, int, int] | None) -> Tensor:
    """Cut x0, y0, x1, y1 px out of every image [B, C, H, W]."""
    if window is None:
        return images
    x0, y0, x1, y1 = window
    return images[:, :, y0:y1, x0:x1]
