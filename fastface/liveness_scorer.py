"""RUN or FILE of task liveness -> probabilities of live, by the rules of its card."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastface.checkpoint import Checkpoint
from fastface.config import RunConfig
from fastface.liveness_card import LivenessCard
from fastface.liveness_settings import LivenessTask
from fastface.models.liveness import DeployedLiveness
from fastface.predictor import load_model, module_function, onnx_function, prepared, read_network
from fastface.tasks.networks import build_liveness_network


class LivenessScorer:
    """Images to the probability of live.

    Args:
        network: normalised float32 [B, 3, H, W] -> logits float32 [B, C], as arrays.
        card: says size, normalisation and classes.
    """

    def __init__(self, network: Callable[[np.ndarray], np.ndarray], card: LivenessCard, origin: str) -> None:
        self.network = network
        self.card = card
        self.origin = origin

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of live, float32 [B] in 0..1, of uint8 RGB images [B, H, W, 3] of the card's size."""
        return live_probability(self.logits(images), self.card.live)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of the card's classes, float32 [B, C], of uint8 RGB images [B, H, W, 3].

        Raises:
            ValueError: for images of another size.
        """
        return self.network(self.prepare(images))

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Turn uint8 RGB images [B, H, W, 3] into what the network takes: normalised float32 [B, 3, H, W]."""
        return prepared(images, self.card, self.origin)


def live_probability(logits: np.ndarray, live: int) -> np.ndarray:
    """Return softmax(logits)[live], float32 [B], of logits [B, C]; NaN where they are."""
    high = logits.astype(np.float64)
    power = np.exp(high - high.max(axis=1, keepdims=True))
    return (power[:, live] / power.sum(axis=1)).astype(np.float32)


def load_liveness(
    model: str | Path, *, device: str | torch.device = "cpu", threads: int | None = None
) -> LivenessScorer:
    """Load a run folder (its best checkpoint, else its newest), a step folder, or an .onnx file with its card.

    threads: that an .onnx file is run by; default: all cores.

    Raises:
        ValueError: where there is no such model, it is of another task, or it is damaged.
    """

    def of_run(saved: Checkpoint) -> LivenessScorer:
        card = LivenessCard.of(saved.state["card"], str(saved.path))
        return module_liveness(liveness_network(saved, card), card, device, origin=str(saved.path))

    def of_file(file: Path) -> LivenessScorer:
        card = LivenessCard.read(file.with_suffix(".json"))
        return LivenessScorer(onnx_function(file, card.precision, threads), card, str(file))

    return load_model(model, of_run, of_file)


def module_liveness(
    module: nn.Module, card: LivenessCard, device: str | torch.device, *, origin: str
) -> LivenessScorer:
    """Wrap what ships of a liveness task; it is put into evaluation mode for each call, and back."""
    return LivenessScorer(module_function(module, device), card, origin)


def liveness_network(saved: Checkpoint, card: LivenessCard, *, trained: bool = True) -> DeployedLiveness:
    """Build what ships of a checkpoint with its weights, or as it was before training, by the run's seed."""
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    assert isinstance(config.task, LivenessTask)
    torch.manual_seed(config.seed)
    model = config.model.model_copy(update={"pretrained": False})
    network = build_liveness_network(config.task, model, config.data, card.classes)
    if trained:
        network.load_state_dict(read_network(saved.path))
    shipped = DeployedLiveness(network, config.model.window, config.task.patch_px)
    return shipped.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
