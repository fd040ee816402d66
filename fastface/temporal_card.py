"""What a model of clips needs to be used rightly: its frames, its classes, and how their score is to be read."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fastface.card import Precision, read_json
from fastface.config import RunConfig
from fastface.data.attacks import LIVE, class_targets
from fastface.data.index import Index
from fastface.data.normalisation import PerColour
from fastface.liveness_card import LiveThreshold
from fastface.plan_settings import ClipsPlan
from fastface.temporal_settings import TemporalTask


class TemporalCard(BaseModel):
    """The contents of model.json of a network that tells clips of live faces from clips of attacks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["temporal"] = "temporal"
    input_size: tuple[int, int]
    """Width, height of a frame in px."""
    colour: Literal["RGB"] = "RGB"
    layout: Literal["NTCHW"] = "NTCHW"
    mean: PerColour
    std: PerColour
    """The network takes (pixel - mean) / std, float32; one number, or one for each of red, green and blue."""
    crop: float | str | None = None
    """How frames were cut before resizing, as given to make_shards --crop or --align; null: not cut."""
    frames: int
    """T: one from the middle of each of so many equal segments of a clip's time."""
    duration_s: float | None = None
    """These segments cover so much of a clip, its middle; null: all of it."""
    classes: tuple[str, ...]
    """What the logits are of."""
    live: int = 0
    """Which of them is live."""
    score: Literal["probability of live"] = "probability of live"
    """softmax(logits)[live], computed in float64 and rounded to float32: more is live. Of several windows of a video
    the mean counts."""
    thresholds: list[LiveThreshold] = []
    precision: Precision = "fp32"
    """Of the file's arithmetic; its input and its output are float32 always."""
    opset: int | None = None
    """ONNX operator set of the file."""
    quantisation: dict[str, Any] = {}
    """How a narrower file was made, and what it lost beside fp32."""
    training: dict[str, Any] = {}
    """Dataset id, number of frames, steps, configuration and versions."""

    @classmethod
    def read(cls, path: Path) -> "TemporalCard":
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, content: Any, where: str) -> "TemporalCard":
        """Check the contents of a card; ValueError says what is wrong with it."""
        kind = content.get("kind", "recognition") if isinstance(content, dict) else None
        if kind != "temporal":
            raise ValueError(f"{where} is a model of kind {kind!r}, not one that tells live clips from attacks")
        try:
            return cls.model_validate(content)
        except ValueError as error:
            raise ValueError(f"{where} is not the card of a model of clips: {error}") from None


def temporal_card(config: RunConfig, index: Index) -> TemporalCard:
    """Return the card of a model trained by this configuration on this set."""
    plan = config.data.plan
    assert isinstance(config.task, TemporalTask)
    assert isinstance(plan, ClipsPlan)
    names = class_targets(index, config.task.classes).names
    return TemporalCard(
        input_size=config.data.size,
        mean=config.data.mean,
        std=config.data.std,
        crop=index.meta.get("options", {}).get("crop"),
        frames=plan.frames,
        duration_s=plan.duration_s,
        classes=tuple(names),
        live=names.index(LIVE),
    )
