"""Face -> embedding with Inception-ResNet-v1 (Szegedy et al., AAAI 2017, section 3) in FaceNet's form.

The form is that of David Sandberg's facenet: no padding in the stem and the reductions, residuals scaled before
they are added, a block without activation at the end, average pooling, dropout, and a linear layer with BatchNorm.
Parameters are named as in facenet-pytorch, whose VGGFace2 and CASIA-WebFace weights load; those saw
(pixel - 127.5) / 128. The embedding is not normalised here, as in no network of ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastface.models.neck import Backbone, outside_autocast

# How much of each residual is added: 0.1 to 0.3 keeps training stable (section 3.3); values of Sandberg's facenet.
SCALE_35, SCALE_17, SCALE_8 = 0.17, 0.10, 0.20


class InceptionResnetV1(Backbone):
    """Build the network; `input_size` (width, height) px is its size at deployment, 160x160 by custom.

    Average pooling takes the last map whole, so a built network takes any size from 75x75 px up, where that
    map is one cell. The linear layer and the last BatchNorm run in float32 under autocast.
    """

    any_size = True
    min_side = 75
    neck_modules = ("last_linear", "last_bn")

    def __init__(
        self, *, embedding_size: int = 512, input_size: tuple[int, int] = (160, 160), dropout: float = 0.0
    ) -> None:
        super().__init__("inception_resnet_v1", embedding_size, input_size)
        self.conv2d_1a = ConvUnit(3, 32, 3, stride=2)
        self.conv2d_2a = ConvUnit(32, 32, 3)
        self.conv2d_2b = ConvUnit(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = ConvUnit(64, 80, 1)
        self.conv2d_4a = ConvUnit(80, 192, 3)
        self.conv2d_4b = ConvUnit(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(block_35() for _ in range(5)))
        self.mixed_6a = reduction_a()
        self.repeat_2 = nn.Sequential(*(block_17() for _ in range(10)))
        self.mixed_7a = reduction_b()
        self.repeat_3 = nn.Sequential(*(block_8() for _ in range(5)))
        self.block8 = block_8(scale=1.0, linear=True)
        self.dropout = nn.Dropout(dropout)
        self.last_linear = nn.Linear(1792, embedding_size, bias=False)
        self.last_bn = nn.BatchNorm1d(embedding_size, eps=1e-3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(images)))  # [B, 64, 77, 77] of 160x160 px
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))  # [B, 256, 17, 17]
        x = self.mixed_6a(self.repeat_1(x))  # [B, 896, 8, 8]
        x = self.mixed_7a(self.repeat_2(x))  # [B, 1792, 3, 3]
        x = self.block8(self.repeat_3(x)).mean(dim=(2, 3))  # [B, 1792]
        x = self.dropout(x)
        with outside_autocast(x.device.type):
            return self.last_bn(self.last_linear(x.to(self.last_linear.weight.dtype)))  # [B, embedding_size]


class ConvUnit(nn.Module):
    """Convolve, normalise (with TensorFlow's epsilon, which public weights were trained with), cut at zero."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Run every branch on the same input and join what they return along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.names = tuple(f"branch{number}" for number in range(len(branches)))
        for name, branch in zip(self.names, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(name)(x) for name in self.names], 1)


class Block(Branches):
    """Join the branches, bring them to the input's channels by 1x1, add `scale` of that; ReLU unless `linear`."""

    def __init__(self, joined: int, channels: int, scale: float, *branches: nn.Module, linear: bool = False) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.scale = scale
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2d(super().forward(x)) * self.scale + x
        return y if self.linear else torch.relu(y)


def block_35() -> Block:
    """Make Inception-ResNet-A (figure 10): 1x1, one 3x3 and two 3x3."""
    return Block(
        96,
        256,
        SCALE_35,
        ConvUnit(256, 32, 1),
        nn.Sequential(ConvUnit(256, 32, 1), ConvUnit(32, 32, 3, padding=1)),
        nn.Sequential(ConvUnit(256, 32, 1), ConvUnit(32, 32, 3, padding=1), ConvUnit(32, 32, 3, padding=1)),
    )


def block_17() -> Block:
    """Make Inception-ResNet-B (figure 11): 1x1, and 7x7 as a row and a column."""
    row, column = ConvUnit(128, 128, (1, 7), padding=(0, 3)), ConvUnit(128, 128, (7, 1), padding=(3, 0))
    return Block(256, 896, SCALE_17, ConvUnit(896, 128, 1), nn.Sequential(ConvUnit(896, 128, 1), row, column))


def block_8(scale: float = SCALE_8, *, linear: bool = False) -> Block:
    """Make Inception-ResNet-C (figure 13): 1x1, and 3x3 as a row and a column."""
    row, column = ConvUnit(192, 192, (1, 3), padding=(0, 1)), ConvUnit(192, 192, (3, 1), padding=(1, 0))
    branch = nn.Sequential(ConvUnit(1792, 192, 1), row, column)
    return Block(384, 1792, scale, ConvUnit(1792, 192, 1), branch, linear=linear)


def reduction_a() -> Branches:
    """Make Reduction-A (figure 7) with k, l, m, n = 192, 192, 256, 384 (table 1): 256 to 896 channels."""
    return Branches(
        ConvUnit(256, 384, 3, stride=2),
        nn.Sequential(ConvUnit(256, 192, 1), ConvUnit(192, 192, 3, padding=1), ConvUnit(192, 256, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )


def reduction_b() -> Branches:
    """Make Reduction-B (figure 12): 896 to 1792 channels."""
    return Branches(
        nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 384, 3, stride=2)),
        nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 256, 3, stride=2)),
        nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 256, 3, padding=1), ConvUnit(256, 256, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )
