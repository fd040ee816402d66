"""Values and derivatives of every margin against math.acos in plain Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastface.losses.margins import GRADIENTS, MARGINS, Margin, build_margin
from tests.losses.margins.reference import (
    CASES,
    EPS,
    IDS,
    MEAN,
    NORMS,
    STD,
    adaface_z,
    arc,
    kinks,
    magface_margin,
    norm_slope,
    slope,
    value,
)

POLES = [-1.0, 1.0]
NEAR_POLES = [-1.0 + 1e-7, 1.0 - 1e-7]
ORDINARY = [-0.999, -0.95, -0.9, -0.87, -0.5, -0.1, 0.01, 0.2, 0.5, 0.8, 0.92, 0.99, 0.9999]
BEYOND = [-1.0 - 2.4e-7, 1.0 + 2.4e-7]  # where the rounding of a product of float32 unit vectors may end
every_case = pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
every_gradient = pytest.mark.parametrize("gradient", GRADIENTS)


def built(name: str, given: dict[str, Any], gradient: str = "exact") -> Margin:
    margin = build_margin(name, gradient=gradient, **given)
    if name == "adaface":
        margin.load_state_dict({"mean": torch.tensor(MEAN), "std": torch.tensor(STD)})
    return margin


def leaf(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def grid(cosines: list[float], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Every cosine with every norm, as two columns that take gradients."""
    pairs = [(cosine, norm) for cosine in cosines for norm in NORMS]
    return leaf([cosine for cosine, _ in pairs], dtype), leaf([norm for _, norm in pairs], dtype)


def angle(cosine: float) -> float:
    return math.acos(max(-1.0, min(1.0, cosine)))


def excess(name: str, cosine: float) -> float:
    """Return what is beyond 1, for the margins that add no angle: they leave it there, the others cut it off."""
    return cosine - max(-1.0, min(1.0, cosine)) if name in ("softmax", "normface", "cosface") else 0.0


def test_every_margin_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(MARGINS)


@every_case
@every_gradient
def test_value_equals_the_angle_formula(name: str, given: dict[str, Any], gradient: str) -> None:
    margin = built(name, given, gradient)
    cosines = POLES + NEAR_POLES + ORDINARY + ([] if not margin.normalised else BEYOND)
    cosine, norm = grid(cosines)
    hardened = margin(cosine, norm)
    assert hardened.dtype == torch.float64
    for row, (c, a) in enumerate(zip(cosine.tolist(), norm.tolist(), strict=True)):
        assert hardened[row].item() == pytest.approx(value(name, given, angle(c), a) + excess(name, c), abs=1e-12)


@every_case
@every_gradient
def test_derivative_by_the_cosine(name: str, given: dict[str, Any], gradient: str) -> None:
    cosine, norm = grid(NEAR_POLES + ORDINARY)
    built(name, given, gradient)(cosine, norm).sum().backward()
    assert cosine.grad is not None
    for row, (c, a) in enumerate(zip(cosine.tolist(), norm.tolist(), strict=True)):
        distances = [abs(angle(c) - kink) for kink in kinks(name, given, a)]
        assert all(distance > 1e-5 for distance in distances), "a difference quotient across a kink says nothing"
        expected = 1.0 if gradient == "straight_through" else slope(name, given, angle(c), a)
        assert cosine.grad[row].item() == pytest.approx(expected, rel=1e-6, abs=2e-6)


@every_case
@every_gradient
def test_derivative_by_the_norm(name: str, given: dict[str, Any], gradient: str) -> None:
    """MagFace learns through the norm, with either gradient; nothing else does, and beyond the clamp nothing."""
    cosine, norm = grid(ORDINARY)
    built(name, given, gradient)(cosine, norm).sum().backward()
    if name != "magface":
        assert norm.grad is None or not norm.grad.any()
        return
    assert norm.grad is not None
    for row, (c, a) in enumerate(zip(cosine.tolist(), norm.tolist(), strict=True)):
        expected = norm_slope(name, given, angle(c), a)
        assert norm.grad[row].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
        inside = given.get("l_norm", 10.0) < a < given.get("u_norm", 110.0)
        eased = given.get("easy_margin") and c <= 0.0
        assert (norm.grad[row].item() != 0.0) == (inside and not eased)


@every_case
def test_both_sides_of_each_kink(name: str, given: dict[str, Any]) -> None:
    """Where two formulas meet, each side has its own, 1e-4 away."""
    margin = built(name, given)
    for a in NORMS:
        for kink in kinks(name, given, a):
            for theta in (kink - 1e-4, kink + 1e-4):
                cosine = leaf([math.cos(theta)])
                hardened = margin(cosine, torch.tensor([a], dtype=torch.float64))
                hardened.sum().backward()
                assert cosine.grad is not None
                assert hardened.item() == pytest.approx(value(name, given, theta, a), abs=1e-12)
                assert cosine.grad.item() == pytest.approx(slope(name, given, theta, a), rel=1e-5, abs=1e-6)


@every_case
@every_gradient
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_the_poles_and_beyond(
    name: str, given: dict[str, Any], gradient: str, dtype: torch.dtype
) -> None:
    cosines = POLES + BEYOND
    for pole in (-1.0, 1.0):  # the 50 cosines next to each
        near = torch.tensor(pole, dtype=dtype)
        for _ in range(50):
            near = torch.nextafter(near, torch.zeros_like(near))
            cosines.append(near.item())
    cosine, norm = grid(cosines, dtype)
    hardened = built(name, given, gradient)(cosine, norm)
    hardened.sum().backward()
    assert cosine.grad is not None
    assert hardened.isfinite().all()
    assert cosine.grad.isfinite().all()
    assert norm.grad is None or norm.grad.isfinite().all()
    for row, (c, a) in enumerate(zip(cosine.tolist(), norm.tolist(), strict=True)):
        tolerance = 4e-7 if dtype == torch.float32 else 1e-12
        expected = value(name, given, angle(c), a) + excess(name, c)
        assert hardened[row].item() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "given", "at_zero"),
    [
        ("normface", {}, 1.0),
        ("cosface", {"m": 0.4}, 1.0),
        ("arcface", {"m": 0.5}, math.cos(0.5)),
        ("curricularface", {"m": 0.7}, math.cos(0.7)),
        ("combined", {"m1": 1.0, "m2": 0.3, "m3": 0.2}, math.cos(0.3)),
        ("combined", {"m1": 1.35, "m2": 0.3, "m3": 0.0}, math.cos(0.3)),
        ("magface", {}, math.cos(0.485)),  # at norm 20
        ("adaface", {"m": 0.4, "h": 0.333}, math.cos(0.4 * adaface_z({"h": 0.333}, 20.0))),
    ],
)
def test_derivative_on_the_poles(name: str, given: dict[str, Any], at_zero: float, dtype: torch.dtype) -> None:
    """The sine's part is left out at theta = 0; the other pole has the rule beyond pi. The same under every torch."""
    cosine = leaf([1.0, -1.0], dtype)
    built(name, given)(cosine, torch.full_like(cosine, 20.0)).sum().backward()
    assert cosine.grad is not None
    at_pi = 0.0 if name == "adaface" else 1.0  # its clip at pi - eps
    assert cosine.grad.tolist() == pytest.approx([at_zero, at_pi], abs=2e-7)


@pytest.mark.parametrize("norm", [10.0, 110.0])
def test_norms_on_the_bounds_still_learn(norm: float) -> None:
    magface, on = build_margin("magface"), leaf([norm])
    magface(torch.tensor([0.3]).double(), on).sum().backward()
    assert on.grad is not None
    m = magface_margin({}, norm)
    assert on.grad.item() == pytest.approx(-math.sin(angle(torch.tensor(0.3).item()) + m) * 0.35 / 100.0, rel=1e-9)
    on = leaf([norm])
    penalty = magface.penalty(on)
    assert penalty is not None
    penalty.sum().backward()
    assert on.grad is not None
    assert on.grad.item() == pytest.approx(35.0 * (1.0 / 110.0**2 - 1.0 / norm**2), abs=1e-15)


@every_case
def test_float32_stays_close_to_the_angle_formula(name: str, given: dict[str, Any]) -> None:
    cosine, norm = grid(ORDINARY, torch.float32)
    hardened = built(name, given)(cosine, norm)
    hardened.sum().backward()
    assert cosine.grad is not None
    assert hardened.dtype == torch.float32
    for row, (c, a) in enumerate(zip(cosine.tolist(), norm.tolist(), strict=True)):
        assert hardened[row].item() == pytest.approx(value(name, given, angle(c), a), abs=2e-6)
        assert cosine.grad[row].item() == pytest.approx(slope(name, given, angle(c), a), rel=1e-3, abs=1e-5)


@every_case
def test_never_rises_with_the_angle(name: str, given: dict[str, Any]) -> None:
    """All decrease but magface's easy_margin, which steps up at pi / 2, and adaface, which has flat ends."""
    angles = torch.linspace(0.0, math.pi, 20_001, dtype=torch.float64)
    for a in NORMS:
        change = built(name, given)(angles.cos(), torch.full_like(angles, a)).diff()
        if given.get("easy_margin"):
            assert (change > 0.1).sum() == 1
        elif name == "adaface":
            shift = given["m"] * adaface_z(given, a)
            flat = (angles < EPS + shift) | (angles > math.pi - EPS + shift)
            both_flat = flat[1:] & flat[:-1]
            assert (change[both_flat] == 0.0).all()
            assert (change[~both_flat] < 0.0).all()
            assert both_flat.any()
        else:
            assert (change < 0.0).all()


@pytest.mark.parametrize("given", [given for name, given in CASES if name in ("arcface", "combined")])
def test_the_plain_formula_does_rise(given: dict[str, Any]) -> None:
    """Otherwise the test above shows nothing of the rule beyond pi."""
    angles = torch.linspace(0.0, math.pi, 20_001, dtype=torch.float64)
    m1, m2 = given.get("m1", 1.0), given.get("m2", given.get("m", 0.0))
    rises = bool(((m1 * angles + m2).cos().diff() > 0.0).any())
    assert rises == (m1 * math.pi + m2 > math.pi)


@every_gradient
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_combined_contains_arcface_and_cosface(gradient: str, strength: float, dtype: torch.dtype) -> None:
    alone = {"arcface": {"m": 0.5}, "cosface": {"m": 0.4}}
    within = {"arcface": {"m1": 1.0, "m2": 0.5, "m3": 0.0}, "cosface": {"m1": 1.0, "m2": 0.0, "m3": 0.4}}
    for name in alone:
        gradients, values = [], []
        for margin in (built(name, alone[name], gradient), built("combined", within[name], gradient)):
            margin.strength = strength
            cosine, norm = grid(POLES + NEAR_POLES + ORDINARY + BEYOND, dtype)
            values.append(margin(cosine, norm))
            values[-1].sum().backward()
            gradients.append(cosine.grad)
        assert torch.equal(*values)
        assert torch.equal(*gradients)


@every_case
def test_straight_through_is_the_value_with_derivative_one(name: str, given: dict[str, Any]) -> None:
    cosine, norm = grid(POLES + NEAR_POLES + ORDINARY + BEYOND)
    straight = built(name, given, "straight_through")(cosine, norm)
    assert torch.equal(straight, built(name, given, "exact")(cosine, norm))
    weight = torch.linspace(-2.0, 3.0, len(cosine), dtype=torch.float64)
    (by_cosine,) = torch.autograd.grad((weight * straight).sum(), cosine)
    assert torch.equal(by_cosine, weight)


@every_case
def test_gradcheck(name: str, given: dict[str, Any]) -> None:
    cosine = leaf([-0.97, -0.6, -0.2, 0.1, 0.45, 0.71, 0.96])
    norm = torch.tensor(
        [12.0, 17.0, 21.0, 24.0, 27.0, 33.0, 38.0], dtype=torch.float64, requires_grad=name == "magface"
    )
    assert torch.autograd.gradcheck(built(name, given), (cosine, norm))


@every_case
@every_gradient
def test_strength_zero_is_the_plain_column(name: str, given: dict[str, Any], gradient: str) -> None:
    margin = built(name, given, gradient)
    margin.strength = 0.0
    cosine, norm = grid(POLES + NEAR_POLES + ORDINARY + BEYOND)
    plain = margin(cosine, norm)
    assert torch.equal(plain, cosine)
    (by_cosine,) = torch.autograd.grad(plain.sum(), cosine)
    assert torch.equal(by_cosine, torch.ones_like(cosine))


@every_case
@pytest.mark.parametrize("strength", [0.5, 0.01])
def test_strength_multiplies_every_margin(name: str, given: dict[str, Any], strength: float) -> None:
    margin = built(name, given)
    margin.strength = strength
    cosine, norm = grid(ORDINARY)
    hardened = margin(cosine, norm)
    for row, (c, a) in enumerate(zip(cosine.tolist(), norm.tolist(), strict=True)):
        assert hardened[row].item() == pytest.approx(value(name, given, angle(c), a, strength), abs=1e-12)


HALVES = {
    "cosface": ({"m": 0.4}, {"m": 0.2}),
    "arcface": ({"m": 0.5}, {"m": 0.25}),
    "curricularface": ({"m": 0.5}, {"m": 0.25}),
    "combined": ({"m1": 1.4, "m2": 0.5, "m3": 0.2}, {"m1": 1.2, "m2": 0.25, "m3": 0.1}),
    "adaface": ({"m": 0.4}, {"m": 0.2}),
    "magface": ({"l_margin": 0.45, "u_margin": 0.8}, {"l_margin": 0.225, "u_margin": 0.4}),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_the_strength_is_half_the_margins(name: str) -> None:
    whole, half = (built(name, given) for given in HALVES[name])
    cosine, norm = grid(POLES + NEAR_POLES + ORDINARY)
    assert not torch.allclose(whole(cosine, norm), half(cosine, norm), atol=0.01)
    whole.strength = 0.5
    torch.testing.assert_close(whole(cosine, norm), half(cosine, norm), rtol=0.0, atol=1e-14)


@every_case
@every_gradient
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_nan_stays_nan(name: str, given: dict[str, Any], gradient: str, strength: float) -> None:
    margin = built(name, given, gradient)
    margin.strength = strength
    assert margin(torch.tensor([math.nan, 0.3]), torch.tensor([20.0, 20.0])).isnan().tolist() == [True, False]
    reads_norms = name in ("adaface", "magface") and strength > 0.0
    hardened = margin(torch.tensor([0.3, 0.3]), torch.tensor([math.nan, 20.0]))
    assert hardened.isnan().tolist() == [reads_norms, False]


@every_case
def test_penalty(name: str, given: dict[str, Any]) -> None:
    margin = built(name, given)
    norm = leaf(NORMS)
    penalty = margin.penalty(norm)
    if name != "magface":
        assert penalty is None
        return
    assert penalty is not None
    penalty.sum().backward()
    assert norm.grad is not None
    low, high = given.get("l_norm", 10.0), given.get("u_norm", 110.0)
    for row, a in enumerate(NORMS):
        within = max(low, min(high, a))
        assert penalty[row].item() == pytest.approx(35.0 * (within / high**2 + 1.0 / within), rel=1e-14)
        expected = 35.0 * (1.0 / high**2 - 1.0 / a**2) if low < a < high else 0.0
        assert norm.grad[row].item() == pytest.approx(expected, rel=1e-12)
        assert expected <= 0.0  # it makes norms grow


def test_penalty_figures_of_the_docstring() -> None:
    penalty = build_margin("magface").penalty(torch.tensor([10.0, 110.0], dtype=torch.float64))
    assert penalty is not None
    assert penalty.tolist() == pytest.approx([3.53, 0.636], abs=0.005)


def test_magface_margin_ends_and_middle() -> None:
    """At norms 10, 60 and 110 it is arcface with 0.45, 0.625 and 0.8."""
    magface = build_margin("magface")
    for norm, m in ((3.0, 0.45), (10.0, 0.45), (60.0, 0.625), (110.0, 0.8), (300.0, 0.8)):
        assert magface_margin({}, norm) == pytest.approx(m)
        for theta in (0.1, 1.0, 2.2, 2.6, 3.0):
            hardened = magface(torch.tensor([math.cos(theta)]).double(), torch.tensor([norm]).double())
            assert hardened.item() == pytest.approx(arc(math.acos(torch.tensor(math.cos(theta)).item()), m), abs=1e-12)


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(name: str, dtype: torch.dtype) -> None:
    margin, half = build_margin(name), torch.zeros(3, dtype=dtype)
    with pytest.raises(ValueError, match="float32"):
        margin(half, half)
    with pytest.raises(ValueError, match="float32"):
        margin.observe(half, half)
    with pytest.raises(ValueError, match="same type"):
        margin(half.float(), half)
    with pytest.raises(ValueError, match="one norm per row"):
        margin(half.float(), half.float()[:2])
