"""What every network of BACKBONES promises: peers' names, shapes, gradients, precision, sizes, body, cost, export."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fastface.models import BACKBONES, Backbone, build_backbone, count_gmacs, describe

# sha256 over the sorted lines "name shape" of a state dict, 512-d at the native size, made by the peer's own class:
# arcface_torch at 7fadd420, facenet-pytorch at 787da061, FastContextFace's authors. mobilefacenet's names are ours.
FINGERPRINTS = {
    "iresnet18": "6bdb508fbe8f91721b62a252fefaacd4aa07dd22b96920d21a84616dbb903daa",
    "iresnet34": "88f842de492690dd059041fc5ba355093a7f4dd4d22eb5f0d4530ee06ded0bee",
    "iresnet50": "d80a68220d7280f122e963b79668ab37c22a7f522a863f8f1aa9e039b402b613",
    "iresnet100": "dc48aa67c7449a7caf250153f36da2fc4a3288e632c3667206a7cda2a14b3842",
    "iresnet200": "be360d6469b1859bd0a6e59dee19ee6ae518d9c154773d6a4543e16a591489f0",
    "mbf": "a5470f4e8d3847b18cd54411edaaf1bde6437ac79c5da42b9941ad9830431492",
    "mbf_large": "e93eb03a7306f387f2a9a59e9d761ecf9de61233e6ef26e39113c6723bdba8fc",
    "inception_resnet_v1": "c0638fa983a7cf513cd2dfb4310e1e627f43ae2e6bcbe857010cd3b37e3c5b1c",
    "fastcontextface": "3e2cd001ef2f8a0997626590d21143df54512a423dddaec9bf01b83f2c12a1ed",
}
# Parameters in millions and 1e9 multiply-adds: those measured on arcface_torch; facenet-pytorch has 27.9 M with 8631
# classes of 512 weights and a bias.
COST = {"mbf": (2.06, 0.44), "mbf_large": (6.3, 1.82), "inception_resnet_v1": (27.91 - 8631 * 513e-6, None)}
# Where the last feature map ends, by the names of the parameters behind it.
BEHIND_THE_MAP = {
    "iresnet18": {"bn2", "fc", "features"},
    "mobilefacenet": {"global_depthwise", "embedding"},
    "mbf": {"features"},
    "inception_resnet_v1": {"last_linear", "last_bn"},
    "fastcontextface": {"norm", "gdc", "bn_gdc", "fc", "bn_fc"},
    "resnet10t": {"neck"},
    "minifasnet_v2se": {"conv_6_dw", "linear", "bn"},
}
RUN = [*BEHIND_THE_MAP, "vit_tiny_patch16_224"]
OURS = [name for name in BACKBONES if not name.startswith(("iresnet", "minifasnet"))]  # the others only repeat
OURS += ["iresnet18", "minifasnet_v2", "minifasnet_v1se"]


def native(name: str) -> tuple[int, int]:
    return (160, 160) if name == "inception_resnet_v1" else (112, 112)


def small(name: str, **options: object) -> Backbone:
    """Build a network for the smallest faces that every other part of it can take."""
    size = (80, 80) if name == "inception_resnet_v1" else (32, 32)
    torch.manual_seed(0)
    return build_backbone(name, embedding_size=8, input_size=size, **options)  # type: ignore[arg-type]


def images(network: Backbone, count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    width, height = network.input_size
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, height, width))).to(dtype)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_names_and_shapes_are_those_of_the_peer(name: str) -> None:
    with torch.device("meta"):
        state = build_backbone(name, input_size=native(name)).state_dict()
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == FINGERPRINTS[name]


def test_every_network_is_listed_here() -> None:
    """MiniFASNet's names are compared with a public file's, in tests/models/test_minifasnet.py."""
    assert set(FINGERPRINTS) == {name for name in BACKBONES if not name.startswith("minifasnet")} - {"mobilefacenet"}


@pytest.mark.parametrize("name", COST)
def test_cost_is_the_published(name: str) -> None:
    with torch.device("meta"):
        network = build_backbone(name, input_size=native(name))
    millions, gmacs = COST[name]
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.02)
    if gmacs is not None:
        assert count_gmacs(network) == pytest.approx(gmacs, abs=0.006)


@pytest.mark.parametrize("name", [*OURS, "resnet18"])
@pytest.mark.parametrize("input_size", [(112, 112), (96, 112), (113, 131)])
def test_shapes(name: str, input_size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = build_backbone(name, embedding_size=24, input_size=input_size)
        assert network(torch.zeros(2, 3, input_size[1], input_size[0])).shape == (2, 24)
    assert (network.name, network.embedding_size, network.input_size) == (name, 24, input_size)


@pytest.mark.parametrize("name", [*OURS, "resnet18", "vit_tiny_patch16_224", "xcit_nano_12_p16_224"])
def test_other_sizes_work_where_any_size_says_so_and_fail_elsewhere(name: str) -> None:
    with torch.device("meta"):
        network = build_backbone(name, embedding_size=24)
        for height, width in ((160, 144), (99, 81)):
            if network.any_size:
                assert network(torch.zeros(2, 3, height, width)).shape == (2, 24)
            else:
                with pytest.raises((RuntimeError, AssertionError)):
                    network(torch.zeros(2, 3, height, width))
    assert network.any_size == (name in {"inception_resnet_v1", "xcit_nano_12_p16_224"})


@pytest.mark.parametrize("name", RUN)
def test_a_training_step_gives_every_parameter_a_finite_gradient(name: str) -> None:
    network = small(name, dropout=0.4).train()
    loss = (network(images(network, 4)) * torch.linspace(-1, 1, 8)).square().sum()
    loss.backward()
    trained = {key: p.grad for key, p in network.named_parameters() if p.requires_grad}
    assert [key for key, grad in trained.items() if grad is None or not grad.isfinite().all()] == []
    assert any(grad is not None and grad.any() for grad in trained.values())


@pytest.mark.parametrize("name", ["mbf", "fastcontextface", "vit_tiny_patch16_224"])
def test_two_faces_are_learnt_apart(name: str) -> None:
    """A few steps on two images must separate them: gradients reach the weights with the right sign."""
    network = small(name).train()
    faces = images(network, 2).repeat(2, 1, 1, 1)
    target = torch.tensor([1.0, -1.0, 1.0, -1.0])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = (network(faces)[:, 0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", BEHIND_THE_MAP)
def test_body_is_what_lies_before_the_last_map(name: str) -> None:
    network = small(name)
    names = {key for key, _ in network.named_parameters()}
    behind = {key for key in names if key.split(".")[0] in BEHIND_THE_MAP[name]}
    assert network.body_names() == names - behind
    assert 0 < len(behind) < len(names) / 2
    assert set(network.neck_modules) <= {key for key, _ in network.named_children()}
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(key not in network.body_names())
    network.train()(images(network)).sum().backward()
    assert {key.split(".")[0] for key, p in network.named_parameters() if p.grad is not None} == BEHIND_THE_MAP[name]


@pytest.mark.parametrize("name", RUN)
def test_embeddings_are_float32_under_autocast_and_float64_in_float64(name: str) -> None:
    network = small(name).eval()
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert network(images(network)).dtype == torch.float32
        single = network(images(network))
        double = network.double()(images(network, dtype=torch.float64))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3 * double.abs().max().item())


@pytest.mark.parametrize("name", RUN)
def test_description_counts_without_touching_the_network(name: str) -> None:
    network = small(name).train()
    network.notes.append("a note")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    width, height = network.input_size
    millions, gmacs = sum(p.numel() for p in network.parameters()) / 1e6, count_gmacs(network, network.input_size)
    expected = f"{name}: {millions:.1f} M parameters, {gmacs:.2f} GMACs at {width}x{height}; a note"
    assert describe(network) == expected
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.device.type == "cpu" for p in network.parameters())


def test_description_of_a_large_network_on_the_meta_device() -> None:
    with torch.device("meta"):
        network = build_backbone("iresnet100")
    assert describe(network) == "iresnet100: 65.2 M parameters, 12.09 GMACs at 112x112"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RUN if name != "resnet10t"])
def test_onnx_gives_the_same_embeddings_for_any_batch(name: str, tmp_path: Path) -> None:
    import onnxruntime

    network = small(name).eval()
    for module in network.modules():  # a network before training would hide most mistakes: make its parts matter
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.0, 0.2)
    for key, parameter in network.named_parameters():
        if key.endswith(".gamma"):
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(network, (images(network),), dynamic_shapes=({0: batch},), dynamo=True, verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        faces = images(network, count)
        found = session.run(None, {session.get_inputs()[0].name: faces.numpy()})[0]
        with torch.no_grad():
            expected = network(faces)
        torch.testing.assert_close(
            torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
        )
