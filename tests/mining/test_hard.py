"""Hard negatives are those of plain loops over all rows; what is above the cap is a suspect and in no list."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Literal
from unittest.mock import patch

import numpy as np
import pytest

from fastface import dist
from fastface.mining import hard
from fastface.mining.hard import Hard, hard_negatives


def people(num: int = 240, count: int = 30, width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw images of people, some of whom look alike; two rows have no direction, and nobody has 7."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, num)
    labels[labels == 7] = 8
    centres = rng.normal(size=(count, width))
    centres[1::3] = centres[0::3][: len(centres[1::3])] + 0.5 * rng.normal(size=(len(centres[1::3]), width))
    rows = (centres[labels] + 0.6 * rng.normal(size=(num, width))).astype(np.float32)
    rows[5], rows[6] = 0, np.inf
    return rows * rng.uniform(0.2, 3, (num, 1)).astype(np.float32), labels


def cosines(rows: np.ndarray) -> list[list[float | None]]:
    wide = rows.astype(np.float64)
    good = [bool(np.isfinite(row).all() and row.any()) for row in wide]
    unit = [row / np.sqrt(sum(x * x for x in row)) if ok else row for row, ok in zip(wide, good, strict=True)]
    return [
        [float(np.float32((a * b).sum())) if good[i] and good[j] else None for j, b in enumerate(unit)]
        for i, a in enumerate(unit)
    ]


def slowly(
    rows: np.ndarray, labels: np.ndarray, count: int, neighbours: int, cap: float, per_row: int, by: str
) -> tuple[list[list[int]], dict[tuple[int, int], float]]:
    """Return the lists, and every pair above the cap with its score."""
    table = cosines(rows)
    best: dict[tuple[int, int], float] = {}
    sums: dict[tuple[int, int], float] = {}
    for i, mine in enumerate(table):
        others = sorted((-s, j) for j, s in enumerate(mine) if s is not None and labels[j] != labels[i])
        others = [(s, j) for s, j in others if -s > cap] + [(s, j) for s, j in others if -s <= cap][:per_row]
        likest: dict[int, float] = {}
        for s, j in others:
            likest[int(labels[j])] = max(-s, likest.get(int(labels[j]), -1.0))
        for other, s in likest.items():
            pair = int(labels[i]), other
            best[pair] = max(s, best.get(pair, -1.0))
            sums[pair] = sums.get(pair, 0.0) + max(s, 0.0)
    rank = best if by == "best" else {p: float(np.float32(s / (labels == p[0]).sum())) for p, s in sums.items()}
    lists = []
    for a in range(count):
        ranked = sorted((-rank[a, b], b) for b in range(count) if (a, b) in rank and best[a, b] <= cap)
        lists.append([b for _, b in ranked[:neighbours]])
    return lists, {pair: s for pair, s in best.items() if s > cap}


@pytest.mark.parametrize("by", ["best", "mean"])
@pytest.mark.parametrize(("cap", "per_row"), [(1.0, 6), (0.85, 6), (0.7, 15), (0.3, 40)])
def test_lists_and_suspects_are_what_plain_loops_give(
    by: Literal["best", "mean"], cap: float, per_row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = people()
    monkeypatch.setattr(hard, "QUERIES", 50)
    monkeypatch.setattr(hard, "SPARE", 2)
    monkeypatch.setattr(hard, "WIDEST", 100)
    found = hard_negatives(rows, labels, 30, neighbours=8, cap=cap, per_row=per_row, by=by)
    lists, above = slowly(rows, labels, 30, 8, cap, per_row, by)
    assert [[n for n in row if n >= 0] for row in found.ids.tolist()] == lists
    assert (np.isfinite(found.scores) == (found.ids >= 0)).all()
    if by == "best":
        assert found.scores[found.ids >= 0].max() <= cap
    suspects = found.suspects
    assert (suspects.first < suspects.second).all()
    assert (np.diff(suspects.scores) <= 0).all()
    table = cosines(rows)
    for a, b, score, i, j in zip(*(column.tolist() for column in suspects), strict=True):
        assert (labels[i], labels[j]) == (a, b)
        assert table[i][j] == pytest.approx(score, abs=1e-7)
        assert score == pytest.approx(max(above.get((a, b), -1), above.get((b, a), -1)), abs=1e-7)
    pairs = set(zip(suspects.first.tolist(), suspects.second.tolist(), strict=True))
    assert pairs <= {(min(p), max(p)) for p in above}
    if max(sum(p[0] == a for p in above) for a in range(30)) <= 8:  # at most 8 of each identity are listed
        assert pairs == {(min(p), max(p)) for p in above}


def test_ties_go_to_the_smaller_id_and_nobody_is_his_own_neighbour() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0) * np.arange(1, 13, dtype=np.float32)[:, None]
    found = hard_negatives(rows, np.arange(12), 12, neighbours=5, cap=1.0)
    for a in range(12):
        same = [b for b in range(12) if b // 4 == a // 4 and b != a]
        assert found.ids[a].tolist() == same + [b for b in range(12) if b // 4 != a // 4][:2]
    assert not len(found.suspects)
    found = hard_negatives(rows, np.arange(12), 12, neighbours=5, cap=0.99)
    assert len(found.suspects) == 3 * 6


def test_fewer_identities_than_neighbours() -> None:
    rows = np.array([[1, 0], [1, 1], [0, 0]], np.float32)
    found = hard_negatives(rows, np.arange(3), 3, neighbours=4, cap=0.9)
    assert found.ids.tolist() == [[1, -1, -1, -1], [0, -1, -1, -1], [-1] * 4]
    assert found.scores[0].tolist() == [pytest.approx(0.5**0.5, abs=1e-7), -np.inf, -np.inf, -np.inf]


class Together:
    """Threads in the place of processes: gather_rows of fastface.dist among them."""

    def __init__(self, world: int) -> None:
        self.world, self.barrier, self.parts = world, threading.Barrier(world), {}
        self.here = threading.local()

    def gather_rows(self, rows: np.ndarray) -> list[np.ndarray]:
        self.parts[self.here.rank] = rows
        self.barrier.wait()
        found = [self.parts[rank] for rank in range(self.world)]
        self.barrier.wait()
        return found

    def run(self, work: list) -> list[Hard]:
        results: dict[int, Hard] = {}

        def each(rank: int) -> None:
            self.here.rank = rank
            results[rank] = work[rank]()

        threads = [threading.Thread(target=each, args=(rank,)) for rank in range(self.world)]
        with patch.object(dist, "gather_rows", self.gather_rows), patch.object(dist, "world", lambda: self.world):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return [results[rank] for rank in range(self.world)]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("each", [1, 3])
def test_rows_in_several_processes_give_the_lists_of_one(
    world: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hard, "QUERIES", 20)
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(50 * each, 8)).astype(np.float32)
    rows[: 10 * each : 2] = 0
    labels = np.repeat(np.arange(50), each)
    alone = hard_negatives(rows, labels, 50, neighbours=6, cap=0.6)
    cuts = [50 * rank // world * each for rank in range(world + 1)]
    work = [
        lambda low=low, high=high: hard_negatives(rows[low:high], labels, 50, neighbours=6, cap=0.6, first=low)
        for low, high in pairwise(cuts)
    ]
    for found in Together(world).run(work):
        np.testing.assert_array_equal(found.ids, alone.ids)
        np.testing.assert_array_equal(found.scores, alone.scores)
        for mine, theirs in zip(found.suspects, alone.suspects, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert len(alone.suspects)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"cap": 1.5}, "cap is 1.5; a cosine"), ({"neighbours": 0}, "0 neighbours, 0 of each row")],
)
def test_what_makes_no_sense(change: dict, message: str) -> None:
    rows, labels = people()
    with pytest.raises(ValueError, match=message):
        hard_negatives(rows, labels, 30, **{"neighbours": 5, "cap": 0.7, **change})
