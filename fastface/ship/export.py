"""RUN -> one ONNX file and its model.json: exported, checked against torch on real images, thresholds calibrated."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fastface import checkpoint
from fastface.card import Card
from fastface.config import RunConfig
from fastface.data.image_sets import ShardImages
from fastface.eval_settings import EvalSet
from fastface.evaluation import Result, unit
from fastface.evaluators import PairSet, evaluate_on, open_pairs
from fastface.metrics.dependence import persons_of_pairs
from fastface.metrics.folds import make_folds
from fastface.predictor import Embedder, find_checkpoint, load_embedder, load_network, open_onnx
from fastface.ship.onnx_graph import OPSET, seal, spell_out_prelu, write_graph
from fastface.ship.rows_export import KINDS, ExportedRows, export_rows
from fastface.ship.thresholds import TARGETS, Evidence, decide, describe_evidence, pairs_digest, sha256_of

TOLERANCE = 1e-4
"""Largest accepted difference of any entry of the unit embeddings, torch against onnxruntime, both float32."""
COMPARED = 256
"""Images compared."""


class Exported(NamedTuple):
    path: Path
    card: Card
    difference: float
    about: str
    """What was compared."""
    result: Result | None
    """The file's scores of the calibration pairs."""

    def report(self) -> str:
        lines = [
            f"{self.path}  ({self.path.stat().st_size / 1e6:.1f} MB, opset {self.card.opset}, dynamic batch)",
            f"  onnxruntime differs from torch by at most {self.difference:.1e} (unit embeddings, {self.about})",
        ]
        lines += describe_evidence(self.card.thresholds, self.card.calibration)
        if not self.card.thresholds:
            lines.append("  no threshold: the run has no evaluation set; give --calibrate PAIRS_OR_SHARDS")
        return "\n".join(lines)


def export(
    model: Path,
    *,
    out: Path | None = None,
    calibrate_on: Path | None = None,
    images: Path | None = None,
    targets: Sequence[float] = TARGETS,
    strict: bool = False,
) -> Exported | ExportedRows:
    """Write the network as model.onnx and model.json into `out` (default: the run folder's export/).

    Args:
        model: run folder (its best checkpoint, else its newest) or step folder.
        calibrate_on: a shard set, or a pairs file about `images`; default: the run's first evaluation set.
        images: shard set, folder or .tar that a pairs file speaks of.
        targets: false match rates to choose thresholds for.
        strict: refuse targets that the calibration pairs are too few for, instead of marking them.

    Raises:
        ValueError: where onnxruntime and torch differ by more than TOLERANCE; nothing is left behind then.
    """
    saved = find_checkpoint(model)
    if saved.state["card"].get("kind") in KINDS:  # the same options are about embeddings then
        return export_rows(saved, out=out, calibrate_on=calibrate_on, embeddings=images, targets=targets, strict=strict)
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    embedder = load_embedder(saved.path)
    pairs = calibration_pairs(config, embedder.card, calibrate_on, images)
    folder = out or saved.path.parent.parent / "export"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.onnx.partial"
    try:
        write_onnx(load_network(saved), embedder.card, partial)
        exported = open_onnx(partial, embedder.card)
        difference, about = compare(embedder, exported, pairs)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"onnxruntime differs from torch by {difference:.1e} on {about}; at most {TOLERANCE} is allowed"
            )
        decisions: dict[str, Any] = {}
        result = None
        if pairs is not None:
            result = evaluate_on(pairs, exported, batch=config.eval.batch_size, intervals=False)
            decisions = decisions_of(result, pairs, partial, targets, strict=strict)
        kept = ("step", "dataset_id", "num_classes", "config", "versions", "origin")
        training = {key: saved.state[key] for key in kept if key in saved.state}
        training |= {"onnx_difference": difference, "onnx_compared": about}
        card = embedder.card.model_copy(update={"opset": OPSET, **decisions, "training": training})
        checkpoint.write_json(folder / "model.json", card.model_dump(mode="json"))
        partial.replace(folder / "model.onnx")
    finally:
        partial.unlink(missing_ok=True)
    return Exported(folder / "model.onnx", card, difference, about, result)


def calibration_pairs(config: RunConfig, card: Card, chosen: Path | None, images: Path | None) -> PairSet | None:
    """Open the pairs whose scores set the thresholds."""
    if chosen is None:
        first = next(iter(config.eval.sets.values()), None)
        return None if first is None else open_pairs(first, card, seed=config.eval.seed)
    if (chosen / "meta.json").is_file():
        return open_pairs(EvalSet(images=chosen), card, seed=config.eval.seed)
    if images is None and isinstance(config.data.shards, Path):  # not a URL
        images = config.data.shards
    if images is None:
        raise ValueError(
            f"{chosen} is not a shard set; for a pairs file say where its images are: --images DIR_OR_SHARDS"
        )
    return open_pairs(EvalSet(images=images, pairs=chosen), card)


def decisions_of(
    result: Result, pairs: PairSet, file: Path, targets: Sequence[float], *, strict: bool = False
) -> dict[str, Any]:
    """Return thresholds and calibration for the card of a file, by its scores of the calibration pairs."""
    listed, images, same = pairs.pairs, pairs.images, result.same
    dataset_id = images.index.dataset_id if isinstance(images, ShardImages) else None
    evidence = Evidence(pairs.about, pairs_digest(listed, images.name), sha256_of(file), dataset_id)
    folds = make_folds(listed, images.identities) if listed.fold is None else listed.fold
    first, second = (images.identities[ids] for ids in (listed.first, listed.second))
    return decide(
        result.scores, same, folds, targets, evidence, persons_of_pairs(first, second, same)[0], strict=strict
    )


def write_onnx(network: nn.Module, card: Card, path: Path) -> None:
    """Export normalised float32 [batch, 3, H, W] -> [batch, D] as one file, its weights inside."""
    width, height = card.input_size
    write_graph(network, (torch.zeros(2, 3, height, width),), ("images",), ("embeddings",), path)
    spell_out_prelu(path)
    seal(path, "fp32")


def compare(ours: Embedder, exported: Embedder, pairs: PairSet | None) -> tuple[float, str]:
    """Return the largest difference between two embedders' unit embeddings, and what they were compared on."""
    width, height = ours.card.input_size
    if pairs is None:  # an imported network without data: noise is all there is
        noise = np.random.default_rng(0).integers(0, 256, (32, height, width, 3), dtype=np.uint8)
        chosen, about = noise, "32 images of noise: the run has no evaluation set"
    else:
        ids = np.unique(np.concatenate([pairs.pairs.first, pairs.pairs.second]))[:COMPARED]
        chosen = np.stack([pairs.images.load(int(i)) for i in ids])
        about = f"{len(ids)} images of {pairs.images.where}"
    differences = []
    for size in (1, 7, 64):  # the batch is dynamic: several sizes take part
        for start in range(0, len(chosen), 64):
            part = chosen[start : start + size]
            differences.append(np.abs(unit(ours(part)) - unit(exported(part))).max())
    return float(np.max(differences)), about  # numpy's max keeps a NaN, which then is refused
