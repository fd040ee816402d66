"""The margin softmax loss as a double loop over samples and centres, with the standard library's math only."""

from __future__ import annotations

import math
from typing import Any

from tests.losses.margins import reference as margins

Rows = list[list[float]]


def unit(row: list[float]) -> list[float]:
    length = max(math.sqrt(sum(value * value for value in row)), 1e-12)
    return [value / length for value in row]


def dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def log_sum_exp(values: list[float]) -> float:
    if not values:
        return -math.inf
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def losses(
    embedding: Rows,
    centres: Rows,
    labels: list[int],
    margin: str,
    given: dict[str, Any],
    *,
    s: float,
    sub_centres: int = 1,
    filter_above: float | None = None,
    t: float = 0.0,
    norms: list[float] | None = None,
) -> list[float]:
    """Return every sample's loss; `norms` stand for the lengths of the embeddings where those have no gradient."""
    found = []
    norms = norms or [math.sqrt(dot(row, row)) for row in embedding]
    for row, label, norm in zip(embedding, labels, norms, strict=True):
        raw = margin == "softmax"
        x = row if raw else unit(row)
        cosines = []
        for first in range(0, len(centres), sub_centres):
            cosines.append(max(dot(x, c if raw else unit(c)) for c in centres[first : first + sub_centres]))
        own, others = cosines[label], [c for j, c in enumerate(cosines) if j != label]
        hardened = own if raw else margins.value(margin, given, math.acos(max(min(own, 1.0), -1.0)), norm)
        if filter_above is not None:
            others = [c for c in others if c <= filter_above]
        if margin == "curricularface":
            others = [c * (t + c) if c > hardened else c for c in others]
        scale = 1.0 if raw else s
        loss = log_sum_exp([scale * hardened, *(scale * c for c in others)]) - scale * hardened
        if margin == "magface":
            a = min(max(norm, 10.0), 110.0)
            loss += 35.0 * (a / 110.0**2 + 1.0 / a)
        found.append(loss)
    return found
