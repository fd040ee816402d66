"""Images -> their Fourier spectra as small maps, what a network that tells live from spoof also learns to predict.

Screens and prints leave peaks and a lack of high frequencies in it. The target is of the image that the network sees,
after all augmentation: MiniFASNet's published trainer takes that of the image as it was before, which the network
cannot know.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastface.data.normalisation import PerColour, factor, three

LUMA = (0.299, 0.587, 0.114)  # grey of ITU-R BT.601


def spectrum(images: Tensor, size: tuple[int, int], *, mean: PerColour, std: PerColour) -> Tensor:
    """Return log(1 + |FFT|) of the grey images, zero frequency in the middle, 0 to 1 in each, [B, 1, height, width].

    images: [B, 3, H, W], normalised: (pixel - mean) / std. size: width, height of the map, by bilinear resizing with
    antialiasing. float32, or float64 where images are.
    """
    with torch.autocast(images.device.type, enabled=False):
        images = images if images.dtype == torch.float64 else images.float()
        scale = tuple(colour * weight for colour, weight in zip(three(std), LUMA, strict=True))
        shift = sum(colour * weight for colour, weight in zip(three(mean), LUMA, strict=True))
        grey = (images * factor(scale, images.device, images.dtype)).sum(1) + shift  # of pixels 0 to 255
        full = torch.fft.fftshift(torch.fft.fft2(grey).abs().log1p(), dim=(1, 2))
        low, high = full.amin((1, 2), keepdim=True), full.amax((1, 2), keepdim=True)
        unit = (full - low) / (high - low).clamp_min(1e-12)
        width, height = size
        return F.interpolate(unit[:, None], (height, width), mode="bilinear", antialias=True)


class SpectrumHead(nn.Module):
    """Predict a spectrum [B, 1, H, W] from a feature map [B, C, H, W]: three 3x3 convolutions, as MiniFASNet's.

    Norms are over groups of channels, not over the batch, so that no running statistics need to be kept for a part
    that does not ship.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 128, 3, padding=1, bias=False),
            nn.GroupNorm(8, 128),
            nn.ReLU(),
            nn.Conv2d(128, 64, 3, padding=1, bias=False),
            nn.GroupNorm(8, 64),
            nn.ReLU(),
            nn.Conv2d(64, 1, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)
