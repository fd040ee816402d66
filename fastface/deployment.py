"""RUN -> one ONNX file and its model.json: exported, checked against torch on real images, thresholds calibrated."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fastface import checkpoint
from fastface.card import Card, Threshold
from fastface.config import EvalSet, RunConfig
from fastface.data.images import decode_jpeg
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.evaluators import open_set, score_set
from fastface.metrics.verification import calibrate
from fastface.predictor import Embedder, find_checkpoint, load_embedder, module_embedder

TOLERANCE = 1e-4
"""Largest accepted difference of unit embeddings between torch and onnxruntime, both float32 on a CPU."""


class Exported(NamedTuple):
    path: Path
    card: Card
    difference: float
    """Largest difference of any entry of the unit embeddings over the images compared."""
    images: str
    """What was compared."""


def export(
    model: str | Path, *, out: Path | None = None, calibrate_on: str | Path | None = None, check_on: Path | None = None
) -> Exported:
    """Write RUN's network as model.onnx (dynamic batch, one file) and model.json into `out` (default RUN/export).

    Args:
        model: run folder or step folder.
        calibrate_on: a pairs file (its images beside it or in the run's evaluation set) or a shard set; default:
            the first evaluation set of the run's configuration.
        check_on: a shard set whose images are compared; default: the calibration set's, else noise, saying so.

    Raises:
        ValueError: where torch and onnxruntime differ by more than TOLERANCE; no file is left then.
    """
    saved = find_checkpoint(Path(model))
    embedder = load_embedder(saved.path)
    config = RunConfig.model_validate_json(_dumps(saved.state["config"]))
    folder = out or saved.path.parent.parent / "export"
    folder.mkdir(parents=True, exist_ok=True)
    network = load_network(saved.path)
    chosen = calibration_set(config, calibrate_on)
    temporary = folder / ".model.onnx.partial"
    write_onnx(network, embedder.card, temporary)
    try:
        images, described = sample_images(chosen, check_on, embedder.card)
        difference = parity(embedder, temporary, images)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if not difference <= TOLERANCE:
        temporary.unlink(missing_ok=True)
        raise ValueError(f"onnxruntime differs from torch by {difference:.2e} on {described} (at most {TOLERANCE:.0e})")
    thresholds: list[Threshold] = []
    if chosen is not None:
        name, settings = chosen
        scored = score_set(open_set(settings, seed=config.eval.seed), embedder, config.eval.batch_size)
        thresholds = [
            Threshold(**entry._asdict(), source=name) for entry in calibrate(scored.scores, scored.same)
        ]
    training = {k: saved.state.get(k) for k in ("step", "dataset_id", "num_classes", "config", "versions", "origin")}
    card = embedder.card.model_copy(update={"thresholds": thresholds, "training": training})
    path = folder / "model.onnx"
    temporary.rename(path)
    checkpoint.write_json(folder / "model.json", card.model_dump(mode="json"))
    return Exported(path, card, difference, described)
