"""Face -> embedding with FastContextFace: ConvNeXt's layout at MobileFaceNet's size, with squeeze-and-excitation.

From ConvNeXt (Liu et al., CVPR 2022): stages, 7x7 depthwise convolutions, inverted bottleneck, layer scale. From
SENet (Hu et al., CVPR 2018): channel attention. From MobileFaceNets (CCBR 2018): the global depthwise convolution
instead of pooling. Parameters are named as in its authors' program.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter

from fastface.models.neck import Backbone, outside_autocast

DEPTHS = (2, 2, 6, 2)
WIDTHS = (48, 96, 192, 384)
EXPANSION = 3
REDUCTION = 4
LAYER_SCALE = 1e-6
INIT_STD = 0.02


class FastContextFace(Backbone):
    """Build the network for faces of `input_size` (width, height) px; its authors train with dropout 0.4.

    The stem halves the size (rounding up), each of three steps between the stages halves it again (rounding
    down), and the global convolution's kernel is the map that is left: 7x7 at 112x112. The linear layer and
    the last BatchNorm run in float32 under autocast.
    """

    neck_modules = ("norm", "gdc", "bn_gdc", "fc", "bn_fc")

    def __init__(
        self, *, embedding_size: int = 512, input_size: tuple[int, int] = (112, 112), dropout: float = 0.0
    ) -> None:
        super().__init__("fastcontextface", embedding_size, input_size)
        stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 3, stride=2, padding=1), ChannelNorm(WIDTHS[0], eps=1e-6))
        steps = [
            nn.Sequential(ChannelNorm(inputs, eps=1e-6), nn.Conv2d(inputs, outputs, 2, stride=2))
            for inputs, outputs in pairwise(WIDTHS)
        ]
        self.downsample_layers = nn.ModuleList([stem, *steps])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth))) for width, depth in zip(WIDTHS, DEPTHS, strict=True)
        )
        columns, rows = ((side + 1) // 2 // 8 for side in input_size)
        last = WIDTHS[-1]
        self.norm = ChannelNorm(last, eps=1e-6)
        self.gdc = nn.Conv2d(last, last, (rows, columns), groups=last, bias=False)
        self.bn_gdc = nn.BatchNorm2d(last)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(last, embedding_size)
        self.bn_fc = nn.BatchNorm1d(embedding_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for reduce, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(reduce(x))  # [B, 48, H/2, W/2] to [B, 384, H/16, W/16]
        x = self.bn_gdc(self.gdc(self.norm(x))).flatten(1)  # [B, 384]
        x = self.dropout(x)
        with outside_autocast(x.device.type):
            return self.bn_fc(self.fc(x.to(self.fc.weight.dtype)))  # [B, embedding_size]


class Block(nn.Module):
    """Add to the input: 7x7 per channel, BatchNorm, 1x1 to three times the channels, GELU, 1x1 back, scale, attention.

    The layer scale comes before the attention, which therefore sees values near zero at first and gives every
    channel about one half.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial_mix = nn.Conv2d(channels, channels, 7, padding=3, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.pwconv1 = nn.Conv2d(channels, EXPANSION * channels, 1)
        self.act = nn.GELU()
        self.pwconv2 = nn.Conv2d(EXPANSION * channels, channels, 1)
        self.gamma = Parameter(torch.full((channels, 1, 1), LAYER_SCALE))
        self.attn = Attention(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pwconv2(self.act(self.pwconv1(self.norm(self.spatial_mix(x)))))
        return x + self.attn(self.gamma * y)


class Attention(nn.Module):
    """Multiply each channel by a weight in (0, 1) that two linear layers find from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(channels, narrow, bias=False), nn.ReLU(), nn.Linear(narrow, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = self.fc(x.mean(dim=(2, 3)))  # [B, C]
        return x * weight[:, :, None, None]


class ChannelNorm(nn.LayerNorm):
    """Normalise the channels of each place of a map [B, C, H, W]; with channels_last no value moves."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
