"""What a model of clips needs to be used rightly: its frames, beside what every model of live and spoof says."""

from typing import Literal

from fastface.config import RunConfig
from fastface.data.attacks import LIVE, class_targets
from fastface.data.index import Index
from fastface.liveness_card import AttackCard
from fastface.plan_settings import ClipsPlan
from fastface.temporal_settings import TemporalTask


class TemporalCard(AttackCard):
    """The contents of model.json of a network that sees clips; of several windows of a video the mean score counts."""

    kind: Literal["temporal"] = "temporal"
    layout: Literal["NTCHW"] = "NTCHW"
    frames: int
    """T: one from the middle of each of so many equal segments of a clip's time."""
    duration_s: float | None = None
    """These segments cover so much of a clip, its middle; null: all of it."""


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
