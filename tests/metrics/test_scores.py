import math

import numpy as np
import pytest

from fastface.metrics import scores as scores_module
from fastface.metrics.scores import centred_scores, pair_distances, pair_scores, unit, usable


def drawn(num: int = 30, dim: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(1.0, 2.0, (num, dim)).astype(np.float32), *rng.integers(0, num, (2, 50))


def cosine(a: list[float], b: list[float]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def test_a_score_is_the_cosine_rounded_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_module, "CHUNK", 16)  # several pieces, the last one short
    rows, first, second = drawn()
    found = pair_scores(rows, first, second)
    expected = [cosine(rows[a].tolist(), rows[b].tolist()) for a, b in zip(first, second, strict=True)]
    assert found.dtype == np.float32
    assert found.tolist() == np.array(expected, np.float32).tolist()
    squares = pair_distances(rows, first, second)
    assert squares == pytest.approx(2 - 2 * np.array(expected), abs=1e-12)


def test_rows_without_direction_have_no_score() -> None:
    rows, first, second = drawn()
    rows[3], rows[4, 2], rows[5, 0] = 0, np.nan, np.inf
    bad = np.isin(first, (3, 4, 5)) | np.isin(second, (3, 4, 5))
    assert bad.any()
    assert np.array_equal(np.isnan(pair_scores(rows, first, second)), bad)
    assert np.flatnonzero(~usable(rows)).tolist() == [3, 4, 5]
    assert np.isnan(unit(rows)[[3, 4, 5]]).all()


def test_the_mean_of_the_other_folds_is_subtracted() -> None:
    rows, first, second = drawn()
    rows[7] = np.nan
    folds = np.arange(50) % 4
    found = centred_scores(rows, first, second, folds)
    for k in range(4):
        used = [i for a, b, f in zip(first, second, folds, strict=True) if f != k for i in (a, b) if i != 7]
        mean = np.sum([rows[i].astype(np.float64) for i in used], axis=0) / len(used)
        moved = rows.astype(np.float64) - mean
        for p, (a, b) in enumerate(zip(first, second, strict=True)):
            if 7 in (a, b):
                assert np.isnan(found[k, p])
            else:
                assert found[k, p] == pytest.approx(cosine(moved[a].tolist(), moved[b].tolist()), abs=1e-6)
