"""Mixture: each source has its share of every batch, and is read in its own plan's order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastface.data.mixed_index import MixedIndex
from fastface.data.plans import Mixture, PerIdentity, Shuffled, WindowedMixture, build_plan
from fastface.plan_settings import (
    ClipsPlan,
    MinedPlan,
    PairsPlan,
    PerIdentityPlan,
    ShuffledPlan,
    WeightedPlan,
    WindowedPlan,
)
from tests.data.plans.small import small_index, two_sources

MIXED = two_sources()


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (0.7, 0.3), (1.0, 2.718)], ids=str)
@pytest.mark.parametrize("rows", [1, 3])
def test_sources_share_every_batch_and_keep_their_own_order(weights: tuple[float, float], rows: int) -> None:
    batch = 12
    plans = [PerIdentity(source, rows, rows, n) for n, source in enumerate(MIXED.sources)]
    plan = Mixture(MIXED, plans, weights, batch, seed=0)
    streams: list[list[int]] = [[], []]
    for step in range(150):
        records = plan[step].records
        for which, (start, end) in enumerate([(0, 300), (300, 390)]):
            own = records[(records >= start) & (records < end)] - start
            quota = batch / rows * weights[which] / sum(weights)
            assert np.floor(quota) <= len(own) / rows <= np.ceil(quota)
            streams[which] += own.tolist()
    for which, stream in enumerate(streams):  # of the order of time: as the plan alone would give it
        alone = plans[which].records(np.arange(len(stream) // rows)).ravel()
        assert stream == alone.tolist()
        share = weights[which] / sum(weights)
        assert abs(len(stream) / (150 * batch) - share) < 3 * rows / (150 * batch)


def test_an_epoch_is_as_many_rows_as_one_of_every_source() -> None:
    plans = [Shuffled(source.num_samples, 1, 0) for source in MIXED.sources]
    assert Mixture(MIXED, plans, [1, 5], 30, 0).steps_per_epoch == 390 // 30


SETTINGS = [
    ShuffledPlan(),
    PerIdentityPlan(images=2),
    PerIdentityPlan(images=2, scope="global"),
    WeightedPlan(column="attack"),
    PairsPlan(),
    ClipsPlan(frames=4),
    WindowedPlan(shards=2),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)
def test_every_plan_can_be_mixed(settings: object) -> None:
    plan = build_plan(settings, MIXED, 16, 3, [1.0, 1.0])  # type: ignore[arg-type]
    alone = build_plan(settings, MIXED.sources[0], 16, 3)  # type: ignore[arg-type]
    assert plan.unit == alone.unit
    slots = plan[5]
    assert (slots.records < 300).sum() == 8
    shared = getattr(plan, "rows_per_key", 1)
    assert len(set(slots.keys.tolist())) == 16 // shared
    groups = MIXED.columns["clip"][slots.records].reshape(-1, shared)
    assert (groups == groups[:, :1]).all()


def test_sources_of_one_size_are_not_shuffled_alike() -> None:
    index = MixedIndex([small_index(seed=1), small_index(seed=2)], "separate")
    records = np.concatenate([build_plan(ShuffledPlan(), index, 10, 0)[step].records for step in range(30)])
    first, second = records[records < 300], records[records >= 300] - 300
    assert (first == second).mean() < 0.1


def test_notes_say_which_source_they_are_of() -> None:
    plans = [PerIdentity(source, 9, 9, 0) for source in MIXED.sources]
    notes = Mixture(MIXED, plans, [1.0, 1.0], 18, 0).notes
    assert [note.split(": ")[0] for note in notes] == ["fake", "fake1"]
    assert notes[1] == f"fake1: {plans[1].notes[0]}"


def test_errors_say_what_does_not_go_together() -> None:
    plans = [PerIdentity(source, 2, 2, 0) for source in MIXED.sources]
    with pytest.raises(ValueError, match="each must be positive"):
        Mixture(MIXED, plans, [1.0, 0.0], 8, 0)
    with pytest.raises(ValueError, match="2 sources, 1 plans and 2 weights"):
        Mixture(MIXED, plans[:1], [1.0, 1.0], 8, 0)
    with pytest.raises(ValueError, match="batch_size 9 is not a multiple of the rows that belong together = 2"):
        Mixture(MIXED, plans, [1.0, 1.0], 9, 0)
    with pytest.raises(ValueError, match="mined takes one shard set"):
        build_plan(MinedPlan(file=Path("x")), MIXED, 8, 0)
    with pytest.raises(ValueError, match="steps_per_epoch takes one shard set"):
        build_plan(PerIdentityPlan(images=4, steps_per_epoch=9), MIXED, 8, 0)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [20.0, 1.0], [1.0, 9.0]], ids=str)
def test_windowed_sources_announce_their_shards(weights: list[float]) -> None:
    plan = build_plan(WindowedPlan(shards=2), MIXED, 24, 3, weights)
    assert isinstance(plan, WindowedMixture)
    shard_of = np.asarray(MIXED.shard)
    for step in range(60):
        announced = plan.shards_of(step)
        assert len(set(announced)) == len(announced)
        assert set(shard_of[plan[step].records].tolist()) <= set(announced)
        assert {shard >= 7 for shard in announced} == {False, True}  # the next of each source, though it rests now
