"""Counts -> confidence intervals of their rates."""

from typing import NamedTuple

from scipy.stats import norm

CONFIDENCE = 0.95
INDEPENDENT = "Wilson, pairs taken as independent"
DEPENDENT = "Wilson, effective number of pairs"


class Interval(NamedTuple):
    """Where a figure lies with 95 % confidence, and how that was found."""

    low: float
    high: float
    method: str


def wilson(hits: float, total: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's score interval (low, high) of the rate hits / total, trials taken as independent.

    Pairs that share persons are not independent, and the true interval is wider: `dependence.adjusted` shrinks
    both counts to as many pairs as would carry the same information. Unlike the normal interval it stays inside
    [0, 1] and has a width at 0 and at total.
    """
    if not 0 <= hits <= total or total == 0:
        raise ValueError(f"An interval needs 0 <= hits <= total and total > 0, not {hits} of {total}.")
    z = float(norm.ppf((1 + confidence) / 2))
    rate = hits / total
    centre = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (rate * (1 - rate) / total + z * z / (4 * total * total)) ** 0.5
    return (0.0 if hits == 0 else max(0.0, centre - half)), (1.0 if hits == total else min(1.0, centre + half))


def independent(hits: int, total: int) -> Interval:
    """Return Wilson's interval as it is."""
    return Interval(*wilson(hits, total), INDEPENDENT)
