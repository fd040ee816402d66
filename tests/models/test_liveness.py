"""A backbone with a classifier: logits, the feature map for the spectrum, patches of the image, what it starts from."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastface.models import build_backbone
from fastface.models.liveness import DeployedLiveness, LivenessNetwork, cut_patches, grid_patches, grid_places

PX = 64


def network(name: str = "test_resnet", classes: int = 3, px: int = PX, **options: object) -> LivenessNetwork:
    torch.manual_seed(0)
    body = build_backbone(name, embedding_size=8, input_size=(px, px))
    return LivenessNetwork(body, [f"class {n}" for n in range(classes)], **options)  # type: ignore[arg-type]


def images(count: int = 4, px: int = PX) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, px, px)).astype(np.float32))


def test_logits_are_a_linear_layer_of_the_embedding() -> None:
    net = network().eval()
    expected = net.body(images()) @ net.classifier.weight.T + net.classifier.bias
    torch.testing.assert_close(net(images()), expected)


def test_scaled_cosines_lie_within_the_scale() -> None:
    net = network(scale=10.0).eval()
    with torch.no_grad():
        embedding, weight = net.body(images()).numpy(), net.classifier.weight.numpy()
        found = net(images()).numpy()
    for n, row in enumerate(embedding):
        for k, direction in enumerate(weight):
            expected = 10 * row @ direction / np.linalg.norm(row) / np.linalg.norm(direction)
            assert found[n, k] == pytest.approx(expected, abs=1e-4)
    assert net.classifier.bias is None


@pytest.mark.parametrize(
    ("name", "part", "channels"),
    [
        ("minifasnet_v2", "conv_4", 128),  # its publishers' choice
        ("resnet18", "net.layer3", 256),  # the stem of small images strides less, so an 8th comes a stage later
        ("mobilenetv3_small_050", "net.blocks.3", 24),
        ("iresnet18", "layer3", 256),
        ("mobilefacenet", "blocks.11", 128),
    ],
)
def test_the_map_is_the_deepest_of_an_eighth(name: str, part: str, channels: int) -> None:
    net = network(name, features=True).train()
    assert (net.map_at, net.map_channels, net.map_size) == (part, channels, (8, 8))
    logits, found = net(images())
    assert logits.shape == (4, 3)
    assert found.shape == (4, channels, 8, 8)
    assert found.requires_grad
    assert net.eval()(images()).shape == (4, 3)  # what ships gives logits alone


def test_the_map_is_that_of_this_pass() -> None:
    net = network(features=True).train()
    _, first = net(images())
    _, second = net(images() * 2)
    seen = []
    handle = net.body.get_submodule(net.map_at or "").register_forward_hook(lambda m, i, o: seen.append(o))
    _, third = net(images() * 2)
    handle.remove()
    assert torch.equal(third, seen[0])
    torch.testing.assert_close(second, third)
    assert not torch.equal(first, third)


def test_a_network_of_tokens_has_no_map() -> None:
    with pytest.raises(ValueError, match=r"fourier_weight: test_vit has no feature map of an 8th of 64x64 px"):
        network("test_vit", features=True)


@pytest.mark.parametrize(("side", "patch"), [(64, 32), (80, 32), (64, 63), (33, 16)])
def test_a_grid_covers_the_image_evenly(side: int, patch: int) -> None:
    places = grid_places(side, patch)
    covered = {px for place in places for px in range(place, place + patch)}
    assert covered == set(range(side))
    assert len(places) == -(-side // patch)
    steps = np.diff(places)
    assert steps.max() - steps.min() <= 1


def test_what_ships_averages_the_logits_of_the_grid() -> None:
    net = network(px=32).eval()
    shipped = DeployedLiveness(net, None, 32).eval()
    whole = images(2, 80)
    total = torch.zeros(2, 3)
    count = 0
    for y in (0, 24, 48):
        for x in (0, 24, 48):
            total += net(whole[:, :, y : y + 32, x : x + 32])
            count += 1
    torch.testing.assert_close(shipped(whole), total / count)
    assert len(grid_patches(whole, 32)) == count
    windowed = DeployedLiveness(net, (8, 16, 72, 80), 32).eval()
    torch.testing.assert_close(windowed(whole), shipped(whole[:, :, 16:80, 8:72]))


def test_patches_are_cut_where_their_keys_say() -> None:
    whole = images(5, 20)
    keys = np.random.default_rng(1).integers(0, 2**63, 5).astype(np.uint64)
    found = cut_patches(whole, keys, 16)
    for n, key in enumerate(keys.tolist()):
        y, x = key % 5, (key >> 32) % 5
        assert torch.equal(found[n], whole[n, :, y : y + 16, x : x + 16])
    many = np.random.default_rng(2).integers(0, 2**63, 2000).astype(np.uint64)
    places = {(int(key) % 5, (int(key) >> 32) % 5) for key in many}
    assert len(places) == 25  # every place comes


def test_a_body_is_loaded_and_a_classifier_of_other_classes_is_not() -> None:
    mine, other = network(classes=2), network(classes=3)
    tensors = other.state_dict()
    assert mine.adapted(tensors, ["class 0", "class 1"]).keys() == tensors.keys()
    assert mine.adapted(tensors, ["a", "b"]).keys() == {k for k in tensors if k.startswith("body.")}
    assert mine.adapted(tensors, None).keys() == {k for k in tensors if k.startswith("body.")}
    plain = other.body.state_dict()
    assert mine.adapted(plain, None).keys() == {f"body.{name}" for name in plain}


@pytest.mark.slow
@pytest.mark.parametrize("patch", [None, 32])
def test_what_ships_can_be_exported(tmp_path: Path, patch: int | None) -> None:
    import onnxruntime

    net = network(px=patch or PX, features=True).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias, 0.0, 0.2)
    shipped = DeployedLiveness(net, None, patch).eval()
    file = tmp_path / "model.onnx"
    shape = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.onnx.export(shipped, (images(2),), dynamic_shapes=shape, dynamo=True, verbose=False)
    assert program is not None
    program.save(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (found,) = session.run(None, {session.get_inputs()[0].name: images(count).numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), shipped(images(count)), rtol=1e-4, atol=1e-5)
    assert F.softmax(torch.from_numpy(found), 1).sum() == pytest.approx(3)
