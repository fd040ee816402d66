"""Same person or not, by the cosine of two embeddings: pairs of images -> loss; ships the backbone."""

import torch
from torch import Tensor, nn

from fastface.config import DataConfig
from fastface.data.index import Index
from fastface.data.plan import Plan
from fastface.losses.compared import Compared
from fastface.losses.pair import pair_bce, pair_contrastive
from fastface.models import Backbone
from fastface.tasks.base import Output, Targets, Task


class Pair(Task):
    """A backbone whose embeddings are compared in pairs: rows 2i and 2i + 1 of a batch, as data.plan pairs has them.

    Plan mined has them too, where its `pairs` is set: half of them genuine, half of identities that look alike.

    With loss "bce" the pair is one person with probability sigmoid(scale * cosine + bias); both may learn.
    """

    def __init__(
        self,
        backbone: Backbone,
        window: tuple[int, int, int, int] | None = None,
        *,
        loss: str,
        scale: float,
        bias: float,
        learn_scale: bool,
        margin: float,
        distance: str,
        keep_hardest: float,
    ) -> None:
        super().__init__(backbone, window)
        self.loss_name, self.margin, self.distance, self.keep_hardest = loss, margin, distance, keep_hardest
        learn = learn_scale and loss == "bce"
        # The logarithm of the scale, so that no step can make it negative.
        self.log_scale = nn.Parameter(torch.tensor(scale).log(), requires_grad=learn)
        self.bias = nn.Parameter(torch.tensor(bias), requires_grad=learn)

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        if data.plan.name != "pairs" and not getattr(data.plan, "pairs", False):
            raise ValueError(
                f"task pair learns from pairs, data.plan is {data.plan.name}: set data.plan.name: pairs, or for hard "
                "ones mined with pairs: true, images: 2 and neighbours: 1"
            )
        return super().plan(data, index, batch_size, seed)

    def loss(self, embedding: Tensor, targets: Targets) -> Output:
        found = self._compared(embedding, targets["labels"])
        terms = found.terms
        if self.bias.requires_grad:
            terms = terms | {
                "scale": self.log_scale.detach().exp(),
                "threshold": -(self.bias / self.log_scale.exp()).detach(),
            }
        return Output(found.loss, terms)

    def _compared(self, embedding: Tensor, labels: Tensor) -> Compared:
        if self.loss_name == "contrastive":
            return pair_contrastive(
                embedding, labels, margin=self.margin, distance=self.distance, keep_hardest=self.keep_hardest
            )
        return pair_bce(embedding, labels, scale=self.log_scale.exp(), bias=self.bias, keep_hardest=self.keep_hardest)
