"""What happens to gradients between backward and the optimizer, against one tensor at a time."""

import pytest
import torch
from torch import Tensor

from fastface.step import _scale, _squares

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def gradients(device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 3), (2, 3, 3, 3), (1,), ()]
    out = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    out[1] = out[1].contiguous(memory_format=torch.channels_last)
    return out


@pytest.mark.parametrize("device", DEVICES)
def test_the_length_is_that_of_all_values_together(device: str) -> None:
    found = gradients(device)
    expected = sum(float(value) ** 2 for gradient in found for value in gradient.flatten())
    assert float(_squares(found, torch.device(device))) == pytest.approx(expected, rel=1e-6)
    assert float(_squares([], torch.device(device))) == 0.0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("clip", [None, 1.0, 1e6])
def test_gradients_are_shortened_to_the_clip_and_not_otherwise(clip: float | None, device: str) -> None:
    found, before = gradients(device), gradients(device)
    norm = _squares(found, torch.device(device)).sqrt()
    assert 1.0 < norm < 1e6
    _scale(found, norm, clip)
    factor = torch.tensor(1.0) if clip is None else (clip / (norm.cpu() + 1e-6)).clamp(max=1.0)
    assert (factor < 1) == (clip == 1.0)
    for gradient, old in zip(found, before, strict=True):
        assert torch.equal(gradient.cpu(), old.cpu() * factor), "to the bit"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_makes_all_gradients_zero(bad: float, clip: float | None, device: str) -> None:
    found = gradients(device)
    found[1][0, 0, 0, 0] = bad
    norm = _squares(found, torch.device(device)).sqrt()
    _scale(found, norm, clip)
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in found)
