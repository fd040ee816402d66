"""RUN or FILE of task temporal -> probabilities of live for clips, by the rules of its card."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastface.checkpoint import Checkpoint
from fastface.config import RunConfig
from fastface.liveness_scorer import live_probability
from fastface.models.temporal import DeployedTemporal
from fastface.predictor import load_model, module_function, onnx_function, prepared, read_network
from fastface.tasks.networks import build_temporal_network
from fastface.temporal_card import TemporalCard
from fastface.temporal_settings import TemporalTask


class ClipScorer:
    """Clips to the probability of live.

    Args:
        network: normalised float32 [B, T, 3, H, W] -> logits float32 [B, C], as arrays.
        card: says frames, size, normalisation and classes.
    """

    def __init__(self, network: Callable[[np.ndarray], np.ndarray], card: TemporalCard, origin: str) -> None:
        self.network = network
        self.card = card
        self.origin = origin

    def scores(self, clips: np.ndarray) -> np.ndarray:
        """Return the probability of live, float32 [B] in 0..1, of uint8 RGB clips [B, T, H, W, 3] of the card's size.

        Frames are in the order of time, one from each of T equal segments: see fastface.clips.read_clip.
        """
        return live_probability(self.logits(clips), self.card.live)

    def logits(self, clips: np.ndarray) -> np.ndarray:
        """Return the logits of the card's classes, float32 [B, C], of uint8 RGB clips [B, T, H, W, 3].

        Raises:
            ValueError: for frames of another number or size.
        """
        return self.network(self.prepare(clips))

    def prepare(self, clips: np.ndarray) -> np.ndarray:
        """Turn uint8 RGB clips [B, T, H, W, 3] into what the network takes: normalised float32 [B, T, 3, H, W]."""
        if clips.ndim != 5 or clips.shape[1] != self.card.frames:
            raise ValueError(
                f"{self.origin} takes clips of {self.card.frames} frames, uint8 [B, {self.card.frames}, H, W, 3]; got "
                f"an array of shape {list(clips.shape)}"
            )
        planar = prepared(clips.reshape(-1, *clips.shape[2:]), self.card, self.origin)
        return planar.reshape(*clips.shape[:2], *planar.shape[1:])


def load_temporal(model: str | Path, *, device: str | torch.device = "cpu", threads: int | None = None) -> ClipScorer:
    """Load a run folder (its best checkpoint, else its newest), a step folder, or an .onnx file with its card.

    threads: that an .onnx file is run by; default: all cores.

    Raises:
        ValueError: where there is no such model, it is of another task, or it is damaged.
    """

    def of_run(saved: Checkpoint) -> ClipScorer:
        card = TemporalCard.of(saved.state["card"], str(saved.path))
        return module_clips(temporal_network(saved, card), card, device, origin=str(saved.path))

    def of_file(file: Path) -> ClipScorer:
        card = TemporalCard.read(file.with_suffix(".json"))
        return ClipScorer(onnx_function(file, card.precision, threads), card, str(file))

    return load_model(model, of_run, of_file)


def module_clips(module: nn.Module, card: TemporalCard, device: str | torch.device, *, origin: str) -> ClipScorer:
    """Wrap what ships of a temporal task; it is put into evaluation mode for each call, and back."""
    return ClipScorer(module_function(module, device, images_each=card.frames), card, origin)


def temporal_network(saved: Checkpoint, card: TemporalCard, *, trained: bool = True) -> DeployedTemporal:
    """Build what ships of a checkpoint with its weights, or as it was before training, by the run's seed."""
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    assert isinstance(config.task, TemporalTask)
    torch.manual_seed(config.seed)
    model = config.model.model_copy(update={"pretrained": False})
    network = build_temporal_network(config.task, model, config.data, card.classes)
    if trained:
        network.load_state_dict(read_network(saved.path))
    return DeployedTemporal(network, config.model.window).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
