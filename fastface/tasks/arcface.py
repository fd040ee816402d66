"""Identity classification with a margin (ArcFace and its relatives): images and labels -> loss; ships the backbone."""

from typing import Any

import torch
from torch import Tensor

from fastface.config import DataConfig
from fastface.data.index import Index
from fastface.data.plan import Plan
from fastface.heads.margin_head import MarginHead
from fastface.models import Backbone
from fastface.tasks.base import Output, StepInfo, Targets, Task
from fastface.tasks.metric import Comparison, comparable, compare_step


class ArcFace(Task):
    """A backbone under a margin head with one centre (or a few) per identity.

    Args:
        backbone: [B, 3, H, W] -> [B, embedding_size].
        head: embeddings [B, embedding_size] and labels [B] -> the loss over all processes.
        triplet: a loss of the same embeddings compared with each other, added with its weight.
        margin_ramp_epochs: the margin grows from 0 to its value over so many epochs.
        keep_hardest_after_epochs: until then the loss is of all samples, whatever head.keep_hardest says.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: MarginHead,
        window: tuple[int, int, int, int] | None = None,
        *,
        triplet: Comparison | None = None,
        triplet_weight: float = 1.0,
        seed: int = 0,
        margin_ramp_epochs: float = 0.0,
        keep_hardest_after_epochs: float = 0.0,
    ) -> None:
        super().__init__(backbone, window)
        self.head = head
        self.across_batch = triplet is not None
        self.triplet, self.triplet_weight, self.seed = triplet, triplet_weight, seed
        self.margin_ramp_epochs = margin_ramp_epochs
        self.keep_hardest, self.keep_hardest_after_epochs = head.keep_hardest, keep_hardest_after_epochs

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        plan = super().plan(data, index, batch_size, seed)
        return plan if self.triplet is None else comparable(plan, index, data.plan.name, self.set_size)

    def before_step(self, info: StepInfo, optimizer: torch.optim.Optimizer) -> None:
        super().before_step(info, optimizer)
        if self.margin_ramp_epochs:
            self.head.margin.strength = min(info.epoch / self.margin_ramp_epochs, 1.0)
        self.head.keep_hardest = self.keep_hardest if info.epoch >= self.keep_hardest_after_epochs else 1.0
        self.head.micro_batch = info.micro_batch // self.set_size
        self.head.choose(info.step, info.labels, optimizer)

    def loss(self, embedding: Tensor, targets: Targets) -> Output:
        found: Any = self.head(embedding, targets["labels"])
        terms = {"train_acc": found.accuracy, "target_cosine": found.target_cosine}
        if self.triplet is None:
            return Output(found.loss, terms)
        compared = compare_step(self, self.triplet, self.seed, embedding, targets)
        terms |= {"margin_loss": found.loss, "triplet_loss": compared.loss, **compared.terms}
        return Output(found.loss + self.triplet_weight * compared.loss, terms)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.head.put_back(optimizer)
        self.head.settle()

    def forget_step(self) -> None:
        self.head.margin.forget()
