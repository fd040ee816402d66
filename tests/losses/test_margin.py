"""Margins against math.acos in plain Python, values and derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from fastface.losses.margin import GRADIENTS, MARGINS, apply_margin, check_margin, margin_function

ORDINARY = [-0.999, -0.95, -0.9, -0.87, -0.5, -0.1, 0.0, 0.2, 0.5, 0.8, 0.99, 0.9999]


def reference(name: str, cosine: float, m: float) -> tuple[float, float]:
    """Return value and derivative by the cosine, from the angle."""
    if name == "cosface":
        return cosine - m, 1.0
    theta = math.acos(cosine)
    if theta + m > math.pi:
        return cosine - m * math.sin(m), 1.0
    slope = math.sin(theta + m) / math.sin(theta) if theta > 0.0 else math.inf
    return math.cos(theta + m), slope


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("m", [0.0, 0.1, 0.4, 0.5])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_value_and_gradient_equal_the_angle_formula(name: str, m: float, gradient: str) -> None:
    cosine = torch.tensor(ORDINARY, dtype=torch.float64, requires_grad=True)
    hardened = apply_margin(cosine, name, m, gradient)
    hardened.sum().backward()
    assert cosine.grad is not None
    for i, value in enumerate(ORDINARY):
        expected, derivative = reference(name, value, m)
        assert hardened[i].item() == pytest.approx(expected, abs=1e-12)
        assert cosine.grad[i].item() == pytest.approx(1.0 if gradient == "straight_through" else derivative, rel=1e-9)


@pytest.mark.parametrize("name", MARGINS)
def test_float32_stays_close_to_the_angle_formula(name: str) -> None:
    cosine = torch.tensor(ORDINARY, requires_grad=True)
    hardened = apply_margin(cosine, name, 0.5)
    hardened.sum().backward()
    assert cosine.grad is not None
    assert hardened.dtype == torch.float32
    for i in range(len(ORDINARY)):
        expected, derivative = reference(name, cosine[i].item(), 0.5)
        assert hardened[i].item() == pytest.approx(expected, abs=2e-6)
        assert cosine.grad[i].item() == pytest.approx(derivative, rel=1e-3)


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_poles_have_exact_values_and_finite_gradients(name: str, gradient: str) -> None:
    # float32 rounding of a unit vector's product with itself ends one or two steps beyond 1.
    beyond = 1.0 + 2.4e-7
    cosine = torch.tensor([1.0, -1.0, beyond, -beyond], requires_grad=True)
    hardened = apply_margin(cosine, name, 0.5, gradient)
    hardened.sum().backward()
    assert cosine.grad is not None
    assert cosine.grad.isfinite().all()
    for i, pole in enumerate((1.0, -1.0, 1.0, -1.0)):
        assert hardened[i].item() == pytest.approx(reference(name, pole, 0.5)[0], abs=2e-6)


def test_smallest_angles_of_float32_give_finite_gradients() -> None:
    cosine = torch.tensor(1.0)
    for _ in range(50):
        cosine = torch.nextafter(cosine, torch.tensor(0.0)).detach().requires_grad_()
        apply_margin(cosine, "arcface", 0.5).backward()
        assert cosine.grad is not None
        assert 0.0 < cosine.grad.item() < 2000.0


@pytest.mark.parametrize("m", [0.1, 0.3, 0.5, 0.8])
def test_arcface_never_rises_with_the_angle(m: float) -> None:
    angles = torch.linspace(0.0, math.pi, 20_001, dtype=torch.float64)
    hardened = apply_margin(angles.cos(), "arcface", m)
    assert (hardened.diff() <= 1e-9).all()
    rising = (angles + m).cos().diff() > 1e-9
    assert rising.any()  # the plain formula does rise, or this test shows nothing


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="float32"):
        apply_margin(torch.zeros(3, dtype=dtype), "arcface", 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("arcfase", 0.5, 64.0, "exact"), "perhaps you meant 'arcface'"),
        (("cosine", 0.5, 64.0, "exact"), "perhaps you meant 'cosface'"),
        (("arcface", -0.1, 64.0, "exact"), "outside"),
        (("arcface", 1.6, 64.0, "exact"), "outside"),
        (("cosface", 1.0, 64.0, "exact"), "outside"),
        (("arcface", math.nan, 64.0, "exact"), "outside"),
        (("arcface", 0.5, 0.0, "exact"), "positive"),
        (("arcface", 0.5, math.inf, "exact"), "finite"),
        (("arcface", 0.5, 64.0, "straight-through"), "perhaps you meant 'straight_through'"),
    ],
)
def test_meaningless_settings_are_refused(arguments: tuple[str, float, float, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_margin(*arguments)


def test_lookup_returns_the_function() -> None:
    for name, function in MARGINS.items():
        assert margin_function(name) is function
