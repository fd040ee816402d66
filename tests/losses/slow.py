"""What the tests of losses that compare rows share: batches, and the obvious formulas in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fastface.losses.compared import Compared

Rows = list[list[float]]
MIXED = [3, 0, 1, 0, 2, 1, 1, 3, 0, 7]  # identities of 3, 3, 2, 1 and 1 rows, in no order


def batch(labels: list[int], size: int = 3, seed: int = 0, spread: float = 0.8) -> tuple[Tensor, Tensor]:
    """Draw embeddings float64 [N, D] around a centre for each identity."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(max(labels) + 1, size))
    rows = centres[labels] + spread * generator.normal(size=(len(labels), size))
    return torch.from_numpy(rows), torch.tensor(labels)


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def squared(x: list[float], y: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def mean(values: list[float]) -> float:
    """Average; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def mean_cosine(rows: Rows) -> float:
    vectors = [unit(row) for row in rows]
    return mean([dot(x, y) for i, x in enumerate(vectors) for j, y in enumerate(vectors) if i != j])


def cosines(rows: Rows, labels: list[int], *, genuine: bool) -> list[float]:
    """Cosines of all ordered pairs of one identity, or of two."""
    return [
        dot(unit(rows[i]), unit(rows[j]))
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j and (labels[i] == labels[j]) == genuine
    ]


def slope(function: Callable[[Rows], float], rows: Rows, step: float = 1e-6) -> np.ndarray:
    """Central differences of a function of rows, [N, D]."""
    found = np.zeros((len(rows), len(rows[0])))
    for i, j in np.ndindex(*found.shape):
        ends = []
        for sign in (1, -1):
            moved = [list(row) for row in rows]
            moved[i][j] += sign * step
            ends.append(function(moved))
        found[i, j] = (ends[0] - ends[1]) / (2 * step)
    return found


def expect(
    compute: Callable[[Tensor], Compared], slow: Callable[[Rows], tuple[float, dict[str, float]]], embedding: Tensor
) -> None:
    """Compare loss, gradient and terms with those of the slow loop."""
    embedding = embedding.clone().requires_grad_()
    result = compute(embedding)
    result.loss.backward()
    rows = embedding.tolist()
    loss, terms = slow(rows)
    assert result.loss.item() == pytest.approx(loss, abs=1e-12, rel=1e-12)
    assert {name: value.item() for name, value in result.terms.items()} == pytest.approx(terms, abs=1e-12, rel=1e-12)
    assert embedding.grad is not None
    np.testing.assert_allclose(embedding.grad.numpy(), slope(lambda x: slow(x)[0], rows), atol=2e-8)
    assert result.loss.shape == ()
    assert all(value.shape == () and not value.requires_grad for value in result.terms.values())


def expect_nothing(result: Compared, embedding: Tensor) -> None:
    """Check that a loss is exactly 0, with a gradient that is there and exactly 0, and no term NaN."""
    assert result.loss.item() == 0.0
    result.loss.backward()
    assert embedding.grad is not None
    assert (embedding.grad == 0).all()
    assert all(value.isfinite() for value in result.terms.values())
