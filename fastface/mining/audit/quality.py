"""Measures of all images -> those far from the others: blurred, dark, bright, flat, small, grey, unreadable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastface.mining.audit.pixels import Looks

SPREADS = 4.0  # robust standard deviations from the median
DARK, BRIGHT, FLAT = 25.0, 230.0, 5.0  # mean grey levels and their deviation that are poor whatever the others are
GREY = 3.0  # mean distance between the colours of a pixel, below which an image is grey


class Limits(NamedTuple):
    """Beyond these an image is listed."""

    blurred: float  # log10 of the Laplacian's variance over that of the light, below
    dark: float  # mean grey level, below
    bright: float  # mean grey level, above
    flat: float  # standard deviation of grey levels, below
    small: float  # px of the shorter side, below
    grey: float  # mean distance of colours, below


def choose_limits(looks: Looks, given: Mapping[str, float | None]) -> tuple[Limits, dict[str, str]]:
    """Set what was not given SPREADS robust deviations from the median (1.4826 MAD), and say so."""
    known = looks.measures[looks.decoded()]

    def beyond(name: str, sign: int) -> float:
        values = known[name].astype(np.float64)
        middle = float(np.median(values)) if len(values) else 0.0
        spread = 1.4826 * float(np.median(np.abs(values - middle))) if len(values) else 0.0
        return middle + sign * SPREADS * spread

    shorter = np.minimum(known["width"], known["height"])
    found = {
        "blurred": beyond("sharpness", -1),
        "dark": max(beyond("brightness", -1), DARK),
        "bright": min(beyond("brightness", 1), BRIGHT),
        "flat": max(beyond("contrast", -1), FLAT),
        "small": float(np.median(shorter)) / 2 if len(shorter) else 0.0,
        "grey": GREY,
    }
    spreads = f"{SPREADS:g} robust deviations from the median"
    ways = dict.fromkeys(found, spreads)
    ways |= {"dark": f"{spreads}, at least {DARK:g}", "bright": f"{spreads}, at most {BRIGHT:g}"}
    ways |= {"small": "half of the median", "grey": "fixed", "flat": f"{spreads}, at least {FLAT:g}"}
    for name, value in given.items():
        if value is not None:
            found[name], ways[name] = value, "given"
    return Limits(**found), ways


def outliers(looks: Looks, limits: Limits) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """List by kind the records beyond the limits (int64, the worst first) and their values."""
    measures, known = looks.measures, looks.decoded()
    shorter = np.minimum(measures["width"], measures["height"]).astype(np.float32)
    sides = {
        "blurred": (measures["sharpness"], limits.blurred, False),
        "dark": (measures["brightness"], limits.dark, False),
        "bright": (measures["brightness"], limits.bright, True),
        "flat": (measures["contrast"], limits.flat, False),
        "small": (shorter, limits.small, False),
        "grey": (measures["colour"], limits.grey, False),
    }
    found = {}
    for kind, (values, limit, above) in sides.items():
        records = np.flatnonzero(known & ((values > limit) if above else (values < limit)))
        order = np.argsort(-values[records] if above else values[records], kind="stable")
        found[kind] = (records[order], np.asarray(values[records][order], np.float64))
    return found
