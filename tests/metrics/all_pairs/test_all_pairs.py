"""Counted over tiles or written down one by one, the figures of all pairs are the same integers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastface.metrics.all_pairs import all_pairs, engine, passes, tally
from tests.metrics.all_pairs.slow import TARGETS, check, people, slow

Input = tuple[np.ndarray, np.ndarray]


def wild() -> Input:
    rows, labels = people()
    return rows * np.geomspace(1e-18, 1e18, len(rows), dtype=np.float32)[:, None], labels


def repeated() -> Input:
    rows, labels = people(50)
    return np.concatenate([rows, rows * 2, rows[::-1]]), np.concatenate([labels, labels, labels])


def one_hot() -> Input:
    """All scores are 0 or 1, so that every threshold is a tie of thousands."""
    rng = np.random.default_rng(1)
    return np.eye(12, dtype=np.float32)[rng.integers(0, 12, 160)], rng.integers(0, 9, 160)


def few_values() -> Input:
    rng = np.random.default_rng(2)
    return rng.integers(-1, 2, (140, 4)).astype(np.float32), rng.integers(0, 9, 140)  # some rows are zero


def failures() -> Input:
    rows, labels = people()
    rows[3], rows[40, 2], rows[41, 0], rows[-1] = 0, np.nan, np.inf, np.nan
    return rows, labels


def mostly_failures() -> Input:
    """More impostors fail than the highest target allows to be accepted, and more genuine pairs than are left."""
    rows, labels = people()
    rows[13:] = np.nan
    return rows, labels


def apart() -> Input:
    return people(noise=0.01)


def opposite() -> Input:
    rng = np.random.default_rng(3)
    return rng.choice([-2.0, 3.0], (90, 1)).astype(np.float32), rng.integers(0, 5, 90)


def around_zero() -> Input:
    """Pairs are orthogonal up to rounding, where float32 is finer than any float64 sum is certain."""
    rows = np.linalg.qr(np.random.default_rng(4).standard_normal((64, 64)))[0].astype(np.float32)
    return np.concatenate([rows, rows[:20]]), np.append(np.arange(64) // 2, np.arange(20) // 2)


def three() -> Input:
    return people(3, 2, seed=5)[0], np.array([7, -2, 7])


def half_precision() -> Input:
    rows, labels = people()
    return rows.astype(np.float16), labels.astype(np.uint8)


def unsorted_memory() -> Input:
    rows, labels = people()
    return np.asfortranarray(rows), labels


CASES: dict[str, Callable[[], Input]] = {
    "people": people,
    "wild": wild,
    "repeated": repeated,
    "one-hot": one_hot,
    "few values": few_values,
    "failures": failures,
    "mostly failures": mostly_failures,
    "apart": apart,
    "opposite": opposite,
    "around zero": around_zero,
    "three": three,
    "float16": half_precision,
    "columns first": unsorted_memory,
}
WAYS: dict[str, dict[str, Any]] = {
    "compiled": {},
    "torch": {"compiled": False},
    "half": {"precision": "half"},
    "half by torch": {"precision": "half", "compiled": False, "threads": 1},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Cut so few rows into many panels and tiles, the last ones short."""
    monkeypatch.setattr(engine, "grid_side", lambda number: 67)
    monkeypatch.setattr(passes, "TILES", {"cpu": (40, 50)})
    return monkeypatch


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_the_counts_are_those_of_all_scores_written_down(case: str, way: str, small: pytest.MonkeyPatch) -> None:
    rows, labels = CASES[case]()
    found = all_pairs(rows, labels, TARGETS, threads=2, **{k: v for k, v in WAYS[way].items() if k != "threads"})
    check(found, rows, labels)
    assert found.num_genuine + found.num_impostors == len(rows) * (len(rows) - 1) // 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_so_they_are_after_a_guess_and_with_little_room(case: str, way: str, small: pytest.MonkeyPatch) -> None:
    """A pilot of a tenth, right or wrong; windows of few slots, so that keys are closed in on; few keys kept."""
    small.setattr(engine, "PILOT_FROM", 50)
    small.setattr(engine, "SLOTS", 40)
    small.setattr(engine, "KEPT", 600)
    small.setattr(tally, "KEPT", 300)
    rows, labels = CASES[case]()
    check(all_pairs(rows, labels, TARGETS, **WAYS[way]), rows, labels)


def test_a_guess_that_is_right_saves_a_pass() -> None:
    rows, labels = people(engine.PILOT_FROM, 300, 16, seed=6)
    found = all_pairs(rows, labels, (1e-2, 1e-4, 1e-6))
    assert found.passes == 1
    assert found.rescored < 0.05 * (found.num_genuine + found.num_impostors)
    left = [int(point.target_fmr * point.impostors) - point.errors for point in found.points]
    assert all(0 <= more < 4 for more in left)  # ties


def test_a_mapped_file_does(tmp_path: Path, small: pytest.MonkeyPatch) -> None:
    rows, labels = failures()
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    check(all_pairs(mapped, labels, TARGETS, memory_mb=0), rows, labels)  # no panel is kept but four


def test_any_list_of_targets() -> None:
    rows, labels = people(60, 9)
    targets = (0.5, 1e-9, 0.999, 0.29, 0.29, 1e-3, 0.04)
    check(all_pairs(rows, labels, targets), rows, labels, targets)
    assert all_pairs(rows, labels, ()).eer == slow(rows, labels).equal[0]


def test_what_torch_allows_elsewhere_changes_nothing() -> None:
    rows, labels = people(dim=512)
    before = torch.get_num_threads()
    torch.set_float32_matmul_precision("medium")
    try:
        found = all_pairs(rows, labels, TARGETS)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    check(found, rows, labels)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(6, int), "all 15 pairs are genuine"),
        (np.arange(6), "all 15 pairs are impostor"),
        (np.zeros(5, int), r"rows \(6, 3\) and labels \(5,\)"),
        (np.zeros(6), "integers"),
    ],
)
def test_labels_without_figures_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        all_pairs(np.ones((6, 3), np.float32), labels)


def test_what_else_is_refused() -> None:
    rows, labels = people(6, 3)
    with pytest.raises(ValueError, match="embeddings failed"):
        all_pairs(rows * 0, labels)
    with pytest.raises(ValueError, match="float64"):
        all_pairs(rows.astype(np.float64), labels)
    with pytest.raises(ValueError, match="half"):
        all_pairs(rows, labels, precision="halve")
    with pytest.raises(ValueError, match="between 0 and 1"):
        all_pairs(rows, labels, (1.0,))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "half"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_they_are_the_same(case: str, precision: str, small: pytest.MonkeyPatch) -> None:
    small.setattr(passes, "TILES", {"cuda": (40, 50)})
    rows, labels = CASES[case]()
    check(all_pairs(rows, labels, TARGETS, device="cuda", precision=precision), rows, labels)
