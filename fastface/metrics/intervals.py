"""Counts -> confidence intervals of their rates."""

from scipy.stats import norm


def wilson(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (low, high) of the rate hits / total, trials taken as independent.

    Pairs that share images or identities are not independent, so the true interval is wider (Fogliato et al.,
    arXiv 2306.01198); the figure says what sampling alone would do. Unlike the normal interval it stays
    inside [0, 1] and has a width at 0 and at total.
    """
    if not 0 <= hits <= total or total == 0:
        raise ValueError(f"An interval needs 0 <= hits <= total and total > 0, not {hits} of {total}.")
    z = float(norm.ppf((1 + confidence) / 2))
    rate = hits / total
    centre = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (rate * (1 - rate) / total + z * z / (4 * total * total)) ** 0.5
    return (0.0 if hits == 0 else max(0.0, centre - half)), (1.0 if hits == total else min(1.0, centre + half))
