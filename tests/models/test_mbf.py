"""mbf and mbf_large: a bottleneck by hand, the grouped convolution, the global convolution's kernel, float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastface.models import build_backbone
from fastface.models.mbf import bottleneck


def unit(
    x: Tensor, state: dict[str, Tensor], name: str, *, groups: int = 1, stride: int = 1, padding: int = 0
) -> Tensor:
    y = F.conv2d(x, state[f"{name}.0.weight"], groups=groups, stride=stride, padding=padding)
    mean, var = state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"]
    y = (y - mean[:, None, None]) / (var + 1e-5).sqrt()[:, None, None]
    y = y * state[f"{name}.1.weight"][:, None, None] + state[f"{name}.1.bias"][:, None, None]
    slope = state.get(f"{name}.2.weight")
    return y if slope is None else torch.where(y >= 0, y, y * slope[:, None, None])


@pytest.mark.parametrize(("stride", "residual"), [(2, False), (1, False), (1, True)])
def test_bottleneck_by_hand(stride: int, residual: bool) -> None:
    torch.manual_seed(0)
    block = bottleneck(6, 6, 10, stride=stride, residual=residual).eval().double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    state = block.state_dict()
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    y = unit(x, state, "layers.0.layers")
    y = unit(y, state, "layers.1.layers", groups=10, stride=stride, padding=1)
    y = unit(y, state, "layers.2.layers")
    torch.testing.assert_close(block(x), x + y if residual else y)


@pytest.mark.parametrize(("name", "shape"), [("mbf", (128, 2, 3, 3)), ("mbf_large", (128, 1, 3, 3))])
def test_what_filters_at_stride_2(name: str, shape: tuple[int, ...]) -> None:
    """mbf filters groups of two channels; mbf_large has two whole bottlenecks there."""
    with torch.device("meta"):
        state = build_backbone(name).state_dict()
    where = "layers.1.layers.0.weight" if name == "mbf" else "layers.1.layers.1.layers.1.layers.0.weight"
    assert state[where].shape == shape


@pytest.mark.parametrize(("input_size", "kernel"), [((112, 112), (7, 7)), ((96, 112), (7, 6)), ((33, 64), (4, 3))])
def test_global_convolution_covers_the_last_map(input_size: tuple[int, int], kernel: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = build_backbone("mbf", embedding_size=20, input_size=input_size)
        assert network(torch.zeros(2, 3, input_size[1], input_size[0])).shape == (2, 20)
    assert network.state_dict()["features.layers.0.layers.0.weight"].shape == (512, 1, *kernel)


def test_from_the_last_convolution_on_everything_is_float32_under_autocast() -> None:
    network = build_backbone("mbf", embedding_size=8, input_size=(32, 32)).eval()
    seen = {}
    network.get_submodule("layers.7").register_forward_hook(lambda m, i, o: seen.update(body=o.dtype))
    network.get_submodule("conv_sep").register_forward_hook(lambda m, i, o: seen.update(last=o.dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.randn(1, 3, 32, 32)).dtype == torch.float32
    assert seen == {"body": torch.bfloat16, "last": torch.float32}


def test_dropout_comes_before_the_linear_layer_and_keeps_the_names() -> None:
    network = build_backbone("mbf", embedding_size=8, input_size=(32, 32), dropout=0.5).train()
    seen = {}
    network.get_submodule("features.layers.2").register_forward_hook(lambda m, i, o: seen.update(x=i[0]))
    network(torch.randn(4, 3, 32, 32))
    share = (seen["x"] == 0).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.05)
    plain = build_backbone("mbf", embedding_size=8, input_size=(32, 32))
    assert set(plain.state_dict()) == set(network.state_dict())
