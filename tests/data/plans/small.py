"""A small index with all that plans may ask for, and every plan over it: the table of the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastface.data.index import Index
from fastface.data.mixed_index import MixedIndex
from fastface.data.plans import (
    Clips,
    Mined,
    Mixture,
    Pairs,
    PerIdentity,
    Sequential,
    Shuffled,
    Weighted,
    Windowed,
)
from fastface.data.plans.neighbours import write_neighbours
from tests.data.fake_index import fake_index

BATCH = 32  # 8 processes x the largest unit below


def small_index(images: int = 300, people: int = 40, seed: int = 0, shards: int = 7) -> Index:
    """Draw an index whose people have 0 to about 20 images, in no order, with 3 attacks and clips of 1 to 9 frames."""
    rng = np.random.default_rng(seed)
    label = np.minimum(rng.exponential(people / 3, images).astype(np.int64), people - 1)
    label[label == 5] = 6  # nobody
    clip = np.repeat(np.arange(images), rng.integers(1, 10, images))[:images]
    shuffled = rng.permutation(images)
    time_ms = np.cumsum(rng.integers(20, 60, images))
    return fake_index(
        label,
        shards=shards,
        name=f"fake{seed or ''}",
        classes=[f"person {n:02d}" for n in range(people)],
        attack=rng.choice(3, images, p=[0.7, 0.2, 0.1]).astype(np.uint8),
        clip=(clip * 3 % 1001)[shuffled].astype(np.int32),
        time_ms=time_ms[shuffled].astype(np.int64),
    )


def neighbours_of(index: Index, folder: Path, seed: int = 0, width: int = 4) -> Path:
    """Write a file of random neighbours, some lists short, and weights."""
    rng = np.random.default_rng(seed)
    ids = np.full((index.num_classes, width), -1)
    for row, listed in enumerate(ids):
        others = np.setdiff1d(np.arange(index.num_classes), [row])
        length = int(rng.integers(0, width + 1))
        listed[:length] = rng.choice(others, length, replace=False)
    path = folder / f"neighbours-{seed}.npz"
    write_neighbours(path, ids, index.dataset_id, rng.uniform(0.1, 2, index.num_classes))
    return path


def two_sources() -> MixedIndex:
    return MixedIndex([small_index(300), small_index(90, 12, seed=1)], "merge-by-name")


def mixture_of(index: MixedIndex, batch: int, seed: int, weights: tuple[float, float] = (1.0, 2.0)) -> Mixture:
    plans = [PerIdentity(source, 2, 2, seed + n) for n, source in enumerate(index.sources)]
    return Mixture(index, plans, weights, batch, seed)


Build = Callable[[Index, Path, int, int], object]
EVERY_PLAN: dict[str, Build] = {
    "shuffled": lambda index, _, batch, seed: Shuffled(index.num_samples, batch, seed),
    "sequential": lambda index, _, batch, seed: Sequential(index.num_samples, batch, seed),
    "per-identity": lambda index, _, batch, seed: PerIdentity(index, 2, batch, seed),
    "per-identity-global": lambda index, _, batch, seed: PerIdentity(
        index, 4, batch, seed, scope="global", too_few="repeat"
    ),
    "weighted-label": lambda index, _, batch, seed: Weighted(index, "label", batch, seed),
    "weighted-attack": lambda index, _, batch, seed: Weighted(index, "attack", batch, seed, weights={"2": 3.0}),
    "weighted-nested": lambda index, _, batch, seed: Weighted(index, ("attack", "label"), batch, seed),
    "pairs": lambda index, _, batch, seed: Pairs(index, 0.3, batch, seed),
    "clips": lambda index, _, batch, seed: Clips(index, 2, batch, seed),
    "clips-balanced": lambda index, _, batch, seed: Clips(
        index, 2, batch, seed, duration_s=0.1, spacing="random", balance="attack", too_few="repeat"
    ),
    "clips-evaluation": lambda index, _, batch, seed: Clips(index, 2, batch, seed, evaluation=True),
    "windowed": lambda index, _, batch, seed: Windowed(index, 2, batch, seed),
    "mined": lambda index, folder, batch, seed: Mined(index, folder / "neighbours-0.npz", 2, 1, batch, seed),
    "mixture": lambda _, __, batch, seed: mixture_of(two_sources(), batch, seed),
}
FINITE = {"sequential", "clips-evaluation"}
