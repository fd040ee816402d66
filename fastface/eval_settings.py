"""Everything an evaluation during training can be told: `eval` of the YAML, and the sets of pairs that it names."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from fastface.section import ColumnValues, Folders, Section


class EvalSet(Section):
    """Pairs to verify: images (shard set, folder or .tar) with a pairs file or a number, or a .bin file."""

    images: Path | None = None
    pairs: int | Path = 100_000
    """A pairs file, or how many pairs to sample from the shard set's labels."""
    bin: Path | None = None
    """An InsightFace pair file."""
    embeddings: Folders = ()
    """For tasks match and fusion, instead of images: a folder of embeddings, or as many as it was trained on."""
    drawn: Literal["val", "test"] | None = None
    """For task fusion with task.synthetic: which of the people that it draws."""
    crop: float | Literal["as-trained", "none"] = "as-trained"
    """How a folder's or archive's images are cut before resizing: a central fraction, as the training shards were,
    or not at all. Shards and .bin files are taken as they are."""
    only: ColumnValues = Field(default_factory=dict)
    """Of a shard set, column -> value or values: only the images that have one of them, as in data.only."""
    without: ColumnValues = Field(default_factory=dict)
    """Of a shard set: all images but those, as in data.without."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Of the shards that are trained on with this data.held_out: only the share that training leaves out."""
    windows: int = Field(default=1, ge=1)
    """For task temporal: score so many windows of each clip, spread evenly, and take their mean."""

    @model_validator(mode="after")
    def _consistent(self) -> "EvalSet":
        if sum(map(bool, (self.images, self.bin, self.embeddings, self.drawn))) != 1:
            more = " or embeddings" if self.embeddings else " or drawn" if self.drawn else ""
            raise ValueError(f"give either images (with pairs) or bin{more}")
        if (self.only or self.without or self.held_out) and self.images is None:
            raise ValueError("only, without and held_out select of a shard set: name one in images")
        return self


class EvalConfig(Section):
    sets: dict[str, EvalSet] = Field(default_factory=dict)
    """Name -> pairs. The name prefixes the metrics: lfw/acc. null takes a set of an earlier file away."""
    every_epochs: float | None = Field(default=1.0, gt=0)
    """null: only at the end."""
    best_metric: str | None = None
    """Which metric chooses the best checkpoint, e.g. lfw/acc or val/tar_1e-3; null: the last is the best."""
    patience: int | None = Field(default=None, gt=0)
    """Stop after so many evaluations without a better best_metric; null: never."""
    flip: Literal["none", "sum", "concat"] = "none"
    """Also embed the mirrored image, and add or append its embedding."""
    centre: bool = False
    """Subtract the mean embedding of the other folds before comparing."""
    batch_size: int = Field(default=128, gt=0)
    seed: int = 0
    """Of the sampled pairs."""
    leakage: Literal["refuse", "tell"] = "refuse"
    """Tasks liveness and temporal: persons, clips or images that are trained on and in an evaluation set as well, which
    makes figures too good, are refused, or only told."""

    @field_validator("sets", mode="before")
    @classmethod
    def _without_those_taken_away(cls, sets: Any) -> Any:
        return {name: pairs for name, pairs in sets.items() if pairs is not None} if isinstance(sets, dict) else sets

    @model_validator(mode="after")
    def _consistent(self) -> "EvalConfig":
        if self.patience and not self.best_metric:
            raise ValueError("patience needs best_metric")
        if self.best_metric and self.best_metric.split("/")[0] not in self.sets:
            raise ValueError(
                f"best_metric {self.best_metric!r} names no set of eval.sets ({', '.join(self.sets) or 'none'})"
            )
        return self
