"""A network, its head and kept batches -> one optimizer step at a time, of this trainer and of others.

Every loop has the same network with the same first weights and the same first centres, sees the same batches, and
times its own parts with the same stopwatch. SGD with momentum 0.9 and weight decay 5e-4 on everything, scale 64,
margin 0.5, as InsightFace's arcface_torch has it; so has it the margin's gradient (straight through).
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastface.data.batch import Batch
from fastface.run import Run
from fastface.step import FiniteGuard, train_step
from fastface.timing import Stopwatch

SCALE, MARGIN, CLIP = 64.0, 0.5, 5.0
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
INSIGHTFACE = {"iresnet18": "r18", "iresnet34": "r34", "iresnet50": "r50", "iresnet100": "r100", "mbf": "mbf"}
"""Our networks' names and arcface_torch's, for those that are the same with the same names of weights."""


class Stepper(Protocol):
    """A training loop that takes one step at a time."""

    batches: list[Batch]
    watch: Stopwatch

    def clip(self, on: bool) -> None:
        """Clip gradients to CLIP from now on, or do not: all of them, arcface_torch the network's alone."""

    def step(self, number: int) -> Tensor:
        """Train on a kept batch; return its loss, on the device."""
        ...


class Ours:
    """fastface.step.train_step on what train.py builds."""

    def __init__(self, run: Run, batches: list[Batch]) -> None:
        self.run, self.batches = run, batches
        self.watch = Stopwatch(run.accelerator.device)
        self.guard = FiniteGuard(run.accelerator.device)
        run.task.train()

    def clip(self, on: bool) -> None:
        optim = self.run.config.optim.model_copy(update={"clip_norm": CLIP if on else None})
        self.run.config = self.run.config.model_copy(update={"optim": optim})

    def step(self, number: int) -> Tensor:
        return train_step(self.run, iter([self.batches[number]]), number, self.guard, self.watch).terms["loss"]


class Precision(NamedTuple):
    """How a loop by hand computes."""

    autocast: torch.dtype | None  # None: float32 throughout
    scaled: bool  # with loss scaling, as float16 needs it


class ByHand:
    """The loop of any tutorial: forward, loss, backward, clip, optimizer.

    clipped: parameters whose gradient is clipped; None: all. reads_loss: wait for the loss after every step.
    """

    def __init__(
        self,
        network: nn.Module,
        head: nn.Module,
        batches: list[Batch],
        lr: float,
        precision: Precision,
        *,
        channels_last: bool = False,
        clipped: nn.Module | None = None,
        reads_loss: bool = False,
    ) -> None:
        self.device = batches[0].images.device
        self.network, self.head = network.to(self.device).train(), head.to(self.device).train()
        if channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels_last, self.batches, self.reads_loss, self.clips = channels_last, batches, reads_loss, True
        self.autocast, self.scaler = (
            precision.autocast,
            torch.amp.GradScaler(self.device.type, enabled=precision.scaled),
        )
        parameters = [p for m in (network, head) for p in m.parameters() if p.requires_grad]
        self.clipped = list(clipped.parameters()) if clipped is not None else parameters
        groups = [{"params": [p for p in m.parameters() if p.requires_grad]} for m in (network, head)]
        self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        self.watch = Stopwatch(self.device)

    def clip(self, on: bool) -> None:
        self.clips = on

    def step(self, number: int) -> Tensor:
        images, labels = self.batches[number].images, self.batches[number].labels
        with self.watch("forward"), torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            embedding = self.network(images).float()
        with self.watch("loss"):
            loss = self.head(embedding, labels)
        with self.watch("backward"):
            self.scaler.scale(loss).backward()
        with self.watch("optimizer"):
            if self.clips:
                self.scaler.unscale_(self.optimizer)
                torch.nn.utils.clip_grad_norm_(self.clipped, CLIP)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
        if self.reads_loss:
            loss.item()
        return loss.detach()


class DenseHead(nn.Module):
    """ArcFace with all cosines in memory, a one-hot matrix for the margin, and torch's cross entropy."""

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(centres.clone())  # [C, D]

    def forward(self, embedding: Tensor, labels: Tensor) -> Tensor:
        cosine = F.linear(F.normalize(embedding), F.normalize(self.weight))  # [B, C]
        with torch.no_grad():  # straight through: the margin's value, without its derivative
            one_hot = torch.zeros_like(cosine).scatter_(1, labels[:, None], 1.0)
            sine = (1.0 - cosine.square()).clamp(min=0.0).sqrt()
            hardened = cosine * math.cos(MARGIN) - sine * math.sin(MARGIN)
            beyond = cosine - MARGIN * math.sin(MARGIN)
            hardened = torch.where(cosine > math.cos(math.pi - MARGIN), hardened, beyond)
            added = one_hot * (hardened - cosine)
        return F.cross_entropy(SCALE * (cosine + added), labels)


def metric_learning_head(centres: Tensor) -> nn.Module:
    """Build pytorch-metric-learning's ArcFaceLoss; its margin's gradient is the exact one."""
    from pytorch_metric_learning.losses import ArcFaceLoss

    head = ArcFaceLoss(*centres.shape, margin=math.degrees(MARGIN), scale=SCALE)
    head.W.data = centres.T.contiguous()
    return head


class ArcFaceTorch(ByHand):
    """arcface_torch's network and PartialFC_V2 in the loop of its train_v2.py, without DistributedDataParallel.

    One process gains nothing from that wrapper, and it would round gradients to half precision. Their classes ask
    for a GPU by `.cuda()`; without one, that does nothing while they run.
    """

    def __init__(
        self, clone: Path, name: str, first: dict[str, Tensor], centres: Tensor, sample_rate: float, *rest: Any
    ) -> None:
        sys.path.insert(0, str(clone))
        try:
            import backbones
            import losses
            import partial_fc_v2
        finally:
            sys.path.remove(str(clone))
        batches: list[Batch] = rest[0]
        start_group(batches[0].images.device)
        precision: Precision = rest[2]
        classes, size = centres.shape
        network = backbones.get_model(INSIGHTFACE[name], dropout=0.0, fp16=precision.scaled, num_features=size)
        network.load_state_dict(first)
        margin = losses.CombinedMarginLoss(SCALE, 1.0, MARGIN, 0.0)
        head = partial_fc_v2.PartialFC_V2(margin, size, classes, sample_rate, False)
        head.weight.data.copy_(centres)
        # Their network enters autocast by itself, for the convolutions only.
        outer = Precision(None, precision.scaled)
        super().__init__(network, head, batches, rest[1], outer, clipped=network, reads_loss=True)

    def step(self, number: int) -> Tensor:
        with on_this_device(self.device):
            return super().step(number)


def start_group(device: torch.device) -> None:
    """Start torch.distributed with this process alone: PartialFC_V2 refuses to be without."""
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)


@contextlib.contextmanager
def on_this_device(device: torch.device) -> Iterator[None]:
    """Let `.cuda()` leave tensors where they are if there is no GPU to use."""
    stays: Callable[..., Tensor] = lambda tensor, *_, **__: tensor  # noqa: E731
    with mock.patch.object(torch.Tensor, "cuda", stays) if device.type == "cpu" else contextlib.nullcontext():
        yield
