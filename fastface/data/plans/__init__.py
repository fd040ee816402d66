"""Settings and an index -> the plan of a run: the one table of plans that training can choose from.

Sequential, for evaluation, and Mixture, which follows from data.sources, are made by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fastface.data.index import Index
from fastface.data.mixed_index import MixedIndex
from fastface.data.plan import STREAMS, Plan, hash_numbers
from fastface.data.plans.clips import Clips
from fastface.data.plans.drawn import Drawn
from fastface.data.plans.mined import Mined, Refreshing
from fastface.data.plans.mixture import Mixture, WindowedMixture
from fastface.data.plans.pairs import Pairs
from fastface.data.plans.per_identity import PerIdentity
from fastface.data.plans.shuffled import Sequential, Shuffled
from fastface.data.plans.weighted import Weighted
from fastface.data.plans.windowed import Windowed
from fastface.plan_settings import PlanSettings

__all__ = ["PLANS", "Clips", "Mined", "Mixture", "Pairs", "PerIdentity", "Sequential", "Shuffled", "Weighted"]
__all__ += ["Windowed", "WindowedMixture", "build_plan"]  # pyright: ignore


class Kind(NamedTuple):
    """A row of the table."""

    build: Callable[[Any, Index, int, int], Drawn]  # settings, index, batch_size, seed
    rows: Callable[[Any], int] | None = lambda settings: 1  # drawn together; None: not from several sources
    mix: type[Mixture] = Mixture  # what they make up where there are several


PLANS = {
    "shuffled": Kind(lambda s, index, batch, seed: Shuffled(index.num_samples, batch, seed)),
    "per-identity": Kind(
        lambda s, index, batch, seed: PerIdentity(
            index, s.images, batch, seed, scope=s.scope, too_few=s.too_few, steps_per_epoch=s.steps_per_epoch
        ),
        lambda s: s.images,
    ),
    "weighted": Kind(
        lambda s, index, batch, seed: Weighted(index, s.columns or s.column, batch, seed, weights=s.weights)
    ),
    "pairs": Kind(
        lambda s, index, batch, seed: Pairs(index, s.genuine, batch, seed, pairs_per_epoch=s.pairs_per_epoch),
        lambda s: 2,
    ),
    "clips": Kind(
        lambda s, index, batch, seed: Clips(
            index,
            s.frames,
            batch,
            seed,
            too_few=s.too_few,
            duration_s=s.duration_s,
            spacing=s.spacing,
            balance=s.balance,
        ),
        lambda s: s.frames,
    ),
    "windowed": Kind(
        lambda s, index, batch, seed: Windowed(index, s.shards, batch, seed), lambda s: 1, WindowedMixture
    ),
    "mined": Kind(
        lambda s, index, batch, seed: Mined(
            index,
            s.file,
            s.images,
            s.neighbours,
            batch,
            seed,
            scope=s.scope,
            too_few=s.too_few,
            pairs=s.pairs,
            refreshing=Refreshing(s.refresh_steps, s.source, s.source_images, s.listed, s.cap)
            if s.refresh_steps is not None
            else None,
        ),
        None,
    ),
}


def build_plan(
    settings: PlanSettings, index: Index, batch_size: int, seed: int, weights: Sequence[float] | None = None
) -> Plan:
    """Build the plan of these settings over `index`: where it has several sources, one over each, mixed by `weights`.

    Raises:
        ValueError: where settings, batch size and what the index holds do not go together.
    """
    kind = PLANS[settings.name]
    if not isinstance(index, MixedIndex):
        return kind.build(settings, index, batch_size, seed)
    if kind.rows is None:
        raise ValueError(f"data.plan {settings.name} takes one shard set: set data.shards, not data.sources")
    if getattr(settings, "steps_per_epoch", None):
        raise ValueError("data.plan.steps_per_epoch takes one shard set: set data.shards, not data.sources")
    rows = kind.rows(settings)
    plans = [
        kind.build(settings, source, rows, hash_numbers(seed, STREAMS["source"], number))
        for number, source in enumerate(index.sources)
    ]
    return kind.mix(index, plans, weights or [1.0] * len(plans), batch_size, seed)
