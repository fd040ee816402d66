"""Kind of model that tells live from attacks -> what export must know of it: the one table of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fastface.checkpoint import Checkpoint
from fastface.clip_scorer import ClipScorer, module_clips, temporal_network
from fastface.config import RunConfig
from fastface.data.image_sets import ImageSet, ShardImages
from fastface.data.index import Index
from fastface.eval_settings import EvalSet
from fastface.liveness_card import LivenessCard
from fastface.liveness_evaluation import AttackSet, open_attacks, score_logits
from fastface.liveness_scorer import LivenessScorer, liveness_network, module_liveness
from fastface.predictor import onnx_function
from fastface.ship.quantisation import RangeImages, draw_images
from fastface.ship.ranges import training_index
from fastface.temporal_card import TemporalCard
from fastface.temporal_evaluation import Windows, open_clips, score_windows, windows_of


class AttackModel(Protocol):
    """What scores images or clips."""

    card: Any

    def logits(self, pictures: np.ndarray, /) -> np.ndarray:
        """Return logits [B, C] of uint8 images or clips."""
        ...

    def prepare(self, pictures: np.ndarray, /) -> np.ndarray:
        """Return what the network takes."""
        ...


class AttackPictures(NamedTuple):
    """A development set, whatever its pictures are."""

    pictures: ImageSet  # uint8 [H, W, 3], of clips [T, H, W, 3]
    live: np.ndarray  # bool [N]
    attack: list[str] | None  # of each
    clip: np.ndarray | None  # int64 [N]
    about: str
    dataset_id: str
    opened: Any
    """As its own kind has it."""


class AttackKind(NamedTuple):
    """A row of the table."""

    inputs: str
    """The name of the file's input."""
    card_of: Callable[[Checkpoint], Any]
    network: Callable[[Checkpoint, Any], nn.Module]
    """Builds what ships, trained."""
    model: Callable[[Checkpoint, Any], AttackModel]
    open: Callable[[Path, Any], AttackModel]
    """Opens an .onnx file."""
    shape: Callable[[Any], tuple[int, ...]]
    """Of a picture, uint8."""
    example: Callable[[Any], Tensor]
    """What the network takes, two of them."""
    open_set: Callable[[EvalSet, Any], AttackPictures]
    score: Callable[..., np.ndarray]
    """(AttackPictures, AttackModel, batch=) -> logits [N, C]."""
    range_images: Callable[[RunConfig, Any, Path | None, int], RangeImages]
    """Draws the pictures whose activations set int8's ranges."""


def _liveness_set(settings: EvalSet, card: LivenessCard) -> AttackPictures:
    opened: AttackSet = open_attacks(settings, card)
    identity = opened.images.index.dataset_id
    return AttackPictures(opened.images, opened.live, opened.attack, opened.clip, opened.about, identity, opened)


def _clip_set(settings: EvalSet, card: TemporalCard) -> AttackPictures:
    opened = open_clips(settings, card.input_size, card.frames, card.duration_s)
    identity = opened.windows.images.index.dataset_id
    return AttackPictures(opened.windows, opened.live, opened.attack, opened.clip, opened.about, identity, opened)


def _clip_ranges(config: RunConfig, card: TemporalCard, chosen: Path | None, count: int) -> RangeImages:
    index = training_index(config) if chosen is None else Index.open(chosen)
    records = windows_of(index, card.frames, card.duration_s)[0]
    return draw_images(Windows(ShardImages(index), records), card.input_size, count, frames=card.frames)


ATTACK_KINDS: dict[str, AttackKind] = {
    "liveness": AttackKind(
        inputs="images",
        card_of=lambda saved: LivenessCard.of(saved.state["card"], str(saved.path)),
        network=liveness_network,
        model=lambda saved, card: module_liveness(liveness_network(saved, card), card, "cpu", origin=str(saved.path)),
        open=lambda path, card: LivenessScorer(onnx_function(path, card.precision), card, str(path)),
        shape=lambda card: (card.input_size[1], card.input_size[0], 3),
        example=lambda card: torch.zeros(2, 3, card.input_size[1], card.input_size[0]),
        open_set=_liveness_set,
        score=lambda pictures, model, *, batch: score_logits(pictures.opened, model, batch=batch),
        range_images=lambda config, card, chosen, count: draw_images(
            ShardImages(training_index(config) if chosen is None else Index.open(chosen)), card.input_size, count
        ),
    ),
    "temporal": AttackKind(
        inputs="clips",
        card_of=lambda saved: TemporalCard.of(saved.state["card"], str(saved.path)),
        network=temporal_network,
        model=lambda saved, card: module_clips(temporal_network(saved, card), card, "cpu", origin=str(saved.path)),
        open=lambda path, card: ClipScorer(onnx_function(path, card.precision), card, str(path)),
        shape=lambda card: (card.frames, card.input_size[1], card.input_size[0], 3),
        example=lambda card: torch.zeros(2, card.frames, 3, card.input_size[1], card.input_size[0]),
        open_set=_clip_set,
        score=lambda pictures, model, *, batch: score_windows(pictures.opened, model, batch=batch),
        range_images=_clip_ranges,
    ),
}
"""By `kind` of the card."""
