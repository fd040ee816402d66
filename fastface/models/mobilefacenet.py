"""Face -> embedding with MobileFaceNet (Chen et al., CCBR 2018, table 1), about a million parameters."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from fastface.models.neck import Backbone, outside_autocast

TOTAL_STRIDE = 16


class Bottlenecks(NamedTuple):
    expansion: int
    channels: int
    repeats: int
    stride: int  # of the first repeat; the others keep the resolution


TABLE: tuple[Bottlenecks, ...] = (  # MobileFaceNets, table 1
    Bottlenecks(2, 64, 5, 2),
    Bottlenecks(4, 128, 1, 2),
    Bottlenecks(2, 128, 6, 1),
    Bottlenecks(4, 128, 1, 2),
    Bottlenecks(2, 128, 2, 1),
)


class MobileFaceNet(Backbone):
    """Build the network for faces of `input_size` (width, height) px.

    The global depthwise convolution weighs each cell of the last map instead of averaging them, so its kernel
    is that map: ceil(height / 16) x ceil(width / 16), 7x7 at 112x112 and 7x6 at 96x112. The final 1x1
    convolution and its BatchNorm run in float32 under autocast.
    """

    neck_modules = ("global_depthwise", "embedding")

    def __init__(
        self, *, embedding_size: int = 128, input_size: tuple[int, int] = (112, 112), dropout: float = 0.0
    ) -> None:
        super().__init__("mobilefacenet", embedding_size, input_size)
        columns, rows = (-(-side // TOTAL_STRIDE) for side in input_size)
        self.stem = ConvUnit(3, 64, 3, stride=2, padding=1)
        self.stem_depthwise = ConvUnit(64, 64, 3, padding=1, groups=64)
        blocks, channels = [], 64
        for row in TABLE:
            for repeat in range(row.repeats):
                stride = row.stride if repeat == 0 else 1
                blocks.append(Bottleneck(channels, row.channels, row.expansion, stride))
                channels = row.channels
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvUnit(channels, 512, 1)
        self.global_depthwise = ConvUnit(512, 512, (rows, columns), groups=512, linear=True)
        self.dropout = nn.Dropout(dropout)
        self.embedding = ConvUnit(512, embedding_size, 1, linear=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.stem_depthwise(self.stem(images)))  # [B, 128, ceil(H/16), ceil(W/16)]
        x = self.dropout(self.global_depthwise(self.last(x)))  # [B, 512, 1, 1]
        with outside_autocast(x.device.type):
            x = self.embedding(x.to(self.embedding.conv.weight.dtype))
        return x.reshape(x.shape[0], self.embedding_size)  # fails where the faces are larger than input_size


class ConvUnit(nn.Module):
    """Convolve, normalise, and apply PReLU unless `linear`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.prelu = nn.Identity() if linear else nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by a linear 1x1; add the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = ConvUnit(inputs, width, 1)
        self.depthwise = ConvUnit(width, width, 3, stride=stride, padding=1, groups=width)
        self.project = ConvUnit(width, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y
