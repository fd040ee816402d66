"""Same person or not, learned from pairs of embeddings: rows of embeddings -> loss; ships what compares two."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastface.config import DataConfig
from fastface.data.batch import Batch
from fastface.data.index import Index
from fastface.data.plan import Plan
from fastface.losses.compared import mean_of_hardest, mean_where
from fastface.models.matcher import Comparator, Matcher, pairs_of
from fastface.tasks.base import Output, Targets, Task
from fastface.tasks.metric import comparable


class Match(Task):
    """A matcher that learns log-odds by binary cross entropy in which genuine and impostor pairs weigh the same.

    Its logits therefore are log-odds at even odds, log-likelihood ratios: any prior is added where they are used.

    Args:
        genuine: share of genuine pairs in data.plan pairs, which balances the weights of neighbours; the pairs of
            "all" are balanced by their numbers in each micro-batch.
    """

    backbone: Matcher  # type: ignore[assignment]

    def __init__(self, matcher: Matcher, *, genuine: float = 0.5, keep_hardest: float = 1.0) -> None:
        super().__init__(matcher)  # type: ignore[arg-type]
        self.genuine, self.keep_hardest = genuine, keep_hardest

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        plan = super().plan(data, index, batch_size, seed)
        if self.backbone.pairs == "all":
            return comparable(plan, index, data.plan.name)
        if data.plan.name != "pairs" or not 0 < self.genuine < 1:
            raise ValueError(
                "task match learns from genuine and impostor pairs: set data.plan.name: pairs with a share of genuine "
                "ones between 0 and 1, or task.pairs: all with data.plan per-identity or mined"
            )
        return plan

    def inputs(self, batch: Batch) -> Tensor:
        return batch.embeddings

    def targets(self, batch: Batch) -> Targets:
        return {"labels": batch.labels}

    def loss(self, embedding: Tensor, targets: Targets) -> Output:
        """Return the loss of a micro-batch's logits [P], in the order of the matcher's pairs."""
        logit, labels = embedding, targets["labels"]
        if logit.dtype != torch.float64:
            logit = logit.float()
        first, second = pairs_of(len(labels), self.backbone.pairs, labels.device)
        same = labels[first] == labels[second]  # bool [P]
        losses = F.binary_cross_entropy_with_logits(logit, same.to(logit.dtype), reduction="none")
        loss = mean_of_hardest(losses * self._weights(same, logit.dtype), self.keep_hardest)
        decided = (logit.detach() > 0) == same
        right = decided.to(logit.dtype)
        terms = {
            "accuracy": (mean_where(right, same) + mean_where(right, ~same)) / 2,
            "logit_genuine": mean_where(logit.detach(), same),
            "logit_impostor": mean_where(logit.detach(), ~same),
            "genuine": same.to(logit.dtype).mean(),
        }
        return Output(loss, terms)

    def _weights(self, same: Tensor, dtype: torch.dtype) -> Tensor:
        """Return weights [P] whose mean is 1 and that give both kinds half of it."""
        share = self.genuine if self.backbone.pairs == "neighbours" else same.to(dtype).mean()
        weight = torch.where(same, 0.5 / share, 0.5 / (1 - share))
        return weight.to(dtype)

    def deploy(self) -> Comparator:
        """Return what export ships: embeddings [P, D], [P, D] -> logits [P]."""
        return Comparator(self.backbone)
