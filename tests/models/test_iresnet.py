"""IResNet: parameter names, published sizes, initialisation, and the map left for the linear layer."""

from __future__ import annotations

import pytest
import torch

from fastface.models import build_backbone, count_gmacs

# Parameters in millions and 1e9 multiply-adds at 112x112, of InsightFace's arcface_torch.
PUBLISHED = {
    "iresnet18": (24.0, 2.61),
    "iresnet34": (34.1, 4.46),
    "iresnet50": (43.6, 6.31),
    "iresnet100": (65.2, 12.09),
    "iresnet200": (118.8, 23.42),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_work_equal_the_published(name: str) -> None:
    with torch.device("meta"):
        network = build_backbone(name)
    millions, gmacs = PUBLISHED[name]
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert count_gmacs(network) == pytest.approx(gmacs, abs=0.006)


def expected_names(depths: tuple[int, ...]) -> set[str]:
    """List arcface_torch's state dict from its description."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    names |= {f"{bn}.{part}" for bn in ("bn1", "bn2", "features") for part in norm}
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            at = f"layer{stage}.{block}."
            names |= {at + "conv1.weight", at + "conv2.weight", at + "prelu.weight"}
            names |= {f"{at}{bn}.{part}" for bn in ("bn1", "bn2", "bn3") for part in norm}
        names |= {f"layer{stage}.0.downsample.0.weight"} | {f"layer{stage}.0.downsample.1.{part}" for part in norm}
    return names


@pytest.mark.parametrize(("name", "depths"), [("iresnet18", (2, 2, 2, 2)), ("iresnet100", (3, 13, 30, 3))])
def test_names_are_those_of_arcface_torch(name: str, depths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = build_backbone(name)
    assert set(network.state_dict()) == expected_names(depths)


@pytest.mark.parametrize(("input_size", "cells"), [((112, 112), 49), ((96, 112), 42), ((64, 64), 16), ((100, 130), 63)])
def test_linear_layer_sees_the_last_map(input_size: tuple[int, int], cells: int) -> None:
    with torch.device("meta"):
        network = build_backbone("iresnet18", input_size=input_size, embedding_size=32)
        assert network(torch.zeros(2, 3, input_size[1], input_size[0])).shape == (2, 32)
    assert network.state_dict()["fc.weight"].shape == (32, 512 * cells)
    assert (network.name, network.embedding_size, network.input_size) == ("iresnet18", 32, input_size)


def test_initialisation_and_frozen_scale() -> None:
    torch.manual_seed(0)
    network = build_backbone("iresnet18", input_size=(32, 32), embedding_size=16)
    for name, value in network.state_dict().items():
        if value.ndim == 4 and value.numel() > 10_000:
            assert value.mean().item() == pytest.approx(0.0, abs=0.005), name
            assert value.std().item() == pytest.approx(0.1, rel=0.05), name
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["features.weight"]
    assert torch.equal(network.state_dict()["features.weight"], torch.ones(16))
    assert {m.eps for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)} == {1e-5}


def test_block_follows_the_published_order() -> None:
    """Compute one strided block by hand from its parameters."""
    import torch.nn.functional as F

    from fastface.models.iresnet import Block

    torch.manual_seed(1)
    block = Block(4, 8, 2).eval()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.normal_(module.bias)
    state = block.state_dict()

    def bn(x: torch.Tensor, name: str) -> torch.Tensor:
        x = (x - state[f"{name}.running_mean"][:, None, None]) / (
            state[f"{name}.running_var"][:, None, None] + 1e-5
        ).sqrt()
        return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    x = torch.randn(2, 4, 9, 9)
    y = F.conv2d(bn(x, "bn1"), state["conv1.weight"], padding=1)
    y = bn(y, "bn2")
    y = torch.where(y >= 0, y, y * state["prelu.weight"][:, None, None])
    y = bn(F.conv2d(y, state["conv2.weight"], stride=2, padding=1), "bn3")
    y = y + bn(F.conv2d(x, state["downsample.0.weight"], stride=2), "downsample.1")
    torch.testing.assert_close(block(x), y)


def test_last_layers_stay_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    network = build_backbone("iresnet18", input_size=(32, 32), embedding_size=16).eval()
    seen = {}
    network.get_submodule("fc").register_forward_hook(lambda m, i, o: seen.update(inputs=i[0].dtype, outputs=o.dtype))
    network.get_submodule("layer4").register_forward_hook(lambda m, i, o: seen.update(body=o.dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = network(torch.randn(2, 3, 32, 32))
    assert seen == {"inputs": torch.float32, "outputs": torch.float32, "body": torch.bfloat16}
    assert embedding.dtype == torch.float32


def test_float64_stays_float64() -> None:
    network = build_backbone("iresnet18", input_size=(32, 32), embedding_size=16).double().eval()
    assert network(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64
