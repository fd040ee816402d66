"""A margin by its name: what is refused, and with which words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fastface.losses.margins import MARGINS, build_margin


@pytest.mark.parametrize("name", MARGINS)
def test_defaults_stand(name: str) -> None:
    margin = build_margin(name)
    assert type(margin) is MARGINS[name]
    assert (margin.gradient, margin.strength) == ("exact", 1.0)
    assert build_margin(name, gradient="straight_through").gradient == "straight_through"


DEFAULTS: list[tuple[str, dict[str, Any]]] = [
    ("arcface", {"m": 0.5}),
    ("cosface", {"m": 0.4}),
    ("combined", {"m1": 1.0, "m2": 0.5, "m3": 0.0}),
    ("adaface", {"m": 0.4, "h": 0.333, "t_alpha": 0.01}),
    ("curricularface", {"m": 0.5, "alpha": 0.01}),
    (
        "magface",
        {"l_margin": 0.45, "u_margin": 0.8, "l_norm": 10.0, "u_norm": 110.0, "lambda_g": 35.0, "easy_margin": False},
    ),
]


@pytest.mark.parametrize(("name", "given"), DEFAULTS)
def test_defaults_are_the_published_ones(name: str, given: dict[str, Any]) -> None:
    margin = build_margin(name)
    assert {key: getattr(margin, key) for key in given} == given
    for key, value in given.items():
        assert f"{key}={value}" in repr(margin)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("arcfase", {}, "perhaps you meant 'arcface'"),
        ("adaptiveface", {}, "known: arcface, cosface"),
        ("arcface", {"gradient": "straight-through"}, "perhaps you meant 'straight_through'"),
        ("magface", {"lambda": 35.0}, "no parameter 'lambda', perhaps you meant 'lambda_g'"),
        ("magface", {"u_margn": 0.8}, "perhaps you meant 'u_margin'"),
        ("arcface", {"m2": 0.5}, "it has m$"),
        ("softmax", {"m": 0.5}, "it has none"),
        ("arcface", {"m": -0.1}, "outside.*arcface; usual: 0.5"),
        ("arcface", {"m": 1.6}, "outside"),
        ("arcface", {"m": math.nan}, "outside"),
        ("arcface", {"m": "0.5"}, "m '0.5' is outside"),
        ("arcface", {"m": True}, "outside"),
        ("cosface", {"m": 1.1}, "0.35 to 0.4"),
        ("combined", {"m1": 0.4}, "outside.*usual: 1"),
        ("combined", {"m1": 4.5}, "outside"),
        ("combined", {"m2": 1.6}, "outside"),
        ("combined", {"m3": -0.1}, "outside"),
        ("adaface", {"m": 1.5}, "usual: 0.4"),
        ("adaface", {"h": -0.1}, "usual: 0.333"),
        ("adaface", {"t_alpha": 2.0}, "usual: 0.01"),
        ("curricularface", {"m": -1.0}, "usual: 0.5"),
        ("curricularface", {"alpha": -1.0}, "usual: 0.01"),
        ("magface", {"l_margin": 0.9}, r"outside \[0, 0.8\]"),
        ("magface", {"u_margin": 2.0}, "usual: 0.8"),
        ("magface", {"l_norm": 120.0}, r"outside \[0.001, 110\]"),
        ("magface", {"l_norm": 110.0}, "must lie below u_norm"),
        ("magface", {"u_norm": math.inf}, "usual: 110"),
        ("magface", {"lambda_g": -1.0}, "usual: 35"),
        ("magface", {"easy_margin": "false"}, "must be true or false"),
    ],
)
def test_what_has_no_meaning_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_margin(name, **given)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_strength_stays_between_none_and_whole(value: float) -> None:
    margin = build_margin("arcface")
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        margin.strength = value
    assert margin.strength == 1.0


def test_strength_is_not_in_the_checkpoint() -> None:
    margin, other = build_margin("adaface"), build_margin("adaface")
    margin.strength = 0.25
    other.load_state_dict(margin.state_dict())
    assert other.strength == 1.0
