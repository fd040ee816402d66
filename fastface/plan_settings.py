"""Everything a plan can be told: `data.plan` of the YAML, one section per plan, chosen by its name."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from fastface.section import Section


class ShuffledPlan(Section):
    """Every image once an epoch."""

    name: Literal["shuffled"] = "shuffled"


class PerIdentityPlan(Section):
    """P identities a batch, K images of each; every identity once an epoch. P = train.batch_size / images."""

    name: Literal["per-identity"] = "per-identity"
    images: int = Field(default=4, ge=1)
    """Images of each identity (K)."""
    scope: Literal["rank", "global"] = "rank"
    """rank: the images of an identity share a micro-batch, for losses that look at one; global: a batch."""
    too_few: Literal["filter", "repeat", "refuse"] = "filter"
    """Identities with fewer images: leave them out, repeat their images, or refuse to start."""
    steps_per_epoch: int | None = Field(default=None, gt=0)
    """What an epoch is, for schedules that are published so (facenet's 1,000 batches); null: every identity once."""


class WeightedPlan(Section):
    """Every value of a column, such as every class or attack type, has its share of each batch."""

    name: Literal["weighted"] = "weighted"
    column: str = "label"
    """label, or another column of the index."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Value (or class name) -> weight; 1 for those not named, 0 leaves a value out."""


class PairsPlan(Section):
    """Rows 2i and 2i + 1 are a pair."""

    name: Literal["pairs"] = "pairs"
    genuine: float = Field(default=0.5, ge=0, le=1)
    """Share of pairs of one identity."""
    pairs_per_epoch: int | None = Field(default=None, gt=0)
    """null: half as many as there are images."""


class ClipsPlan(Section):
    """A few frames of each video clip, as neighbouring rows; every clip once an epoch."""

    name: Literal["clips"] = "clips"
    frames: int = Field(default=8, ge=1)
    """Frames taken of a clip, spread evenly over its time."""
    too_few: Literal["filter", "repeat", "refuse"] = "filter"
    """Clips with fewer frames: leave them out, repeat their frames, or refuse to start."""


class WindowedPlan(Section):
    """Every image once an epoch, shard by shard: for disks that hate random reads, and for remote shards."""

    name: Literal["windowed"] = "windowed"
    shards: int = Field(default=16, ge=1)
    """Shards open at a time, among whose images the order is random."""


class MinedPlan(Section):
    """Identities that look alike in one batch: P / (1 + neighbours) seeds with their neighbours, K images of each."""

    name: Literal["mined"] = "mined"
    file: Path
    """The .npz that a miner wrote: neighbours of every identity, and weights."""
    images: int = Field(default=4, ge=1)
    """Images of each identity (K)."""
    neighbours: int = Field(default=3, ge=1)
    """Neighbours that accompany a seed, drawn from those that the file lists."""
    scope: Literal["rank", "global"] = "rank"
    """rank: a seed and its neighbours share a micro-batch; global: a batch."""
    too_few: Literal["filter", "repeat", "refuse"] = "filter"
    """Identities with fewer images: leave them out, repeat their images, or refuse to start."""


PlanSettings = ShuffledPlan | PerIdentityPlan | WeightedPlan | PairsPlan | ClipsPlan | WindowedPlan | MinedPlan
