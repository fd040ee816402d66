"""MiniFASNet against its published architecture, layer by layer in float64, on the public weights where they are."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastface.foreign import import_weights
from fastface.liveness_scorer import load_liveness
from fastface.models import build_backbone, count_gmacs
from fastface.models.minifasnet import VARIANTS

State = dict[str, Tensor]
FILES = {"2.7_80x80_MiniFASNetV2.pth": "minifasnet_v2", "4_0_0_80x80_MiniFASNetV1SE.pth": "minifasnet_v1se"}


def slow_logits(state: State, x: Tensor) -> Tensor:
    """Follow the names of a public file, BGR float64 [B, 3, 80, 80] of 0 to 255 -> logits [B, 3]."""
    x = unit(state, "conv1", x, stride=2)
    x = unit(state, "conv2_dw", x, groups=32)
    x = block(state, "conv_23", x, stride=2)
    x = stage(state, "conv_3", x)
    x = block(state, "conv_34", x, stride=2)
    x = stage(state, "conv_4", x)
    x = block(state, "conv_45", x, stride=2)
    x = stage(state, "conv_5", x)
    x = unit(state, "conv_6_sep", x)
    x = norm(state, "conv_6_dw.bn", F.conv2d(x, state["conv_6_dw.conv.weight"], groups=512))
    x = x[:, :, 0, 0] @ state["linear.weight"].T
    return norm(state, "bn", x) @ state["prob.weight"].T


def norm(state: State, name: str, x: Tensor) -> Tensor:
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].reshape(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def unit(state: State, name: str, x: Tensor, stride: int = 1, groups: int = 1, linear: bool = False) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    x = norm(state, f"{name}.bn", F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups))
    if linear:
        return x
    return torch.where(x > 0, x, x * state[f"{name}.prelu.weight"][:, None, None])


def block(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    x = unit(state, f"{name}.conv", x)
    x = unit(state, f"{name}.conv_dw", x, stride=stride, groups=x.shape[1])
    x = unit(state, f"{name}.project", x, linear=True)
    if f"{name}.se_module.fc1.weight" not in state:
        return x
    scale = x.mean((2, 3), keepdim=True)
    scale = norm(state, f"{name}.se_module.bn1", F.conv2d(scale, state[f"{name}.se_module.fc1.weight"])).clamp_min(0)
    scale = norm(state, f"{name}.se_module.bn2", F.conv2d(scale, state[f"{name}.se_module.fc2.weight"]))
    return x / (1 + (-scale).exp())


def stage(state: State, name: str, x: Tensor) -> Tensor:
    for n in sorted({int(m[1]) for key in state if (m := re.match(rf"{name}\.model\.(\d+)\.", key))}):
        x = x + block(state, f"{name}.model.{n}", x)
    return x


def random_state(name: str) -> State:
    """Return what a public file of the variant would hold, with statistics and scales that matter."""
    torch.manual_seed(0)
    body = build_backbone(name, embedding_size=128, input_size=(80, 80))
    state = body.state_dict()
    for key, value in state.items():
        if value.ndim == 1 and value.is_floating_point():
            state[key] = torch.rand(value.shape) * 0.5 + 0.5
    return state | {"prob.weight": torch.randn(3, 128)}


def check(file: Path, folder: Path) -> None:
    """Import a file and compare its scores with the slow network's."""
    import_weights("minifasnet", file, folder / "run")
    scorer = load_liveness(folder / "run")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 80, 80, 3), dtype=np.uint8)
    state = torch.load(file, map_location="cpu", weights_only=True)
    state = {key.removeprefix("module."): value.double() for key, value in state.items()}
    bgr = torch.from_numpy(pictures[..., ::-1].copy()).permute(0, 3, 1, 2).double()
    expected = F.softmax(slow_logits(state, bgr), 1)[:, 1].numpy()
    np.testing.assert_allclose(scorer.scores(pictures), expected, atol=2e-5)
    assert expected.std() > 1e-4  # the pictures are told apart
    assert (scorer.card.classes[scorer.card.live], scorer.card.live) == ("live", 1)
    assert (scorer.card.mean, scorer.card.std, scorer.card.input_size) == (0.0, 1.0, (80, 80))
    with pytest.raises(ValueError, match="takes 80x80 RGB images"):
        scorer.scores(pictures[:, :40])


@pytest.mark.parametrize("public", ["2.7_80x80_MiniFASNetV2.pth", "4_0_0_80x80_MiniFASNetV1SE.pth"])
def test_a_file_becomes_a_run_that_scores_as_published(public: str, tmp_path: Path) -> None:
    torch.save({f"module.{key}": value for key, value in random_state(FILES[public]).items()}, tmp_path / public)
    check(tmp_path / public, tmp_path)
    crop = {"2.7_80x80_MiniFASNetV2.pth": "context-2.7-stretched"}.get(public, "context-4-stretched")
    assert load_liveness(tmp_path / "run").card.crop == crop


@pytest.mark.parametrize("public", FILES)
def test_the_public_weights_score_as_published(public: str, data: Path, tmp_path: Path) -> None:
    check(data / "weights" / "minifasnet" / public, tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("model.pth", {}, r"does not say which network it holds: keep the public name"),
        ("2.7_80x80_MiniFASNetV1SE.pth", {}, r"do not fit minifasnet_v1se .* missing: conv_3"),
        ("2.7_80x80_MiniFASNetV2.pth", {"prob.weight": torch.zeros(4, 128)}, r"prob.weight is of shape \(4, 128\)"),
        ("2.7_80x80_MiniFASNetV2.pth", {"prob.weight": None}, r"prob.weight is missing"),
        ("2.7_112x112_MiniFASNetV2.pth", {}, r"1 of another shape: conv_6_dw.conv.weight"),
    ],
)
def test_what_is_not_public_is_refused(name: str, change: dict[str, Tensor], expected: str, tmp_path: Path) -> None:
    state = random_state("minifasnet_v2") | change
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / name)
    with pytest.raises(ValueError, match=expected):
        import_weights("minifasnet", tmp_path / name, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "millions"), {"minifasnet_v1": 0.414, "minifasnet_v2": 0.435}.items())
def test_cost_is_the_published(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = build_backbone(name, embedding_size=128, input_size=(80, 80))
        classifier = 3 * 128
    assert (sum(p.numel() for p in network.parameters()) + classifier) / 1e6 == pytest.approx(millions, abs=1e-3)
    assert count_gmacs(network, (80, 80)) == pytest.approx(0.081 / 2, abs=5e-4)  # published: 0.081 GFLOPs


def test_all_variants_are_built() -> None:
    for name in VARIANTS:
        with torch.device("meta"):
            network = build_backbone(name, embedding_size=7, input_size=(96, 112))
            assert network(torch.zeros(2, 3, 112, 96)).shape == (2, 7)
