"""Nearest neighbours are those of a loop over all rows, and approximate ones say how many they find."""

import numpy as np
import pytest

from fastface.mining.search import KINDS, Kind, Search


def faces(num: int = 600, width: int = 16, seed: int = 0) -> np.ndarray:
    """Rows around centres, of different lengths; row 3 is zero, row 4 not finite, row 9 is row 8 at half its length."""
    drawn = np.random.default_rng(seed)
    rows = drawn.normal(size=(num // 6, width)).repeat(6, 0) + 0.3 * drawn.normal(size=(num, width))
    rows *= drawn.uniform(0.5, 20, size=(num, 1))
    rows[3], rows[4, 1], rows[9] = 0, np.nan, rows[8] / 2
    return rows.astype(np.float32)


def slow(rows: np.ndarray, query: np.ndarray, k: int) -> list[tuple[float, int]]:
    scored = []
    for i, row in enumerate(rows.astype(np.float64)):
        if np.isfinite(row).all() and row.any():
            scored.append((-float(row @ query / np.linalg.norm(row) / np.linalg.norm(query)), i))
    return [(-score, i) for score, i in sorted(scored)[:k]]


def test_flat_is_the_loop_over_all_rows() -> None:
    rows = faces()
    found = Search(rows, gpu=False)(rows[:40], 7)
    for q in range(40):
        if q in (3, 4):
            assert found.ids[q].tolist() == [-1] * 7
            assert np.isneginf(found.scores[q]).all()
            continue
        expected = slow(rows, rows[q].astype(np.float64), 7)
        np.testing.assert_allclose(found.scores[q], [score for score, _ in expected], atol=6e-8)  # one ulp of 1
        assert found.ids[q].tolist() == [i for _, i in expected]


def test_equal_rows_come_by_id() -> None:
    rows = np.tile(np.array([[1, 2, 2]], np.float32), (5, 1))
    assert Search(rows, gpu=False)(rows[:1], 5).ids.tolist() == [[0, 1, 2, 3, 4]]


def test_more_neighbours_than_rows() -> None:
    found = Search(faces()[:5], gpu=False)(faces()[:1], 8)
    assert found.ids[0, 3:].tolist() == [-1] * 5  # rows 3 and 4 are never found
    assert np.isneginf(found.scores[0, 3:]).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flat"])
def test_recall_is_what_a_loop_counts(kind: Kind) -> None:
    rows = faces()
    search = Search(rows, kind, gpu=False)
    truth, found = Search(rows, gpu=False)(rows, 5), search(rows, 5)
    hits = total = 0
    for q in range(len(rows)):
        for i in truth.ids[q]:
            total += i >= 0
            hits += i >= 0 and i in found.ids[q]
    assert search.recall(5) == pytest.approx(hits / total, abs=1e-12)
    assert search.recall(5) > 0.6
    again = Search(rows, kind, gpu=False)(rows, 5)
    np.testing.assert_array_equal(found.ids, again.ids)


def test_more_probes_find_more() -> None:
    rows = faces(3_000)
    few, all_of_them = (Search(rows, "ivf", probes=p, gpu=False).recall(10) for p in (1, 10_000))
    assert few < 0.95
    assert all_of_them == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "tree"}, "no index 'tree'; choose one of flat, ivf, hnsw, pq"),
        ({"kind": "pq", "rows": np.ones((300, 12), np.float32)}, "parts of 8 values, and theirs are 12"),
        ({"kind": "pq", "rows": np.ones((20, 16), np.float32)}, "learns 256 codes, and there are 20"),
        ({"kind": "ivf", "rows": np.zeros((300, 16), np.float32)}, "none of the embeddings has a direction"),
    ],
)
def test_what_cannot_be_built(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**{"rows": faces(), "gpu": False, **arguments})


def test_queries_that_do_not_fit() -> None:
    search = Search(faces(), gpu=False)
    with pytest.raises(ValueError, match=r"queries \(2, 5\) do not fit embeddings of 16 values"):
        search(np.ones((2, 5), np.float32), 1)
    with pytest.raises(ValueError, match="k is 0"):
        search(faces()[:1], 0)
