"""Embeddings compared with each other (triplets, supervised contrast, multi-similarity): images -> loss."""

from typing import Protocol

import numpy as np
from torch import Tensor

from fastface.collect import gather
from fastface.config import DataConfig
from fastface.data.index import Index
from fastface.data.plan import Plan, hash_numbers
from fastface.losses.compared import Compared
from fastface.models import Backbone
from fastface.tasks.base import Output, Targets, Task
from fastface.timing import Watch

MINED = 103
"""What a run's seed is hashed with for the choice of negatives, apart from fastface/data/plan.py's streams."""


class Comparison(Protocol):
    """A loss of all rows of a step: fastface.losses.triplet.triplet_loss and its like, with their settings."""

    def __call__(self, embedding: Tensor, labels: Tensor, *, key: int, epoch: float, watch: Watch) -> Compared: ...


class Metric(Task):
    """A backbone whose embeddings are compared with each other, those of all processes and micro-batches of a step.

    Every process computes the same loss of the same rows, in the order of the plan, so it does not depend on how many
    processes there are.
    """

    across_batch = True

    def __init__(
        self,
        backbone: Backbone,
        comparison: Comparison,
        window: tuple[int, int, int, int] | None = None,
        *,
        seed: int,
        collapsed_loss: float | None = None,
    ) -> None:
        super().__init__(backbone, window)
        self.comparison = comparison
        self.seed = seed
        self.collapsed_loss = collapsed_loss

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        return comparable(super().plan(data, index, batch_size, seed), index, data.plan.name, self.set_size)

    def loss(self, embedding: Tensor, targets: Targets) -> Output:
        return Output(*compare_step(self, self.comparison, self.seed, embedding, targets))


def compare_step(task: Task, comparison: Comparison, seed: int, embedding: Tensor, targets: Targets) -> Compared:
    """Compare the embeddings of all processes, by a loss whose choices follow from (seed, step)."""
    key = hash_numbers(seed, task.step, MINED)
    rows, labels = gather(embedding), gather(targets["labels"])
    return comparison(rows, labels, key=key, epoch=task.epoch, watch=task.watch)


def comparable(plan: Plan, index: Index, name: str, set_size: int = 1) -> Plan:
    """Refuse a plan whose batches have nothing to compare, and note one whose batches have little.

    The first batch is looked at: plans differ from step to step in who is drawn, not in how.
    """
    labels = index.labels_of(plan[0].records)[::set_size]
    counts = np.unique(labels, return_counts=True)[1]  # images, or sets of them, of each identity there
    if counts.max() < 2 or len(counts) < 2:
        raise ValueError(
            "the task compares images of one identity with each other and with those of other identities, and the "
            f"first batch of data.plan {name} has {len(counts)} identities with at most {counts.max()} image(s) each: "
            "set data.plan.name: per-identity, with data.plan.images of 2 or more and a larger train.batch_size"
        )
    alone = counts[counts == 1].sum() / counts.sum()
    if alone > 0.5:
        plan.notes.append(
            f"{alone:.0%} of the first batch's images are the only ones of their identity there, and are compared with "
            "other identities only: data.plan per-identity brings several images of each"
        )
    return plan
