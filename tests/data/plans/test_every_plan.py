"""What holds for every plan: one sequence for any number of processes, from any step, that its description names."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.data.index import Index
from fastface.data.mixed_index import MixedIndex
from fastface.data.plan import Slots
from fastface.data.plans import Clips, Mined, Mixture, Pairs, PerIdentity, Shuffled, Weighted, Windowed
from fastface.data.plans.neighbours import write_neighbours
from tests.data.fake_index import fake_index
from tests.data.plans.small import BATCH, EVERY_PLAN, FINITE, mixture_of, neighbours_of, small_index, two_sources

Make = Callable[..., Any]
INDEX = small_index()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("neighbours")
    neighbours_of(INDEX, path)
    return path


@pytest.fixture(params=EVERY_PLAN)
def make(request: pytest.FixtureRequest, folder: Path) -> Make:
    """Build a fresh plan, with nothing remembered."""
    build = EVERY_PLAN[request.param]

    def fresh(batch: int = BATCH, seed: int = 5) -> Any:
        return build(INDEX, folder, batch, seed)

    fresh.finite = request.param in FINITE  # type: ignore[attr-defined]
    return fresh


def rows(slots: Slots) -> tuple[int, int, list[int], list[int]]:
    return slots.step, slots.first, slots.records.tolist(), slots.keys.tolist()


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_any_number_of_processes_sees_the_same_global_batch(make: Make, world: int) -> None:
    alone, ranks = make(), [make() for _ in range(world)]
    assert BATCH // world % alone.unit == 0
    for step in range(alone.steps_per_epoch * (1 if make.finite else 2)):
        whole = alone[step]
        if len(whole.records) < BATCH:  # the short end of an evaluation
            continue
        parts = [plan[step].split(rank, world) for rank, plan in enumerate(ranks)]
        assert [part.first for part in parts] == [rank * BATCH // world for rank in range(world)]
        assert np.concatenate([part.records for part in parts]).tolist() == whole.records.tolist()
        assert np.concatenate([part.keys for part in parts]).tolist() == whole.keys.tolist()


def test_resuming_at_every_step_is_going_through(make: Make) -> None:
    plan = make()
    steps = plan.steps_per_epoch * (1 if make.finite else 2)
    through = [rows(plan[step]) for step in range(steps)]
    for start in range(steps):
        fresh = make()
        assert [rows(fresh[step]) for step in range(start, steps)] == through[start:]
    assert [rows(plan[step]) for step in reversed(range(steps))] == through[::-1]  # going back is allowed


def test_rows_are_records_and_keys_are_of_the_slot(make: Make) -> None:
    plan, keys = make(), set()
    shared = getattr(plan, "rows_per_key", 1)
    size = len(two_sources()) if plan.describe()["name"] == "mixture" else len(INDEX)
    for step in range(plan.steps_per_epoch):
        slots = plan[step]
        assert slots.records.dtype == np.int64
        assert slots.keys.dtype == np.uint64
        assert len(slots.records) == len(slots.keys) <= BATCH
        assert 0 <= slots.records.min()
        assert slots.records.max() < size
        groups = slots.keys.reshape(-1, shared)
        assert (groups == groups[:, :1]).all()
        keys |= set(groups[:, 0].tolist())
    count = sum(len(plan[step].records) for step in range(plan.steps_per_epoch))
    assert len(keys) == count // shared


def test_seeds_and_epochs_differ(make: Make) -> None:
    if make.finite:
        assert plan_records(make(seed=1)) == plan_records(make(seed=2))  # evaluation draws nothing
        return
    plan = make()
    epochs = [
        [plan[n].records.tolist() for n in range(e * plan.steps_per_epoch, (e + 1) * plan.steps_per_epoch)]
        for e in range(2)
    ]
    other = plan_records(make(seed=6))
    assert epochs[0] != epochs[1]
    assert epochs[0] != other


def plan_records(plan: Any) -> list[list[int]]:
    return [plan[step].records.tolist() for step in range(plan.steps_per_epoch)]


def test_steps_before_the_first_are_refused(make: Make) -> None:
    with pytest.raises(IndexError, match="count from 0"):
        make()[-1]


def test_the_end_of_an_evaluation_is_refused(folder: Path) -> None:
    for name in FINITE:
        plan: Any = EVERY_PLAN[name](INDEX, folder, BATCH, 0)
        with pytest.raises(IndexError, match=f"end after {plan.steps_per_epoch} steps"):
            plan[plan.steps_per_epoch]


def test_equal_descriptions_are_equal_plans_and_others_differ(folder: Path) -> None:
    other = neighbours_of(INDEX, folder, seed=1)
    mined = folder / "neighbours-0.npz"
    mixed = two_sources()

    def variations() -> list[Any]:
        plans: list[Any] = [EVERY_PLAN[name](INDEX, folder, BATCH, seed) for name in EVERY_PLAN for seed in (0, 1)]
        plans += [build(INDEX, folder, 2 * BATCH, 0) for name, build in EVERY_PLAN.items() if "global" not in name]
        return [
            *plans,
            Shuffled(301, BATCH, 0),
            PerIdentity(INDEX, 4, BATCH, 0),
            PerIdentity(INDEX, 2, BATCH, 0, scope="global"),
            PerIdentity(INDEX, 2, BATCH, 0, too_few="repeat"),
            Weighted(INDEX, "attack", BATCH, 0),
            Weighted(INDEX, "attack", BATCH, 0, weights={"2": 2.0}),
            Pairs(INDEX, 0.5, BATCH, 0),
            Pairs(INDEX, 0.3, BATCH, 0, pairs_per_epoch=1000),
            Clips(INDEX, 4, BATCH, 0),
            Clips(INDEX, 2, BATCH, 0, spacing="random"),
            Clips(INDEX, 2, BATCH, 0, duration_s=0.05),
            Clips(INDEX, 2, BATCH, 0, balance="label"),
            Clips(INDEX, 2, BATCH, 0, evaluation=True, windows=2),
            Clips(INDEX, 2, BATCH, 0, too_few="repeat"),
            Windowed(INDEX, 3, BATCH, 0),
            Mined(INDEX, mined, 4, 1, BATCH, 0),
            Mined(INDEX, mined, 2, 3, BATCH, 0),
            Mined(INDEX, other, 2, 1, BATCH, 0),
            Mined(INDEX, mined, 2, 1, BATCH, 0, scope="global"),
            mixture_of(mixed, BATCH, 0, (1.0, 3.0)),
        ]

    once, twice = ([json.dumps(plan.describe(), sort_keys=True) for plan in variations()] for _ in range(2))
    assert once == twice
    assert len(set(once)) == len(once)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Path]:
    """Two million records mapped from files (42 million were measured by hand)."""
    num, people, rng = 2_000_000, 100_000, np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("large")
    index = fake_index(
        rng.integers(0, people, num),
        shards=200,
        folder=folder,
        attack=rng.integers(0, 10, num).astype(np.int32),
        clip=np.arange(num, dtype=np.int32) // 30,
        time_ms=np.arange(num) % 30 * 40,
    )
    ids = (np.arange(people)[:, None] + np.arange(1, 9)) % people
    write_neighbours(folder / "neighbours.npz", ids, index.dataset_id)
    return index, folder


LARGE: dict[str, Callable[[Index, Path], Any]] = {
    "shuffled": lambda index, _: Shuffled(index.num_samples, 480, 0),
    "per-identity": lambda index, _: PerIdentity(index, 4, 480, 0),
    "weighted-label": lambda index, _: Weighted(index, "label", 480, 0),
    "weighted-attack": lambda index, _: Weighted(index, "attack", 480, 0),
    "pairs": lambda index, _: Pairs(index, 0.5, 480, 0),
    "clips": lambda index, _: Clips(index, 8, 480, 0),
    "clips-balanced": lambda index, _: Clips(index, 8, 480, 0, duration_s=0.8, spacing="random", balance="attack"),
    "windowed": lambda index, _: Windowed(index, 16, 480, 0),
    "mined": lambda index, folder: Mined(index, folder / "neighbours.npz", 4, 3, 480, 0),
    "mixture": lambda index, _: Mixture(
        MixedIndex([index, index], "merge-by-name"), [PerIdentity(index, 4, 4, seed) for seed in (0, 1)], [1, 3], 480, 0
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_sets_start_at_once_at_any_step(large: tuple[Index, Path], name: str) -> None:
    start = time.process_time()
    plan = LARGE[name](*large)
    slots = [plan[0], plan[10**9]]
    assert time.process_time() - start < 1  # one CPU second for 2 million; what grows with them is named in notes
    assert all(len(s.records) == 480 and s.records.max() < 4_000_000 for s in slots)
    tracemalloc.start()
    try:
        again = LARGE[name](*large)
        assert rows(again[10**9]) == rows(slots[1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6  # bytes: 42 million records with 2 million people may take 20 times as much of what grows
