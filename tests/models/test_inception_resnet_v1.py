"""InceptionResnetV1: the maps on the way, the blocks computed by hand, the smallest face, the public files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastface.models import build_backbone, load_backbone_weights
from fastface.models.inception_resnet_v1 import Block, InceptionResnetV1, block_8, block_17, block_35, reduction_a

# Module -> channels and side of its map of a 160x160 face: the grids of FaceNet's Inception-ResNet-v1.
MAPS = {
    "conv2d_1a": (32, 79),
    "conv2d_2a": (32, 77),
    "conv2d_2b": (64, 77),
    "maxpool_3a": (64, 38),
    "conv2d_3b": (80, 38),
    "conv2d_4a": (192, 36),
    "conv2d_4b": (256, 17),
    "repeat_1": (256, 17),
    "mixed_6a": (896, 8),
    "repeat_2": (896, 8),
    "mixed_7a": (1792, 3),
    "repeat_3": (1792, 3),
    "block8": (1792, 3),
}


def test_maps_of_a_160_px_face() -> None:
    seen: dict[str, tuple[int, int]] = {}
    with torch.device("meta"):
        network = build_backbone("inception_resnet_v1", input_size=(160, 160))
        for name in MAPS:
            network.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: seen.update({name: (output.shape[1], output.shape[2])})
            )
        assert network(torch.zeros(2, 3, 160, 160)).shape == (2, 512)
    assert seen == MAPS


def random_statistics(block: torch.nn.Module) -> None:
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)


def unit(x: Tensor, state: dict[str, Tensor], name: str, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Convolve, normalise with epsilon 0.001, cut at zero, from the parameters under `name`."""
    y = F.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=padding)
    mean, var = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
    y = (y - mean[:, None, None]) / (var + 0.001).sqrt()[:, None, None]
    return (y * state[f"{name}.bn.weight"][:, None, None] + state[f"{name}.bn.bias"][:, None, None]).clamp(min=0)


def joined(x: Tensor, s: dict[str, Tensor], kind: str) -> Tensor:
    """Join the branches of a block as figures 10, 11 and 13 of the paper draw them."""
    branches = [unit(x, s, "branch0")]
    if kind == "35":
        branches.append(unit(unit(x, s, "branch1.0"), s, "branch1.1", padding=(1, 1)))
        y = unit(unit(x, s, "branch2.0"), s, "branch2.1", padding=(1, 1))
        branches.append(unit(y, s, "branch2.2", padding=(1, 1)))
    else:
        half = 3 if kind == "17" else 1
        y = unit(unit(x, s, "branch1.0"), s, "branch1.1", padding=(0, half))
        branches.append(unit(y, s, "branch1.2", padding=(half, 0)))
    return torch.cat(branches, 1)


@pytest.mark.parametrize(
    ("block", "kind", "channels", "scale", "linear"),
    [
        (block_35(), "35", 256, 0.17, False),
        (block_17(), "17", 896, 0.10, False),
        (block_8(), "8", 1792, 0.20, False),
        (block_8(scale=1.0, linear=True), "8", 1792, 1.0, True),
    ],
)
def test_blocks_follow_the_figures(block: Block, kind: str, channels: int, scale: float, linear: bool) -> None:
    torch.manual_seed(0)
    random_statistics(block.eval().double())
    x = torch.randn(2, channels, 5, 7, dtype=torch.float64)
    s = block.state_dict()
    y = torch.einsum("bchw,ocij->bohw", joined(x, s, kind), s["conv2d.weight"]) + s["conv2d.bias"][:, None, None]
    y = x + scale * y
    torch.testing.assert_close(block(x), y if linear else y.clamp(min=0))
    assert bool((y < 0).any())


def test_reduction_a_joins_two_convolutions_and_a_maximum() -> None:
    torch.manual_seed(0)
    block = reduction_a().eval().double()
    random_statistics(block)
    s, x = block.state_dict(), torch.randn(1, 256, 9, 9, dtype=torch.float64)
    y = unit(unit(x, s, "branch1.0"), s, "branch1.1", padding=(1, 1))
    largest = torch.stack([x[:, :, i : i + 7 : 2, j : j + 7 : 2] for i in range(3) for j in range(3)]).amax(0)
    expected = torch.cat([unit(x, s, "branch0", stride=2), unit(y, s, "branch1.2", stride=2), largest], 1)
    torch.testing.assert_close(block(x), expected)


def test_last_layers_average_the_map_and_scale_is_learnt() -> None:
    torch.manual_seed(0)
    network = build_backbone("inception_resnet_v1", embedding_size=8, input_size=(115, 80)).eval()
    seen: list[Tensor] = []
    network.get_submodule("block8").register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.no_grad():
        embedding = network(torch.randn(2, 3, 80, 115))
    s = network.state_dict()
    expected = seen[0].double().mean((2, 3)) @ s["last_linear.weight"].double().T / (1 + 0.001) ** 0.5
    assert seen[0].shape == (2, 1792, 1, 2)
    torch.testing.assert_close(embedding.double(), expected, rtol=1e-4, atol=1e-6)
    assert all(p.requires_grad for p in network.parameters())


def test_75_px_is_the_smallest_face() -> None:
    with torch.device("meta"):
        network = build_backbone("inception_resnet_v1", input_size=(75, 75))
        assert network(torch.zeros(2, 3, 75, 75)).shape == (2, 512)
        with pytest.raises(RuntimeError, match=r"too small|greater than actual input size"):
            network(torch.zeros(2, 3, 74, 75))
    with pytest.raises(ValueError, match=r"inception_resnet_v1: input_size is \(74, 160\).* at least 75 px"):
        InceptionResnetV1(input_size=(74, 160))


def test_public_files_load_without_their_classifier_and_nothing_else_is_left_out() -> None:
    torch.manual_seed(0)
    public = {name: value.clone() for name, value in InceptionResnetV1().state_dict().items()}
    public |= {"logits.weight": torch.zeros(7, 512), "logits.bias": torch.zeros(7)}
    network = InceptionResnetV1()
    load_backbone_weights(network, public, "vggface2.pt")
    assert all(torch.equal(value, public[name]) for name, value in network.state_dict().items())
    assert network.notes == [
        "the weights of vggface2.pt hold more than inception_resnet_v1: logits.weight, logits.bias left out"
    ]
    with pytest.raises(ValueError, match=r"1 unexpected: logits\.scale"):
        load_backbone_weights(network, {**public, "logits.scale": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"1 unexpected: logits\.bias"):
        load_backbone_weights(build_backbone("mobilefacenet", embedding_size=8), {"logits.bias": torch.zeros(7)})
