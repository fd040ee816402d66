"""RUN of task match -> one ONNX file and its model.json: checked against torch, calibrated on pairs of embeddings."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastface import checkpoint
from fastface.card import MatchCard
from fastface.config import EvalSet, RunConfig
from fastface.match_evaluation import EmbeddingPairs, module_score, open_embedding_pairs, score_pairs
from fastface.matching import comparator_of, onnx_score
from fastface.metrics.curve import calibrate
from fastface.onnx_file import write_onnx_file
from fastface.thresholds import Evidence, calibration_of, describe_evidence, pairs_digest, threshold_table

TOLERANCE = 1e-4
"""Largest accepted difference of a log-odds relative to the largest, torch against onnxruntime, both float32."""
COMPARED = 256
"""Pairs compared."""


class ExportedMatcher(NamedTuple):
    path: Path
    card: MatchCard
    difference: float
    about: str
    """What was compared."""

    def report(self) -> str:
        lines = [
            f"{self.path}  ({self.path.stat().st_size / 1e6:.1f} MB, dynamic batch)",
            f"  onnxruntime differs from torch by at most {self.difference:.1e} of the largest log-odds ({self.about})",
            *describe_evidence(self.card.thresholds, self.card.calibration),
        ]
        if not self.card.thresholds:
            lines.append("  no threshold: the run has no evaluation set; give --calibrate PAIRS_OR_EMBEDDINGS")
        return "\n".join(lines)


def export_matcher(
    saved: checkpoint.Checkpoint,
    *,
    out: Path | None,
    calibrate_on: Path | None,
    embeddings: Path | None,
    targets: Sequence[float],
    strict: bool,
) -> ExportedMatcher:
    """Write what compares embeddings as model.onnx and model.json into `out` (default: the run folder's export/).

    Args:
        calibrate_on: a folder of embeddings, or a pairs file about `embeddings`; default: the run's first evaluation
            set.

    Raises:
        ValueError: where onnxruntime and torch differ by more than TOLERANCE, or not to the bit when the two are
            exchanged, or with `strict` a target has too few pairs; nothing is left behind then.
    """
    network, card = comparator_of(saved)
    pairs = calibration_pairs(saved, card, calibrate_on, embeddings)
    folder = out or saved.path.parent.parent / "export"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.onnx.partial"
    ours = module_score(network, "cpu")
    try:
        example = torch.zeros(2, sum(card.embedding_sizes))
        write_onnx_file(network, (example, example + 1), ("first", "second"), "log_odds", partial)
        exported = onnx_score(partial)
        first, second, about = compared_rows(card, pairs)
        difference = parity(ours(first, second), exported(first, second))
        if not difference <= TOLERANCE:
            raise ValueError(f"onnxruntime differs from torch by {difference:.1e} on {about}; {TOLERANCE} is allowed")
        if not np.array_equal(exported(first, second), exported(second, first)):
            raise ValueError(f"the exported file scores (a, b) and (b, a) differently on {about}: do not use it")
        evidence = _evidence(pairs, partial)
        if pairs is not None and evidence is not None:
            scores, same = score_pairs(pairs, ours), np.asarray(pairs.pairs.same, bool)
            assert pairs.pairs.fold is not None
            table = threshold_table(calibrate(scores, same, targets), evidence, strict=strict)
            calibration = calibration_of(scores, same, pairs.pairs.fold, evidence)
            card = card.model_copy(update={"thresholds": table, "calibration": calibration})
        kept = ("step", "dataset_id", "embeddings", "num_classes", "config", "versions")
        training = {key: saved.state[key] for key in kept if key in saved.state}
        training |= {"onnx_difference": difference, "onnx_compared": about}
        card = card.model_copy(update={"training": training})
        checkpoint.write_json(folder / "model.json", card.model_dump(mode="json"))
        partial.replace(folder / "model.onnx")
    finally:
        partial.unlink(missing_ok=True)
    return ExportedMatcher(folder / "model.onnx", card, difference, about)


def calibration_pairs(
    saved: checkpoint.Checkpoint, card: MatchCard, chosen: Path | None, embeddings: Path | None
) -> EmbeddingPairs | None:
    """Open the pairs whose scores set the thresholds."""
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    seed = config.eval.seed
    if chosen is None:
        first = next(iter(config.eval.sets.values()), None)
        return None if first is None else open_embedding_pairs(first, card.embedding_sizes, seed=seed)
    if (chosen / "meta.json").is_file():
        return open_embedding_pairs(EvalSet(embeddings=(chosen,)), card.embedding_sizes, seed=seed)
    if embeddings is None:
        raise ValueError(f"{chosen} holds no embeddings; for a pairs file say where they are: --images EMBEDDINGS")
    return open_embedding_pairs(EvalSet(embeddings=(embeddings,), pairs=chosen), card.embedding_sizes)


def compared_rows(card: MatchCard, pairs: EmbeddingPairs | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Return rows to compare torch and onnxruntime on, and what they are."""
    if pairs is None:
        noise = np.random.default_rng(0).standard_normal((2, COMPARED, sum(card.embedding_sizes)), np.float32)
        return noise[0], noise[1], f"{COMPARED} pairs of noise: the run has no evaluation set"
    chosen = np.linspace(0, len(pairs.pairs.same) - 1, COMPARED).astype(np.int64)
    first, second = (np.nan_to_num(pairs.index.read(side[chosen])) for side in pairs.pairs[:2])
    return first, second, f"{COMPARED} of {pairs.about}"


def parity(ours: np.ndarray, exported: np.ndarray) -> float:
    """Return the largest difference of scores [P], in units of the largest score."""
    return float(np.abs(ours - exported).max() / max(float(np.abs(ours).max()), 1.0))


def _evidence(pairs: EmbeddingPairs | None, file: Path) -> Evidence | None:
    if pairs is None:
        return None
    return Evidence(
        source=pairs.about,
        pairs_sha256=pairs_digest(pairs.pairs, pairs.index.name),
        model_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        dataset_id=pairs.index.dataset_id,
    )
