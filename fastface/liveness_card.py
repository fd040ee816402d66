"""What a liveness model needs to be used rightly: its input, its classes, and how their score is to be read."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fastface.card import Precision, read_json
from fastface.config import RunConfig
from fastface.data.attacks import LIVE, class_targets
from fastface.data.index import Index
from fastface.data.normalisation import PerColour
from fastface.liveness_settings import LivenessTask


class LiveThreshold(BaseModel):
    """A score from which on faces are taken for live, chosen on a development set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    """What it was chosen for: "eer", "bpcer 0.01", ..."""
    threshold: float
    apcer: float
    bpcer: float
    """Of the development set, at this threshold."""
    source: str
    dataset_id: str | None = None
    model_sha256: str | None = None


class LivenessCard(BaseModel):
    """The contents of model.json of a network that tells live faces from attacks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["liveness"] = "liveness"
    input_size: tuple[int, int]
    """Width, height in px."""
    colour: Literal["RGB"] = "RGB"
    layout: Literal["NCHW"] = "NCHW"
    mean: PerColour
    std: PerColour
    """The network takes (pixel - mean) / std, float32; one number, or one for each of red, green and blue."""
    crop: float | str | None = None
    """How images were cut before resizing, as meta.json of the shards has it ("context-2.7"); null: not cut."""
    classes: tuple[str, ...]
    """What the logits are of."""
    live: int = 0
    """Which of them is live."""
    patch_px: int | None = None
    """The logits are means over a grid of native patches of this side, which the network cuts itself."""
    score: Literal["probability of live"] = "probability of live"
    """softmax(logits)[live], computed in float64 and rounded to float32: more is live."""
    thresholds: list[LiveThreshold] = []
    precision: Precision = "fp32"
    """Of the file's arithmetic; its input and its output are float32 always."""
    opset: int | None = None
    """ONNX operator set of the file."""
    quantisation: dict[str, Any] = {}
    """How a narrower file was made, and what it lost beside fp32."""
    training: dict[str, Any] = {}
    """Dataset id, number of images, steps, configuration and versions."""

    @classmethod
    def read(cls, path: Path) -> "LivenessCard":
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, content: Any, where: str) -> "LivenessCard":
        """Check the contents of a card; ValueError says what is wrong with it."""
        if isinstance(content, dict) and content.get("kind") != "liveness":
            raise ValueError(f"{where} is a model of kind {content.get('kind')!r}, not one that tells live from spoof")
        try:
            return cls.model_validate(content)
        except ValueError as error:
            raise ValueError(f"{where} is not the card of a liveness model: {error}") from None


def liveness_card(config: RunConfig, index: Index) -> LivenessCard:
    """Return the card of a model trained by this configuration on this set."""
    assert isinstance(config.task, LivenessTask)
    names = class_targets(index, config.task.classes).names
    return LivenessCard(
        input_size=config.data.size,
        mean=config.data.mean,
        std=config.data.std,
        crop=index.meta.get("options", {}).get("crop"),
        classes=tuple(names),
        live=names.index(LIVE),
        patch_px=config.task.patch_px,
    )
