"""FastContextFace: its block and norms by hand, its first values, the map that the global convolution covers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fastface.models import build_backbone
from fastface.models.fastcontextface import Block, ChannelNorm


def test_block_follows_the_description() -> None:
    """7x7 per channel, BatchNorm, 1x1 to three times, GELU, 1x1, layer scale, attention, and the input added."""
    torch.manual_seed(0)
    block = Block(8).eval().double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    norm = block.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.nn.init.normal_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    s = block.state_dict()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)

    y = torch.zeros_like(x)
    padded = F.pad(x, (3, 3, 3, 3))
    for i in range(7):
        for j in range(7):
            y += padded[:, :, i : i + 5, j : j + 6] * s["spatial_mix.weight"][:, 0, i, j, None, None]
    y = (y - s["norm.running_mean"][:, None, None]) / (s["norm.running_var"] + 1e-5).sqrt()[:, None, None]
    y = y * s["norm.weight"][:, None, None] + s["norm.bias"][:, None, None]
    y = torch.einsum("bchw,oc->bohw", y, s["pwconv1.weight"][:, :, 0, 0]) + s["pwconv1.bias"][:, None, None]
    y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
    assert y.shape[1] == 24
    y = torch.einsum("bchw,oc->bohw", y, s["pwconv2.weight"][:, :, 0, 0]) + s["pwconv2.bias"][:, None, None]
    y = y * s["gamma"]
    squeezed = (y.mean((2, 3)) @ s["attn.fc.0.weight"].T).clamp(min=0)
    assert squeezed.shape == (2, 2)
    y = y / (1 + torch.exp(-squeezed @ s["attn.fc.2.weight"].T))[:, :, None, None]
    torch.testing.assert_close(block(x), x + y)


def test_channel_norm_normalises_each_place() -> None:
    torch.manual_seed(0)
    norm = ChannelNorm(5, eps=1e-6).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = torch.empty_like(x)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                v = x[b, :, i, j]
                spread = ((v - v.mean()) ** 2).mean() + 1e-6
                expected[b, :, i, j] = (v - v.mean()) / spread.sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected)
    last = x.contiguous(memory_format=torch.channels_last)
    assert norm(last).is_contiguous(memory_format=torch.channels_last)


def test_first_values() -> None:
    torch.manual_seed(0)
    network = build_backbone("fastcontextface", input_size=(32, 32))
    scales = 0
    for name, value in network.state_dict().items():
        if name.endswith(".gamma"):
            assert torch.equal(value, torch.full_like(value, 1e-6)), name
            scales += 1
        elif name.endswith("bias"):
            assert not value.any(), name
        elif value.ndim in (2, 4) and value.numel() > 10_000:
            assert value.std().item() == pytest.approx(0.02, rel=0.05), name
            assert value.mean().item() == pytest.approx(0.0, abs=0.001), name
    assert scales == 2 + 2 + 6 + 2


@pytest.mark.parametrize(
    ("input_size", "kernel"), [((112, 112), (7, 7)), ((96, 112), (7, 6)), ((31, 17), (1, 2)), ((224, 160), (10, 14))]
)
def test_global_convolution_covers_the_last_map(input_size: tuple[int, int], kernel: tuple[int, int]) -> None:
    seen = {}
    with torch.device("meta"):
        network = build_backbone("fastcontextface", embedding_size=20, input_size=input_size)
        network.get_submodule("gdc").register_forward_hook(lambda m, i, o: seen.update(map=i[0].shape, out=o.shape))
        assert network(torch.zeros(2, 3, input_size[1], input_size[0])).shape == (2, 20)
    assert network.state_dict()["gdc.weight"].shape == (384, 1, *kernel)
    assert seen == {"map": (2, 384, *kernel), "out": (2, 384, 1, 1)}
