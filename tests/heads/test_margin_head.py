"""The margin head against a double loop in float64, its gradients against finite differences of that loop."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from fastface.heads.margin_head import MarginHead
from fastface.losses.margin import GRADIENTS, MARGINS, arcface

Rows = list[list[float]]


def cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return max(-1.0, min(1.0, product / length))


def margin_of(name: str, value: float, m: float) -> float:
    if name == "cosface":
        return value - m
    theta = math.acos(value)
    return math.cos(theta + m) if theta + m <= math.pi else value - m * math.sin(m)


def loop_loss(x: Rows, centres: Rows, labels: list[int], name: str, m: float, s: float) -> float:
    """Compute the loss with one loop over samples and one over classes."""
    total = 0.0
    for row, label in zip(x, labels, strict=True):
        logits = []
        for j, centre in enumerate(centres):
            value = cosine(row, centre)
            logits.append(s * (margin_of(name, value, m) if j == label else value))
        top = max(logits)
        total += top + math.log(sum(math.exp(z - top) for z in logits)) - logits[label]
    return total / len(labels)


def surrogate_loss(x: Rows, centres: Rows, labels: list[int], name: str, m: float, s: float, at: list[float]) -> float:
    """Compute the same with the target logit linear in its cosine, slope s, around the margins `at`."""
    total = 0.0
    for i, (row, label) in enumerate(zip(x, labels, strict=True)):
        logits = [s * cosine(row, centre) for centre in centres]
        logits[label] = s * (at[i] + cosine(row, centres[label]))
        top = max(logits)
        total += top + math.log(sum(math.exp(z - top) for z in logits)) - logits[label]
    return total / len(labels)


def nudged(rows: Rows, step: float) -> Iterator[tuple[int, int, Rows]]:
    for i, row in enumerate(rows):
        for j in range(len(row)):
            copy = [list(r) for r in rows]
            copy[i][j] += step
            yield i, j, copy


def head_and_input(
    batch: int, classes: int, size: int, name: str, gradient: str, seed: int
) -> tuple[MarginHead, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    head = MarginHead(classes, size, margin=name, m=0.5, s=8.0, gradient=gradient).double()
    with torch.no_grad():
        head.weight.copy_(torch.randn(classes, size, generator=generator, dtype=torch.float64))
    x = torch.randn(batch, size, generator=generator, dtype=torch.float64, requires_grad=True)
    return head, x, torch.randint(0, classes, (batch,), generator=generator)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_loss_and_gradients_equal_the_double_loop(batch: int, name: str, gradient: str) -> None:
    head, x, labels = head_and_input(batch, 4, 3, name, gradient, seed=batch)
    with torch.no_grad():  # one sample beyond theta + m = pi, where the other rule holds
        x[0] = -head.weight[labels[0]] + 0.05
    loss, cosines = head(x, labels)
    loss.backward()
    rows, centres, targets = x.tolist(), head.weight.tolist(), labels.tolist()
    assert loss.item() == pytest.approx(loop_loss(rows, centres, targets, name, 0.5, 8.0), rel=1e-12)
    own = [cosine(row, centres[t]) for row, t in zip(rows, targets, strict=True)]
    assert own[0] < math.cos(math.pi - 0.5)
    shift = [margin_of(name, value, 0.5) - value for value in own]

    def value(a: Rows, b: Rows) -> float:
        if gradient == "exact":
            return loop_loss(a, b, targets, name, 0.5, 8.0)
        return surrogate_loss(a, b, targets, name, 0.5, 8.0, shift)

    step = 1e-6
    assert x.grad is not None
    assert head.weight.grad is not None
    for (i, j, up), (_, _, down) in zip(nudged(rows, step), nudged(rows, -step), strict=True):
        slope = (value(up, centres) - value(down, centres)) / (2 * step)
        assert x.grad[i, j].item() == pytest.approx(slope, abs=2e-8, rel=1e-6)
    for (i, j, up), (_, _, down) in zip(nudged(centres, step), nudged(centres, -step), strict=True):
        slope = (value(rows, up) - value(rows, down)) / (2 * step)
        assert head.weight.grad[i, j].item() == pytest.approx(slope, abs=2e-8, rel=1e-6)
    for i, row in enumerate(rows):
        for j, centre in enumerate(centres):
            assert cosines[i, j].item() == pytest.approx(cosine(row, centre), abs=1e-12)
    assert not cosines.requires_grad


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_hard_points_stay_finite(name: str, gradient: str, dtype: torch.dtype) -> None:
    head = MarginHead(3, 8, margin=name, gradient=gradient)
    with torch.no_grad():
        x = torch.stack([head.weight[0], -head.weight[0], head.weight[0] * 1e3, torch.zeros(8)]).to(dtype)
    x.requires_grad_()
    loss, _ = head(x, torch.tensor([0, 0, 0, 2]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert head.weight.grad is not None
    assert head.weight.grad.isfinite().all()
    assert x.grad[:3].isfinite().all()


def test_exact_gradient_by_the_angle_is_bounded_near_zero() -> None:
    """The slope by the cosine explodes near theta = 0; by the embedding it must not."""
    centre = torch.tensor([1.0, 0.0])
    for theta in (1e-1, 1e-2, 1e-3):
        x = torch.tensor([[math.cos(theta), math.sin(theta)]], requires_grad=True)
        target = (torch.nn.functional.normalize(x) * centre).sum()
        (64.0 * arcface(target[None], 0.5)).sum().backward()
        assert x.grad is not None
        assert x.grad.norm().item() == pytest.approx(64.0 * math.sin(theta + 0.5), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_target_column_stays_exact_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    head = MarginHead(50, 64)
    x = torch.randn(6, 64)
    labels = torch.randint(0, 50, (6,))
    with torch.no_grad():
        x += 40 * torch.nn.functional.normalize(head.weight)[labels]  # trained samples: cosine about 0.98
        plain, _ = head(x, labels)
        with torch.autocast("cpu", dtype=dtype):
            mixed, cosines = head(x.to(dtype).float(), labels)
            reference, _ = head(x.to(dtype), labels)
    assert cosines.dtype == dtype
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, reference)
    # Rounding the target to half precision would move its logit by up to 0.12 (bfloat16): the loss follows
    # it.
    wide = torch.nn.functional.normalize(x.to(dtype).double())
    own = (wide * torch.nn.functional.normalize(head.weight.double())[labels]).sum(1)
    others = cosines.double().clone().scatter_(1, labels[:, None], -10.0)
    logits = 64.0 * others
    hardened = torch.cos(own.acos() + 0.5)
    logits.scatter_(1, labels[:, None], (64.0 * hardened)[:, None])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert mixed.item() == pytest.approx(expected.item(), abs=1e-4)
    assert mixed.item() == pytest.approx(plain.item(), rel=0.1)


def test_training_the_head_separates_classes() -> None:
    torch.manual_seed(0)
    head = MarginHead(5, 16, s=16.0, m=0.3)
    x, labels = torch.randn(40, 16), torch.arange(40) % 5
    x += 2 * torch.randn(5, 16)[labels]
    losses = []
    for _ in range(60):
        loss, cosines = head(x, labels)
        (slope,) = torch.autograd.grad(loss, head.weight)
        with torch.no_grad():
            head.weight.sub_(0.1 * slope)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (cosines.argmax(1) == labels).float().mean() > 0.9


def test_bad_settings_and_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        MarginHead(1, 8)
    with pytest.raises(ValueError, match="arcface"):
        MarginHead(3, 8, margin="arkface")
    with pytest.raises(IndexError):
        MarginHead(3, 8)(torch.randn(2, 8), torch.tensor([0, 3]))
