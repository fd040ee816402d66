"""What a liveness model needs to be used rightly: its input, its classes, and how their score is to be read."""

from pathlib import Path
from typing import Any, Literal, Self

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
    """What it was chosen for: eer, apcer=0.05, ..."""
    threshold: float
    apcer: float
    bpcer: float
    """Of the development set, at this threshold."""
    source: str
    dataset_id: str | None = None
    model_sha256: str | None = None


class AttackCard(BaseModel):
    """What the card of a network that tells live faces from attacks says, whether it sees images or clips."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: str
    input_size: tuple[int, int]
    """Width, height of an image, or of a frame, in px."""
    colour: Literal["RGB"] = "RGB"
    mean: PerColour
    std: PerColour
    """The network takes (pixel - mean) / std, float32; one number, or one for each of red, green and blue."""
    crop: float | str | None = None
    """How images were cut before resizing, as meta.json of the shards has it ("context-2.7"); null: not cut."""
    classes: tuple[str, ...]
    """What the logits are of."""
    live: int = 0
    """Which of them is live."""
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
    def read(cls, path: Path) -> Self:
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, content: Any, where: str) -> Self:
        """Check the contents of a card; ValueError says what is wrong with it."""
        wanted = cls.model_fields["kind"].default
        kind = content.get("kind", "recognition") if isinstance(content, dict) else None
        if kind != wanted:
            raise ValueError(f"{where} is a model of kind {kind!r}, and one of task {wanted} is wanted")
        try:
            return cls.model_validate(content)
        except ValueError as error:
            raise ValueError(f"{where} is not the card of a model of task {wanted}: {error}") from None


class LivenessCard(AttackCard):
    """The contents of model.json of a network that sees images."""

    kind: Literal["liveness"] = "liveness"
    layout: Literal["NCHW"] = "NCHW"
    patch_px: int | None = None
    """The logits are means over a grid of native patches of this side, which the network cuts itself."""


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
