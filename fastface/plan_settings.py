"""Everything a plan can be told: `data.plan` of the YAML, one section per plan, chosen by its name."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

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
    columns: tuple[str, ...] = ()
    """Instead of column, several, one within the other: [label, attack] is half live, half spoof, and within spoof
    every attack type alike."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Value (or class name) -> weight; 1 for those not named, 0 leaves a value out. With columns, among those of the
    same values before."""

    @model_validator(mode="after")
    def _consistent(self) -> "WeightedPlan":
        if self.columns and self.column != "label":
            raise ValueError(f"give either column or columns, not {self.column!r} and {list(self.columns)}")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns {list(self.columns)} name one twice")
        return self


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
    """Frames taken of a clip: one from each of so many equal segments of its time."""
    spacing: Literal["even", "random"] = "even"
    """even: at one part of all segments, drawn anew for each visit, so that the rhythm is kept; random: at a part drawn
    for each segment (temporal segment networks)."""
    duration_s: float | None = Field(default=None, gt=0)
    """Take the frames from so many seconds of a clip, that start anywhere in it; null: from all of it."""
    balance: str | None = None
    """A column, such as label or attack, whose values share each batch equally; null: every clip once an epoch."""
    too_few: Literal["filter", "repeat", "refuse"] = "filter"
    """Clips with fewer frames, or shorter than duration_s: leave them out, repeat their frames (and take them whole),
    or refuse to start."""


class WindowedPlan(Section):
    """Every image once an epoch, shard by shard: for disks that hate random reads, and for remote shards."""

    name: Literal["windowed"] = "windowed"
    shards: int = Field(default=16, ge=1)
    """Shards open at a time, among whose images the order is random."""


class MinedPlan(Section):
    """Identities that look alike in one batch: P / (1 + neighbours) seeds with their neighbours, K images of each."""

    name: Literal["mined"] = "mined"
    file: Path | None = None
    """The .npz that tools/mine.py wrote: neighbours of every identity, and weights. With refresh_steps it holds until
    the first of them; null: neighbours are drawn at random until then."""
    images: int = Field(default=4, ge=1)
    """Images of each identity (K)."""
    neighbours: int = Field(default=3, ge=1)
    """Neighbours that accompany a seed, drawn from those that are listed for it."""
    scope: Literal["rank", "global"] = "rank"
    """rank: a seed and its neighbours share a micro-batch; global: a batch."""
    too_few: Literal["filter", "repeat", "refuse"] = "filter"
    """Identities with fewer images: leave them out, repeat their images, or refuse to start."""
    pairs: bool = False
    """For task pair, with images 2 and neighbours 1: every second group is two genuine pairs, the others are two of a
    seed and its neighbour."""
    refresh_steps: int | None = Field(default=None, gt=0)
    """Mine anew every so many steps, with what is learned by then; null: never."""
    source: Literal["head", "embeddings"] = "head"
    """What is mined: the class centres of task arcface, which cost nothing, or the mean embeddings of identities."""
    source_images: int | None = Field(default=None, gt=0)
    """source embeddings: so many images of each identity, drawn anew each time; null: all of them."""
    listed: int = Field(default=50, ge=1)
    """Neighbours that mining lists for each identity."""
    cap: float = Field(default=0.7, gt=-1, le=1)
    """Identities whose cosine is above this are probably one person: counted, and in no list."""

    @model_validator(mode="after")
    def _consistent(self) -> "MinedPlan":
        if self.file is None and self.refresh_steps is None:
            raise ValueError(
                "give a file of neighbours (tools/mine.py writes it), or refresh_steps, to mine on the way"
            )
        if self.pairs and (self.images, self.neighbours) != (2, 1):
            raise ValueError("pairs are of 2 images of a seed and 2 of its neighbour: set images: 2, neighbours: 1")
        if self.refresh_steps is not None and self.listed < self.neighbours:
            raise ValueError(f"listed {self.listed} is less than neighbours {self.neighbours}")
        return self


PlanSettings = ShuffledPlan | PerIdentityPlan | WeightedPlan | PairsPlan | ClipsPlan | WindowedPlan | MinedPlan
