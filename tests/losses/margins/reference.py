"""Every margin from the angle, with the standard library's math only: what the tests compare with."""

from __future__ import annotations

import math
from typing import Any

# Each margin of the table at least once; the test of the table says so.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {}),
    ("normface", {}),
    ("cosface", {"m": 0.4}),
    ("arcface", {"m": 0.5}),
    ("arcface", {"m": 1.2}),
    ("combined", {"m1": 1.0, "m2": 0.3, "m3": 0.2}),
    ("combined", {"m1": 0.9, "m2": 0.4, "m3": 0.15}),
    ("combined", {"m1": 0.6, "m2": 0.1, "m3": 0.0}),
    ("combined", {"m1": 1.35, "m2": 0.0, "m3": 0.0}),
    ("combined", {"m1": 4.0, "m2": 0.2, "m3": 0.1}),
    ("adaface", {"m": 0.4, "h": 0.333, "t_alpha": 0.01}),
    ("adaface", {"m": 0.4, "h": 1.0, "t_alpha": 1.0}),
    ("curricularface", {"m": 0.5, "alpha": 0.01}),
    ("magface", {}),
    ("magface", {"l_margin": 0.2, "u_margin": 1.0, "l_norm": 5.0, "u_norm": 40.0, "easy_margin": True}),
]
IDS = ["-".join([name, *(f"{key}{value}" for key, value in given.items())]) for name, given in CASES]
NORMS = [0.0, 5e-4, 7.0, 20.0, 31.0, 90.0, 250.0]  # at, within and beyond every clamp
MEAN, STD = 25.0, 12.0  # AdaFace's state in the tests: its z takes both signs and both bounds
EPS = 1e-3


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def arc(theta: float, m: float) -> float:
    return math.cos(theta + m) if theta + m <= math.pi else math.cos(theta) - m * math.sin(m)


def magface_margin(given: dict[str, Any], norm: float) -> float:
    low, high = given.get("l_norm", 10.0), given.get("u_norm", 110.0)
    lowest, highest = given.get("l_margin", 0.45), given.get("u_margin", 0.8)
    return lowest + (highest - lowest) * (clip(norm, low, high) - low) / (high - low)


def adaface_z(given: dict[str, Any], norm: float, mean: float = MEAN, std: float = STD) -> float:
    return clip((clip(norm, 1e-3, 100.0) - mean) / (std + EPS) * given["h"], -1.0, 1.0)


def value(name: str, given: dict[str, Any], theta: float, norm: float, strength: float = 1.0) -> float:
    """Return the hardened cosine of one row."""
    if name in ("softmax", "normface"):
        return math.cos(theta)
    if name == "cosface":
        return math.cos(theta) - strength * given["m"]
    if name in ("arcface", "curricularface"):
        return arc(theta, strength * given["m"])
    if name == "magface":
        m = strength * magface_margin(given, norm)
        if given.get("easy_margin"):
            return math.cos(theta + m) if math.cos(theta) > 0.0 else math.cos(theta)
        return arc(theta, m)
    if name == "adaface":
        m, z = strength * given["m"], adaface_z(given, norm)
        return math.cos(clip(theta - m * z, EPS, math.pi - EPS)) - (m + m * z)
    assert name == "combined"
    m1, m2, m3 = 1.0 + strength * (given["m1"] - 1.0), strength * given["m2"], strength * given["m3"]
    if m1 * theta + m2 <= math.pi:
        return math.cos(m1 * theta + m2) - m3
    a = math.pi - (math.pi - m2) / m1
    return math.cos(theta) - max(a * math.sin(a), 1.0 - math.cos(a)) - m3


def slope(name: str, given: dict[str, Any], theta: float, norm: float) -> float:
    """Return the derivative by the cosine: central difference by the angle, over d(cos)/d(theta)."""
    step = 1e-6
    rise = value(name, given, theta + step, norm) - value(name, given, theta - step, norm)
    return rise / (2 * step) / -math.sin(theta)


def norm_slope(name: str, given: dict[str, Any], theta: float, norm: float) -> float:
    step = 1e-5
    return (value(name, given, theta, norm + step) - value(name, given, theta, norm - step)) / (2 * step)


def kinks(name: str, given: dict[str, Any], norm: float) -> list[float]:
    """List the angles where two formulas meet."""
    if name in ("arcface", "curricularface"):
        return [math.pi - given["m"]]
    if name == "magface":
        return [math.pi / 2 if given.get("easy_margin") else math.pi - magface_margin(given, norm)]
    if name == "combined":
        return [angle for angle in [(math.pi - given["m2"]) / given["m1"]] if angle < math.pi]
    if name == "adaface":
        shift = given["m"] * adaface_z(given, norm)
        return [angle for angle in (EPS + shift, math.pi - EPS + shift) if 2e-3 < angle < math.pi - 2e-3]
    return []
