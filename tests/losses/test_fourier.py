"""The spectrum a network learns to predict, against a sum over all pixels for every frequency."""

import cmath
import math

import numpy as np
import pytest
import torch

from fastface.losses.fourier import SpectrumHead, spectrum


def slow_spectrum(grey: np.ndarray) -> np.ndarray:
    """Return log(1 + |F|), frequency 0 at [H // 2, W // 2], scaled to 0..1, of a grey image [H, W]."""
    height, width = grey.shape
    found = np.zeros((height, width))
    for v in range(height):
        for u in range(width):
            total = 0j
            for y in range(height):
                for x in range(width):
                    total += grey[y, x] * cmath.exp(-2j * math.pi * (v * y / height + u * x / width))
            found[(v + height // 2) % height, (u + width // 2) % width] = math.log(1 + abs(total))
    return (found - found.min()) / (found.max() - found.min())


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5)])
@pytest.mark.parametrize(
    ("mean", "std"), [(127.5, 127.5), (0.0, 1.0), ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))]
)
def test_a_spectrum_is_of_the_pixels_whatever_the_normalisation(
    height: int, width: int, mean: float, std: float
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, height, width)).astype(np.float64)
    images = (pixels - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    found = spectrum(torch.from_numpy(images), (width, height), mean=mean, std=std)  # as large as the image
    assert found.shape == (2, 1, height, width)
    for n in range(2):
        grey = 0.299 * pixels[n, 0] + 0.587 * pixels[n, 1] + 0.114 * pixels[n, 2]
        np.testing.assert_allclose(found[n, 0], slow_spectrum(grey), atol=1e-9)


def test_each_image_has_its_own_scale_and_stays_so_in_any_batch() -> None:
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64) * torch.tensor([1.0, 0.1, 3.0])[:, None, None, None]
    whole = spectrum(images, (16, 16), mean=127.5, std=127.5)
    assert [(float(one.min()), float(one.max())) for one in whole] == [(0.0, 1.0)] * 3
    torch.testing.assert_close(spectrum(images[1:2], (16, 16), mean=127.5, std=127.5), whole[1:2])


def test_a_screen_leaves_a_peak_where_its_pitch_says() -> None:
    """A grating of 8 periods across 32 px lies 8 cells beside the middle; a map of 16 cells has it 4 beside."""
    across = np.arange(32)
    image = np.broadcast_to(128 + 100 * np.cos(2 * np.pi * 8 * across / 32), (3, 32, 32)).copy()
    full = spectrum(torch.from_numpy(image)[None], (32, 32), mean=0.0, std=1.0)[0, 0]
    assert sorted(full.flatten().topk(3).indices.tolist()) == [16 * 32 + 8, 16 * 32 + 16, 16 * 32 + 24]
    small = spectrum(torch.from_numpy(image)[None], (16, 16), mean=0.0, std=1.0)[0, 0]
    row = small[8]
    assert row[4] > 5 * row[6]
    assert row[12] > 5 * row[10]


@pytest.mark.parametrize("level", [-1.0, 0.3])
def test_a_plain_image_is_no_reason_for_nan(level: float) -> None:
    found = spectrum(torch.full((1, 3, 8, 8), level), (4, 4), mean=127.5, std=127.5)
    assert found.dtype == torch.float32
    assert found.isfinite().all()


def test_half_precision_is_raised() -> None:
    images = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = spectrum(images.bfloat16().float(), (8, 8), mean=127.5, std=127.5)
    assert found.dtype == torch.float32
    assert torch.equal(found, spectrum(images.bfloat16(), (8, 8), mean=127.5, std=127.5))


def test_a_head_sees_every_image_by_itself() -> None:
    """No statistics over the batch: nothing to keep for a part that does not ship, and none that micro-batches part."""
    torch.manual_seed(0)
    head, features = SpectrumHead(12).double(), torch.rand(3, 12, 5, 4, dtype=torch.float64)
    assert not list(head.buffers())
    assert head(features).shape == (3, 1, 5, 4)
    torch.testing.assert_close(head(features)[1:2], head(features[1:2]))
