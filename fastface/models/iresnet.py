"""Face -> embedding with the improved residual networks of ArcFace, parameter names as in InsightFace.

Weights released for `arcface_torch` load without renaming. The network: a 3x3 stem that keeps the resolution,
four stages of pre-activated blocks (BN, conv, BN, PReLU, conv, BN; He et al. 2016 as changed by Duta et al.
2020), each halving it, then BN, dropout, a linear layer and BN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastface.models.neck import Backbone, embedding_norm, outside_autocast

# Blocks in each of the four stages.
DEPTHS: dict[str, tuple[int, int, int, int]] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}
WIDTHS = (64, 128, 256, 512)
TOTAL_STRIDE = 16


class IResNet(Backbone):
    """Build network `name` of DEPTHS for faces of `input_size` (width, height) px.

    The linear layer sees ceil(height / 16) x ceil(width / 16) cells of 512 channels: 7x7 at 112x112. It and
    the last BatchNorm run in float32 under autocast, as in InsightFace.
    """

    neck_modules = ("bn2", "fc", "features")

    def __init__(
        self,
        name: str,
        *,
        embedding_size: int = 512,
        input_size: tuple[int, int] = (112, 112),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(name, embedding_size, input_size)
        depths = DEPTHS[name]
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0], eps=1e-5)
        self.prelu = nn.PReLU(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], depths[0])
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], depths[1])
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], depths[2])
        self.layer4 = _stage(WIDTHS[2], WIDTHS[3], depths[3])
        self.bn2 = nn.BatchNorm2d(WIDTHS[3], eps=1e-5)
        self.dropout = nn.Dropout(dropout)
        # Each strided 3x3 convolution with padding 1 rounds up; four in a row divide by 16 and round up.
        columns, rows = (-(-side // TOTAL_STRIDE) for side in input_size)
        self.fc = nn.Linear(WIDTHS[3] * rows * columns, embedding_size)
        self.features = embedding_norm(embedding_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.1)  # InsightFace's initialisation; BatchNorm absorbs the scale

    def forward(self, images: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(images)))  # [B, 64, H, W]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [B, 512, ceil(H/16), ceil(W/16)]
        x = torch.flatten(self.dropout(self.bn2(x)), 1)
        with outside_autocast(x.device.type):
            return self.features(self.fc(x.to(self.fc.weight.dtype)))  # [B, embedding_size]


class Block(nn.Module):
    """Add BN, conv, BN, PReLU, conv (strided), BN to its input, brought to the same shape if needed."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=1e-5)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-5)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps=1e-5)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs, eps=1e-5)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, 2), *(Block(outputs, outputs, 1) for _ in range(depth - 1)))
