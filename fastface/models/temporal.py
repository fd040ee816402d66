"""Any backbone and a recurrent network over its features -> logits of clips, whose frames are neighbouring rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastface.models.neck import Backbone, outside_autocast

Over = Literal["lstm", "gru", "mean"]
Readout = Literal["last", "mean"]
Differences = Literal["none", "features", "pixels"]
GRID = 4  # cells a side in which differences of pixels are averaged


class TemporalNetwork(Backbone):
    """Frames [B * T, 3, H, W], those of a clip one after the other -> logits [B, C].

    Every frame becomes features by the body; over those of a clip goes an LSTM or a GRU, or their mean is taken, which
    knows no order: the baseline. A linear layer gives the logits.

    Args:
        frames: T.
        over: "lstm", "gru" or "mean".
        hidden, layers: of the recurrent network.
        dropout: of what the linear layer sees, and between recurrent layers.
        readout: the linear layer sees the output at the last frame, or the mean of those at all frames.
        differences: beside its features each frame has the absolute differences from the frame before, of the
            features, or of the pixels as means over GRID x GRID cells and the colours; normalised by a BatchNorm, and
            zero at the first frame.
        frozen: the body never learns, and its BatchNorms keep their statistics.
    """

    may_be_new = ("difference_norm.", "recurrent.", "classifier.")

    def __init__(
        self,
        body: Backbone,
        classes: Sequence[str],
        *,
        frames: int,
        over: Over = "lstm",
        hidden: int = 128,
        layers: int = 1,
        dropout: float = 0.0,
        readout: Readout = "last",
        differences: Differences = "none",
        frozen: bool = False,
    ) -> None:
        super().__init__(body.name, body.embedding_size, body.input_size)
        self.any_size, self.notes = body.any_size, body.notes
        self.neck_modules = (*(f"body.{name}" for name in body.neck_modules), *(n.rstrip(".") for n in self.may_be_new))
        self.body = body
        self.frames, self.over, self.readout = frames, over, readout
        self.differences: Differences = differences
        self.frozen = frozen
        width = body.embedding_size
        if differences != "none":
            more = width if differences == "features" else GRID * GRID
            self.difference_norm = nn.BatchNorm1d(more)
            width += more
        if over != "mean":
            kind = nn.LSTM if over == "lstm" else nn.GRU
            between = dropout if layers > 1 else 0.0
            self.recurrent = kind(width, hidden, layers, batch_first=True, dropout=between)
            width = hidden
        self.dropout = nn.Dropout(dropout)
        self.classes = tuple(classes)
        self.classifier = nn.Linear(width, len(self.classes))
        if frozen:
            body.requires_grad_(False)
            body.eval()

    def forward(self, frames: Tensor) -> Tensor:
        features = self.body(frames)  # [B * T, D]
        with outside_autocast(features.device.type):
            dtype = self.classifier.weight.dtype
            over_time = features.to(dtype).unflatten(0, (-1, self.frames))  # [B, T, D]
            if self.differences != "none":
                over_time = torch.cat([over_time, self._changes(frames.to(dtype), over_time)], 2)
            if self.over != "mean":
                over_time = self.recurrent(over_time)[0]
            read = over_time[:, -1] if self.over != "mean" and self.readout == "last" else over_time.mean(1)
            return self.classifier(self.dropout(read))

    def _changes(self, frames: Tensor, features: Tensor) -> Tensor:
        """Return how much each frame differs from the one before, [B, T, n], of frames and features [B, T, D]."""
        rows = features
        if self.differences == "pixels":
            cell = (frames.shape[2] // GRID, frames.shape[3] // GRID)
            clips = frames.unflatten(0, (-1, self.frames))
            change = (clips[:, 1:] - clips[:, :-1]).abs().mean(2)  # [B, T - 1, H, W]
            found = F.avg_pool2d(change, cell)[:, :, :GRID, :GRID].flatten(2)
        else:
            found = (rows[:, 1:] - rows[:, :-1]).abs()
        normed = self.difference_norm(found.flatten(0, 1)).unflatten(0, (-1, self.frames - 1))
        return F.pad(normed, (0, 0, 1, 0))

    def train(self, mode: bool = True) -> TemporalNetwork:
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def adapted(self, tensors: dict[str, Tensor], classes: Sequence[str] | None) -> dict[str, Tensor]:
        """Take a backbone's tensors, or an image network's, for the body's; all of its own kind and classes."""
        if not any(name.startswith("body.") for name in tensors):
            return {f"body.{name}": value for name, value in tensors.items()}
        shapes = {name: value.shape for name, value in tensors.items() if not name.startswith("body.")}
        own = {name: value.shape for name, value in self.state_dict().items() if not name.startswith("body.")}
        same = shapes == own and classes is not None and tuple(classes) == self.classes
        same = same and self.over != "mean"  # a classifier of single images looks like that of a mean
        return {name: value for name, value in tensors.items() if same or name.startswith("body.")}

    def describe_time(self) -> str:
        """Say in a few words what becomes of the frames."""
        count = sum(p.numel() for name, p in self.named_parameters() if not name.startswith("body."))
        return f"{self.over} over {self.frames} frames, {count / 1e6:.2f} M parameters beside the body"


class DeployedTemporal(nn.Module):
    """What ships: normalised clips [B, T, 3, H, W] -> logits [B, C], of a window of their frames."""

    def __init__(self, backbone: TemporalNetwork, window: tuple[int, int, int, int] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.window = window

    def forward(self, clips: Tensor) -> Tensor:
        if self.window is not None:
            x0, y0, x1, y1 = self.window
            clips = clips[..., y0:y1, x0:x1]
        return self.backbone(clips.flatten(0, 1))
