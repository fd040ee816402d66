"""Identity classification with an angular margin (ArcFace, CosFace): images and labels -> loss; ships the backbone."""

import torch
from torch import nn

from fastface.config import DataConfig
from fastface.data.batch import Batch
from fastface.data.index import Index
from fastface.data.plan import Plan
from fastface.data.plans import build_plan
from fastface.heads.margin_head import MarginHead
from fastface.tasks.base import Output, Windowed, cut


class ArcFace(nn.Module):
    """A backbone under a margin head with one centre per identity.

    Args:
        backbone: [B, 3, H, W] -> [B, embedding_size].
        head: [B, embedding_size], [B] -> loss, cosine [B, C].
    """

    def __init__(self, backbone: nn.Module, head: MarginHead, window: tuple[int, int, int, int] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.window = window

    def plan(self, data: DataConfig, index: Index, batch_size: int, seed: int) -> Plan:
        return build_plan(data.plan, index, batch_size, seed, [source.weight for source in data.sources])

    def forward(self, batch: Batch) -> Output:
        embedding = self.backbone(cut(batch.images, self.window))  # [B, D]
        loss, cosine = self.head(embedding, batch.labels)  # scalar, [B, C]
        with torch.no_grad():
            accuracy = (cosine.argmax(1) == batch.labels).float().mean()
            target = cosine.gather(1, batch.labels[:, None]).float().mean()
        return Output(loss, {"train_acc": accuracy, "target_cosine": target})

    def deploy(self) -> nn.Module:
        return Windowed(self.backbone, self.window)
