"""One number or three for mean and std: the same arithmetic, wherever it is done."""

import numpy as np
import pytest
import torch

from fastface.data.normalisation import PerColour, as_float32, factor, in_words, normalised, three

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.mark.parametrize(("mean", "std"), [(127.5, 128.0), ((127.5,) * 3, 128.0), IMAGENET, (114.5, IMAGENET[1])])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_every_value_is_that_of_its_colour(mean: PerColour, std: PerColour, order: torch.memory_format) -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = normalised(images.contiguous(memory_format=order), mean, std)
    assert found.dtype == torch.float32
    for image, colour, y, x in np.ndindex(2, 3, 4, 5):
        m, inverse = np.float32(three(mean)[colour]), np.float32(1 / three(std)[colour])
        assert found[image, colour, y, x].item() == (np.float32(images[image, colour, y, x].item()) - m) * inverse
    assert normalised(found, mean, std) is found, "what is normalised already stays as it is"


def test_three_equal_numbers_are_one() -> None:
    images = torch.arange(60, dtype=torch.uint8).view(1, 3, 4, 5)
    assert torch.equal(normalised(images, 100.0, 50.0), normalised(images, (100.0,) * 3, (50.0,) * 3))
    assert factor((2.5, 2.5, 2.5), torch.device("cpu")) == 2.5
    made = factor((1.0, 2.0, 3.0), torch.device("cpu"), torch.float64)
    assert isinstance(made, torch.Tensor)
    assert (made.shape, made.dtype) == ((3, 1, 1), torch.float64)
    assert factor((1.0, 2.0, 3.0), torch.device("cpu"), torch.float64) is made


def test_numbers_in_words() -> None:
    assert [in_words(127.5), in_words((1.0, 2.5, 103.53))] == ["127.5", "[1, 2.5, 103.53]"]


@pytest.mark.parametrize("std", [0.0, -1.0, (1.0, 0.0, 1.0), float("nan")])
def test_nothing_is_divided_by_zero(std: PerColour) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        as_float32(0.0, std)
