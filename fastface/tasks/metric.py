"""Embeddings compared with each other (triplets, supervised contrast, multi-similarity): images -> loss."""

from typing import Protocol

import torch
from torch import Tensor

from fastface.collect import gather
from fastface.data.plan import hash_numbers
from fastface.losses.compared import Compared
from fastface.models import Backbone
from fastface.tasks.base import Output, StepInfo, Targets, Task

MINED = 103
"""What a run's seed is hashed with for the choice of negatives, apart from fastface/data/plan.py's streams."""


class Comparison(Protocol):
    """A loss of all rows of a step: fastface.losses.triplet.triplet_loss and its like, with their settings."""

    def __call__(self, embedding: Tensor, labels: Tensor, *, key: int, epoch: float) -> Compared: ...


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
        self._step, self._epoch = 0, 0.0

    def before_step(self, info: StepInfo, optimizer: torch.optim.Optimizer) -> None:
        self._step, self._epoch = info.step, info.epoch

    def loss(self, embedding: Tensor, targets: Targets) -> Output:
        key = hash_numbers(self.seed, self._step, MINED)
        rows, labels = gather(embedding), gather(targets["labels"])
        return Output(*self.comparison(rows, labels, key=key, epoch=self._epoch))
