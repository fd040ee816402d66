"""Face -> embedding with InsightFace's variants of MobileFaceNet, mbf and mbf_large, under its parameter names.

Weights released for `arcface_torch` load without renaming. Against the paper's network (mobilefacenet.py): twice
or four times the channels at nearly the paper's widths inside the bottlenecks, and a linear layer with BatchNorm
after the global convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastface.models.neck import Backbone, outside_autocast

TOTAL_STRIDE = 16


class Variant(NamedTuple):
    scale: int
    """Channels between the bottlenecks: 64 x scale at strides 2 and 4, 128 x scale at strides 8 and 16."""
    repeats: tuple[int, int, int, int]
    """Bottlenecks at each stride; a single one at stride 2 is a grouped convolution alone."""


# backbones/mobilefacenet.py of arcface_torch
VARIANTS = {"mbf": Variant(2, (1, 4, 6, 2)), "mbf_large": Variant(4, (2, 8, 12, 4))}


class Mbf(Backbone):
    """Build network `name` of VARIANTS for faces of `input_size` (width, height) px.

    As in MobileFaceNet the global convolution's kernel is the last map, 7x7 at 112x112. From the last 1x1
    convolution on, everything runs in float32 under autocast, as in InsightFace. `dropout` comes before the
    linear layer; InsightFace has none.
    """

    neck_modules = ("features",)

    def __init__(
        self,
        name: str,
        *,
        embedding_size: int = 512,
        input_size: tuple[int, int] = (112, 112),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(name, embedding_size, input_size)
        scale, repeats = VARIANTS[name]
        narrow, wide = 64 * scale, 128 * scale
        # At stride 2 `mbf` filters groups of two channels: its 64 groups stand for the paper's 64 channels.
        first = conv_unit(narrow, narrow, 3, groups=64) if repeats[0] == 1 else stage(narrow, 128, repeats[0])
        self.layers = nn.ModuleList(
            [
                conv_unit(3, narrow, 3, stride=2),
                first,
                bottleneck(narrow, narrow, 128, stride=2),
                stage(narrow, 128, repeats[1]),
                bottleneck(narrow, wide, 256, stride=2),
                stage(wide, 256, repeats[2]),
                bottleneck(wide, wide, 512, stride=2),
                stage(wide, 256, repeats[3]),
            ]
        )
        self.conv_sep = conv_unit(wide, 512, 1)
        columns, rows = (-(-side // TOTAL_STRIDE) for side in input_size)
        self.features = Layers(
            conv_unit(512, 512, (rows, columns), groups=512, linear=True),
            nn.Sequential(nn.Flatten(), nn.Dropout(dropout)),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for layer in self.layers:
            x = layer(x)  # at last [B, 128 * scale, ceil(H/16), ceil(W/16)]
        with outside_autocast(x.device.type):
            x = self.conv_sep(x.to(next(self.conv_sep.parameters()).dtype))
            return self.features(x)  # [B, embedding_size]


class Layers(nn.Module):
    """Apply one layer after the other, and add the input if `residual`; InsightFace files all under `layers`."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return torch.add(x, y) if self.residual else y


def conv_unit(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> Layers:
    """Make a convolution, BatchNorm and, unless `linear`, PReLU; 3x3 keeps the size, others have no padding."""
    padding = 1 if kernel == 3 else 0
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs)
    return Layers(conv, norm) if linear else Layers(conv, norm, nn.PReLU(outputs))


def bottleneck(inputs: int, outputs: int, width: int, *, stride: int = 1, residual: bool = False) -> Layers:
    """Make 1x1 to `width` channels, 3x3 on each channel, linear 1x1 to `outputs`."""
    return Layers(
        conv_unit(inputs, width, 1),
        conv_unit(width, width, 3, stride=stride, groups=width),
        conv_unit(width, outputs, 1, linear=True),
        residual=residual,
    )


def stage(channels: int, width: int, repeats: int) -> Layers:
    return Layers(*(bottleneck(channels, channels, width, residual=True) for _ in range(repeats)))
