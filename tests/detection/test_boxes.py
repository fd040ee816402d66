"""Boxes: suppression as two loops would do it."""

from __future__ import annotations

import numpy as np
import pytest

from fastface.detection.boxes import squared, suppress


def by_two_loops(boxes: np.ndarray, scores: np.ndarray, threshold: float, over: str, inclusive: bool) -> list[int]:
    one = int(inclusive)

    def area(x0: float, y0: float, x1: float, y1: float) -> float:
        return max(x1 - x0 + one, 0) * max(y1 - y0 + one, 0)

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        good = True
        for j in kept:
            (a0, b0, a1, b1), (c0, d0, c1, d1) = boxes[i], boxes[j]
            shared = area(max(a0, c0), max(b0, d0), min(a1, c1), min(b1, d1))
            sizes = area(a0, b0, a1, b1), area(c0, d0, c1, d1)
            whole = min(sizes) if over == "least" else sum(sizes) - shared
            good = good and shared / whole <= threshold
        if good:
            kept.append(i)
    return kept


@pytest.mark.parametrize("over", ["union", "least"])
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_suppression_is_that_of_two_loops(over: str, inclusive: bool, threshold: float) -> None:
    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 60):
        corner = rng.uniform(-5, 60, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (n, 2))], axis=1)
        scores = rng.integers(0, 10, n) / 10  # with ties: the first of equals wins
        expected = by_two_loops(boxes, scores, threshold, over, inclusive)
        assert suppress(boxes, scores, threshold, over=over, inclusive=inclusive).tolist() == expected
    assert 5 < len(expected) < 60


def test_squares_keep_the_centre_and_the_longer_side() -> None:
    boxes = np.array([[0, 0, 10, 20], [5, 5, 45, 15], [1, 1, 2, 2]], np.float32)
    assert squared(boxes).tolist() == [[-5, 0, 15, 20], [5, -10, 45, 30], [1, 1, 2, 2]]
    assert squared(boxes).dtype == np.float32
