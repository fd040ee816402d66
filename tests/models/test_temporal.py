"""Networks of clips: what plain loops give, what knows the order of frames, what is frozen, what starts from what."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fastface.models import build_backbone
from fastface.models.temporal import GRID, DeployedTemporal, TemporalNetwork
from fastface.ship.onnx_graph import write_graph

T, SIDE = 5, 35  # sides that cells do not divide


def network(side: int = SIDE, **options: Any) -> TemporalNetwork:
    torch.manual_seed(0)
    body = build_backbone("mobilenetv3_small_050", embedding_size=6, input_size=(side, side), stem="keep")
    return TemporalNetwork(body, ("live", "print", "replay"), frames=T, hidden=4, **options)


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return torch.rand(3, T, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def slow_recurrent(kind: str, parameters: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Go through the features of one clip [T, D] frame by frame: outputs [T, H], by the equations of torch's manual."""
    w, u, b, c = (parameters[f"recurrent.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    state = cell = np.zeros(u.shape[1])
    outputs = []
    for row in rows:
        x, h = w @ row + b, u @ state + c
        if kind == "lstm":
            i, f, g, o = np.split(x + h, 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            state = sigmoid(o) * np.tanh(cell)
        else:
            (xr, xz, xn), (hr, hz, hn) = np.split(x, 3), np.split(h, 3)
            z = sigmoid(xz + hz)
            state = (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * state
        outputs.append(state)
    return np.array(outputs)


def slow_changes(kind: str, clip: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return what changes from frame to frame of one clip, before it is normalised: [T - 1, n]."""
    if kind == "features":
        return np.array([np.abs(features[t] - features[t - 1]) for t in range(1, T)])
    side = SIDE // GRID
    found = []
    for t in range(1, T):
        change = np.abs(clip[t] - clip[t - 1])
        cells = [(y * side, x * side) for y in range(GRID) for x in range(GRID)]
        found.append([change[:, y : y + side, x : x + side].mean() for y, x in cells])
    return np.array(found)


@pytest.mark.parametrize("over", ["lstm", "gru", "mean"])
@pytest.mark.parametrize("differences", ["none", "features", "pixels"])
@pytest.mark.parametrize("readout", ["last", "mean"])
def test_logits_are_what_plain_loops_give(clips: Tensor, over: Any, differences: Any, readout: Any) -> None:
    net = network(over=over, differences=differences, readout=readout).double().eval()
    if differences != "none":
        norm = net.difference_norm
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert values is not None
            nn.init.uniform_(values, 0.5, 2)
    double = clips.double()
    with torch.no_grad():
        features = net.body(double.flatten(0, 1)).unflatten(0, (-1, T)).numpy()
        found = net(double.flatten(0, 1)).numpy()
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    for clip, rows, logits in zip(double.numpy(), features, found, strict=True):
        if differences != "none":
            gain, shift, mean, variance = (
                state[f"difference_norm.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
            )
            change = (slow_changes(differences, clip, rows) - mean) / np.sqrt(variance + 1e-5) * gain + shift
            rows = np.concatenate([rows, np.concatenate([np.zeros_like(change[:1]), change])], axis=1)
        if over != "mean":
            rows = slow_recurrent(over, state, rows)
        read = rows[-1] if over != "mean" and readout == "last" else rows.mean(axis=0)
        np.testing.assert_allclose(
            logits, state["classifier.weight"] @ read + state["classifier.bias"], rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize(("over", "knows"), [("mean", False), ("lstm", True), ("gru", True)])
def test_a_mean_knows_no_order(clips: Tensor, over: Any, knows: bool) -> None:
    net = network(over=over).eval()
    with torch.no_grad():
        straight, back = net(clips.flatten(0, 1)), net(clips.flip(1).flatten(0, 1))
    assert (not torch.allclose(straight, back, atol=1e-5)) == knows


def test_clips_do_not_see_each_other(clips: Tensor) -> None:
    net = network(differences="pixels", layers=2).eval()
    with torch.no_grad():
        together = net(clips.flatten(0, 1))
        alone = torch.cat([net(clip) for clip in clips])
    torch.testing.assert_close(together, alone)


def test_a_frozen_body_stays_as_it_is(clips: Tensor) -> None:
    net = network(frozen=True, differences="features").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(clips.flatten(0, 1)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith("body.")]
    assert {"classifier.weight", "recurrent.weight_ih_l0", "difference_norm.running_mean"} <= changed
    assert not any(module.training for module in net.body.modules())
    assert net.recurrent.training


@pytest.mark.parametrize(("over", "differences"), [("lstm", "pixels"), ("gru", "features")])
def test_it_ships(clips: Tensor, over: Any, differences: Any, tmp_path: Path) -> None:
    net = DeployedTemporal(network(32, over=over, differences=differences, layers=2), (1, 2, 33, 34)).eval()
    write_graph(net, [clips[:2]], ["clips"], "logits", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for some in (clips, clips[:1]):
            ours = net(some).numpy()
            np.testing.assert_allclose(session.run(None, {"clips": some.numpy()})[0], ours, rtol=1e-4, atol=1e-5)


def test_what_it_can_start_from() -> None:
    net = network()
    body = net.body.state_dict()
    prefixed = {f"body.{name}": value for name, value in body.items()}
    names = ("live", "print", "replay")
    assert net.adapted(body, None).keys() == prefixed.keys()
    image = prefixed | {"classifier.weight": torch.zeros(3, 6), "classifier.bias": torch.zeros(3)}
    assert net.adapted(image, names).keys() == prefixed.keys()
    assert network(over="mean").adapted(image, names).keys() == prefixed.keys()  # looks like its own, and is of images
    assert net.adapted(net.state_dict(), names).keys() == net.state_dict().keys()
    assert net.adapted(net.state_dict(), ("live", "replay", "print")).keys() == prefixed.keys()  # numbered otherwise
    assert network(over="gru").adapted(net.state_dict(), names).keys() == prefixed.keys()
