"""Everything task temporal can be told: what becomes of a clip's frames, what of the backbone, and the loss."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from fastface.liveness_settings import CrossEntropyLoss, FocalLoss
from fastface.section import TaskSection


class TemporalTask(TaskSection):
    """Live or spoof, from the frames of a clip: a backbone's features over time; needs data.plan clips."""

    kind: ClassVar[str] = "temporal"
    name: Literal["temporal"] = "temporal"
    over: Literal["lstm", "gru", "mean"] = "lstm"
    """What the features of the frames go through; mean knows no order, and is the baseline."""
    hidden: int = Field(default=128, ge=1)
    """lstm, gru: size of the state."""
    layers: int = Field(default=1, ge=1)
    """lstm, gru."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Before the classifier, and between the layers of a recurrent network."""
    readout: Literal["last", "mean"] = "last"
    """lstm, gru: classify by the output at the last frame, or by the mean of those at all frames."""
    differences: Literal["none", "features", "pixels"] = "none"
    """Give each frame beside its features the absolute differences from the frame before: of features, or of pixels as
    means over a grid of 4x4 cells."""
    freeze_backbone: bool = False
    """Keep what model.weights filled as it is, with the statistics of its BatchNorms."""
    classes: Literal["label", "attack"] = "label"
    """What the network tells apart: live and spoof, or live and each type of attack (column `attack`). The score is the
    probability of live either way."""
    loss: Annotated[CrossEntropyLoss | FocalLoss, Field(discriminator="name")] = CrossEntropyLoss()
    """By name: cross-entropy, focal."""

    @property
    def distill(self) -> None:
        """Teachers embed faces."""
        return

    @model_validator(mode="after")
    def _consistent(self) -> "TemporalTask":
        if self.over == "mean" and self.readout != "last":
            raise ValueError("readout says what is taken of a recurrent network's outputs: over: mean has none")
        return self
