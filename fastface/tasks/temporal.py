"""Live or spoof, from the frames of a clip: frames and classes -> loss; ships the network that gives the logits."""

import numpy as np
import torch
from torch import Tensor, nn

from fastface.config import DataConfig
from fastface.data.attacks import ClassTargets
from fastface.data.batch import Batch
from fastface.data.index import Index
from fastface.data.mixed_index import MixedIndex
from fastface.data.plan import Plan
from fastface.losses.compared import mean_where
from fastface.models.gmacs import describe
from fastface.models.temporal import DeployedTemporal, TemporalNetwork
from fastface.tasks.base import Output, Targets, Task
from fastface.tasks.liveness import ClassLoss


class Temporal(Task):
    """A network of clips whose first class is live; rows come as data.plan clips has them.

    Args:
        classes: the class of every record of the set it learns from; the frames of a clip have one.
        class_loss: of logits and classes, for each clip.
    """

    backbone: TemporalNetwork
    calls_classes = "classes"

    def __init__(
        self,
        network: TemporalNetwork,
        window: tuple[int, int, int, int] | None = None,
        *,
        classes: ClassTargets,
        class_loss: ClassLoss,
    ) -> None:
        super().__init__(network, window)
        self.classes, self.class_loss = classes, class_loss

    def about(self) -> str:
        return f"{describe(self.backbone.body)} a frame; {self.backbone.describe_time()}"

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        if data.plan.name != "clips":
            raise ValueError(
                f"task temporal learns from clips, data.plan is {data.plan.name}: set data.plan.name: clips"
            )
        plan = super().plan(data, index, batch_size, seed)
        _check_clips(index, self.classes.of_record)
        return plan

    def targets(self, batch: Batch) -> Targets:
        first = batch.records[:: self.backbone.frames]
        numbers = torch.from_numpy(self.classes.of_record[first].astype(np.int64))
        return {"labels": numbers.to(batch.images.device)}

    def loss(self, embedding: Tensor, targets: Targets) -> Output:
        """Return the loss of a micro-batch's logits, [B, C] for B clips."""
        logits, labels = embedding, targets["labels"]
        if logits.dtype != torch.float64:
            logits = logits.float()
        live, called = labels == 0, logits.detach().argmax(1) == 0
        right = (live == called).to(logits.dtype)
        terms = {
            "live_right": mean_where(right, live),
            "spoof_right": mean_where(right, ~live),
            "live": live.to(logits.dtype).mean(),
        }
        return Output(self.class_loss(logits, labels).mean(), terms)

    def deploy(self) -> nn.Module:
        """Return what export ships: clips [B, T, 3, H, W] float, normalised -> logits [B, classes]."""
        return DeployedTemporal(self.backbone, self.window)


def _check_clips(index: Index, of_record: np.ndarray) -> None:
    """Raise a ValueError where the frames of a clip are of two classes (int16 [N], one for each record)."""
    sources = index.sources if isinstance(index, MixedIndex) else [index]
    start = 0
    for source in sources:
        own = of_record[start : start + source.num_samples]
        start += source.num_samples
        _, first, clip = np.unique(source.columns["clip"][:], return_index=True, return_inverse=True)
        odd = np.flatnonzero(own != own[first][clip])
        if len(odd):
            name, other = source.name(int(odd[0])), source.name(int(first[clip[odd[0]]]))
            raise ValueError(
                f"{source.path}: {name!r} is of another class than {other!r}, a frame of the same clip: clips are "
                "live or spoof as a whole; make the shards again"
            )
