"""Centres are unit means of unit rows in float64, whatever blocks the rows come in."""

from __future__ import annotations

import numpy as np
import pytest

from fastface.mining.centres import BLOCK, class_centres, in_class_order


def rows_and_labels(num: int = 200, people: int = 17) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(num, 6)).astype(np.float32) * rng.uniform(0.1, 50, (num, 1)).astype(np.float32)
    labels = rng.integers(0, people, num)
    labels[labels == 4] = 5  # nobody has 4
    rows[labels == 9] = 0  # no direction
    rows[3], rows[8] = np.nan, 0
    return rows, labels


def slowly(rows: np.ndarray, labels: np.ndarray, people: int) -> list[list[float] | None]:
    centres: list[list[float] | None] = []
    for person in range(people):
        total = [0.0] * rows.shape[1]
        for row in rows[labels == person].astype(np.float64).tolist():
            length = sum(x * x for x in row) ** 0.5
            if np.isfinite(length) and length > 0:
                total = [t + x / length for t, x in zip(total, row, strict=True)]
        length = sum(x * x for x in total) ** 0.5
        centres.append([x / length for x in total] if length else None)
    return centres


@pytest.mark.parametrize("block", [1, 3, 64, 1000])
def test_centres_are_what_plain_loops_give(block: int) -> None:
    rows, labels = rows_and_labels()
    order = np.argsort(labels, kind="stable")
    parts = [order[start : start + block] for start in range(0, len(order), block)]
    found = class_centres(((rows[part], labels[part]) for part in parts), 0, 18, 6)
    for row, expected in zip(found, slowly(rows, labels, 18), strict=True):
        if expected is None:
            assert np.isnan(row).all()
        else:
            np.testing.assert_allclose(row, expected, rtol=0, atol=1e-7)
    assert np.isnan(found).all(axis=1).nonzero()[0].tolist() == [4, 9, 17]
    some = class_centres(((rows[part], labels[part]) for part in parts), 5, 12, 6)
    np.testing.assert_array_equal(some, found[5:12])


def test_all_rows_come_in_the_order_of_identities() -> None:
    labels = np.random.default_rng(1).integers(0, 50, BLOCK + 100)
    rows = np.arange(len(labels), dtype=np.float32)[:, None]
    blocks = list(in_class_order(rows, labels))
    assert [len(block) for block, _ in blocks] == [BLOCK, 100]
    order = np.concatenate([block[:, 0] for block, _ in blocks]).astype(int)
    assert sorted(order.tolist()) == list(range(len(labels)))
    assert (np.diff(np.concatenate([part for _, part in blocks])) >= 0).all()
    np.testing.assert_array_equal(labels[order], np.concatenate([part for _, part in blocks]))
