"""Plans through the real loader: the same rows, pixels and shared draws for 1, 2 and 4 processes, from any step."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastface.data.augment import Augment
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.mixed_index import MixedIndex
from fastface.data.plans import Clips, Mixture, Pairs, PerIdentity, Weighted, Windowed
from tests.data import tiny

BATCH = 16
STEPS = 6


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Index]:
    """Two small sets of real JPEGs; each person is two clips."""
    found = []
    for people, images in [(5, 8), (4, 6)]:
        index = tiny.make_shards(tmp_path_factory.mktemp("set"), people, images)
        clip = (index.label * 2 + np.arange(len(index)) % 2).astype(np.int32)
        more = {"clip": clip, "time_ms": np.arange(len(index), dtype=np.int64) * 40}
        found.append(dataclasses.replace(index, columns=index.columns | more))
    return found


PLANS: dict[str, Callable[[list[Index]], tuple[Index, Any]]] = {
    "per-identity": lambda s: (s[0], PerIdentity(s[0], 4, BATCH, 1)),
    "weighted": lambda s: (s[0], Weighted(s[0], "label", BATCH, 1)),
    "pairs": lambda s: (s[0], Pairs(s[0], 0.5, BATCH, 1)),
    "clips": lambda s: (s[0], Clips(s[0], 2, BATCH, 1)),
    "windowed": lambda s: (s[0], Windowed(s[0], 2, BATCH, 1)),
    "mixture": lambda s: (
        (index := MixedIndex(s, "merge-by-name")),
        Mixture(index, [PerIdentity(source, 2, 2, n) for n, source in enumerate(s)], [3.0, 1.0], BATCH, 1),
    ),
}


def rows_of(index: Index, plan: Any, start: int, **options: Any) -> list[tuple]:
    """Deliver steps start to STEPS; a row each: step, record, label, checksum of its pixels."""
    defaults = {"augment": Augment(0.5), "decoder": "torch", "size": (tiny.WIDTH, tiny.HEIGHT), "micro_batch": 4}
    rows = []
    with Loader(index, plan, **(defaults | options)) as loader:
        for batch in loader.batches(start, STEPS):
            pixels = [zlib.crc32(image.contiguous().numpy()) for image in batch.images]
            rows += zip([batch.step] * 4, batch.records.tolist(), batch.labels.tolist(), pixels, strict=True)
    return rows


@pytest.mark.parametrize("name", PLANS)
def test_the_same_global_batches_for_any_world_and_start(sources: list[Index], name: str) -> None:
    whole = rows_of(*PLANS[name](sources), 0)
    index, plan = PLANS[name](sources)
    for n, (step, record, label, _) in enumerate(whole):
        assert (step, record) == (n // BATCH, int(plan[step].records[n % BATCH]))
        assert label == int(index.label[record])
    for world, start in [(2, 0), (4, 3)]:
        ranks = [rows_of(*PLANS[name](sources), start, rank=rank, world=world) for rank in range(world)]
        for step in range(start, STEPS):
            together = [row for rank in ranks for row in rank if row[0] == step]
            assert together == whole[step * BATCH : (step + 1) * BATCH]


def test_frames_of_a_clip_are_flipped_alike(sources: list[Index]) -> None:
    _, plan = PLANS["clips"](sources)
    flipped = []
    for step in range(20):
        flips = Augment(0.5).draw(plan[step]).flip.reshape(-1, 2)
        assert (flips[:, 0] == flips[:, 1]).all()
        flipped += flips[:, 0].tolist()
    assert 40 < sum(flipped) < 120


def test_a_micro_batch_may_not_part_what_belongs_together(sources: list[Index]) -> None:
    for name in ("pairs", "per-identity", "clips", "mixture"):
        index, plan = PLANS[name](sources)
        with pytest.raises(ValueError, match=f"would part rows that belong together: take a multiple of {plan.unit}"):
            rows_of(index, plan, 0, micro_batch=1)
