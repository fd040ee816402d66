"""MiniFASNet: networks of 0.43 M parameters that tell live faces from spoofs, 80x80 px -> embedding.

After the public implementation (Minivision, Silent-Face-Anti-Spoofing): inverted residuals of depthwise convolutions
with PReLU, whose inner widths are what pruning left of a larger network, a global depthwise convolution, a linear layer
and BatchNorm. V1SE ends each stage with squeeze and excitation. A classifier of embedding_size 128 follows.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from fastface.models.neck import Backbone, outside_autocast


class Stages(NamedTuple):
    """Inner widths of the residual blocks of the three stages, of 64, 128 and 128 channels."""

    third: tuple[int, ...]
    fourth: tuple[int, ...]
    fifth: tuple[int, ...]
    excited: bool
    """Squeeze and excitation in the last block of each stage."""


VARIANTS = {
    "minifasnet_v1": Stages((13, 26, 13, 52), (154, 52, 26, 52, 26, 26), (26, 26), False),
    "minifasnet_v1se": Stages((13, 26, 13, 52), (154, 52, 26, 52, 26, 26), (26, 26), True),
    "minifasnet_v2": Stages((13, 13, 13, 13), (231, 52, 26, 77, 26, 26), (26, 26), False),
    "minifasnet_v2se": Stages((13, 13, 13, 13), (231, 52, 26, 77, 26, 26), (26, 26), True),
}


class MiniFASNet(Backbone):
    """Build the variant `name` for images of `input_size` (width, height) px; its global kernel is a 16th of that.

    dropout: after the embedding's BatchNorm, as published (0.2 for V2, 0.75 for the SE variants).
    """

    neck_modules = ("conv_6_dw", "linear", "bn")

    def __init__(
        self,
        name: str,
        *,
        embedding_size: int = 128,
        input_size: tuple[int, int] = (80, 80),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(name, embedding_size, input_size)
        stages = VARIANTS[name]
        width, height = (-(-side // 16) for side in input_size)
        self.conv1 = unit(3, 32, 3, stride=2)
        self.conv2_dw = unit(32, 32, 3, groups=32)
        self.conv_23 = Inverted(32, 103, 64, stride=2)
        self.conv_3 = stage(64, stages.third, stages.excited)
        self.conv_34 = Inverted(64, 231, 128, stride=2)
        self.conv_4 = stage(128, stages.fourth, stages.excited)
        self.conv_45 = Inverted(128, 308, 128, stride=2)
        self.conv_5 = stage(128, stages.fifth, stages.excited)
        self.conv_6_sep = unit(128, 512, 1)
        self.conv_6_dw = unit(512, 512, (height, width), groups=512, linear=True)
        self.linear = nn.Linear(512, embedding_size, bias=False)
        self.bn = nn.BatchNorm1d(embedding_size)
        self.drop = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(images))))
        x = self.conv_5(self.conv_45(self.conv_4(self.conv_34(x))))
        x = self.conv_6_dw(self.conv_6_sep(x)).flatten(1)  # [B, 512]
        with outside_autocast(x.device.type):
            return self.drop(self.bn(self.linear(x.to(self.linear.weight.dtype))))


def unit(
    channels: int,
    out: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    """Return convolution, BatchNorm and, unless `linear`, PReLU; a kernel given as (height, width) is not padded."""
    padding = kernel // 2 if isinstance(kernel, int) else 0
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    parts: list[tuple[str, nn.Module]] = [("conv", conv), ("bn", nn.BatchNorm2d(out))]
    return nn.Sequential(OrderedDict(parts if linear else [*parts, ("prelu", nn.PReLU(out))]))


class Inverted(nn.Module):
    """1x1 to `inner` channels, 3x3 depthwise, 1x1 to `out`; with `residual` the input is added."""

    def __init__(
        self, channels: int, inner: int, out: int, *, stride: int = 1, residual: bool = False, excited: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.conv = unit(channels, inner, 1)
        self.conv_dw = unit(inner, inner, 3, stride=stride, groups=inner)
        self.project = unit(inner, out, 1, linear=True)
        self.se_module = Excitation(out) if excited else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found = self.se_module(self.project(self.conv_dw(self.conv(x))))
        return x + found if self.residual else found


class Excitation(nn.Module):
    """Scale channels by what their means say (Hu et al., CVPR 2018), with BatchNorm after both layers."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels // reduction)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.bn1(self.fc1(x.mean((2, 3), keepdim=True))).relu()
        return x * self.bn2(self.fc2(scale)).sigmoid()


def stage(channels: int, inner: tuple[int, ...], excited: bool) -> nn.Sequential:
    """Return residual blocks of these inner widths, the last with squeeze and excitation if `excited`."""
    last = len(inner) - 1
    blocks = [
        Inverted(channels, w, channels, residual=True, excited=excited and n == last) for n, w in enumerate(inner)
    ]
    return nn.Sequential(OrderedDict(model=nn.Sequential(*blocks)))
