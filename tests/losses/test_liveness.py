"""Losses of live and spoof, each against a loop over samples and classes in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fastface.losses.liveness import am_softmax, cross_entropy, focal


def batch(seed: int = 0, rows: int = 12, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (rows, classes)))
    return logits, torch.from_numpy(rng.integers(0, classes, rows))


def softmax(row: list[float]) -> list[float]:
    high = max(row)
    powers = [math.exp(value - high) for value in row]
    return [power / math.fsum(powers) for power in powers]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("classes", [2, 5])
def test_cross_entropy(smoothing: float, classes: int) -> None:
    logits, labels = batch(classes=classes)
    expected = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        wanted = [smoothing / classes + (1 - smoothing) * (k == label) for k in range(classes)]
        expected.append(-math.fsum(w * math.log(p) for w, p in zip(wanted, softmax(row), strict=True)))
    np.testing.assert_allclose(cross_entropy(logits, labels, smoothing=smoothing), expected, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_focal(gamma: float, classes: int) -> None:
    logits, labels = batch(1, classes=classes)
    expected = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        p = softmax(row)
        missing = math.fsum(p[k] for k in range(classes) if k != label)
        expected.append(-(missing**gamma) * math.log(p[label]))
    np.testing.assert_allclose(focal(logits, labels, gamma=gamma), expected, rtol=1e-11)


def test_focal_without_gamma_is_cross_entropy() -> None:
    logits, labels = batch(2)
    torch.testing.assert_close(focal(logits, labels, gamma=0.0), cross_entropy(logits, labels))


@pytest.mark.parametrize("gap", [30.0, 200.0, 1e4])
@pytest.mark.parametrize("label", [0, 1])
def test_focal_is_finite_and_learns_where_a_probability_is_as_good_as_one(gap: float, label: int) -> None:
    logits = torch.tensor([[gap, 0.0]], requires_grad=True)
    found = focal(logits, torch.tensor([label]), gamma=2.0)
    found.sum().backward()
    assert found.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    wanted = gap if label else 0.0  # what is called wrong has lost nearly nothing of its cross entropy
    assert found.item() == pytest.approx(wanted, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize(("s", "m"), [(30.0, 0.35), (10.0, 0.0), (64.0, 0.5)])
def test_am_softmax(s: float, m: float) -> None:
    cosine, labels = torch.tanh(batch(3)[0]), batch(3)[1]
    expected = []
    for row, label in zip(cosine.tolist(), labels.tolist(), strict=True):
        scaled = [s * (value - m * (k == label)) for k, value in enumerate(row)]
        high = max(scaled)
        expected.append(high + math.log(math.fsum(math.exp(v - high) for v in scaled)) - scaled[label])
    np.testing.assert_allclose(am_softmax(s * cosine, labels, s=s, m=m), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: cross_entropy(x, y, smoothing=0.1),
        lambda x, y: focal(x, y, gamma=2.0),
        lambda x, y: focal(x, y, gamma=0.5),
        lambda x, y: am_softmax(x, y, s=10.0, m=0.3),
    ],
)
def test_gradients_are_those_of_small_differences(loss: object) -> None:
    logits, labels = batch(4, rows=3)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits.requires_grad_(),))  # type: ignore[operator]
