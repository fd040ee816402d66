"""RUN of task match -> one ONNX file and its model.json: checked against torch, calibrated on pairs of embeddings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fastface import checkpoint
from fastface.card import MatchCard
from fastface.comparator import comparator_of, onnx_score
from fastface.config import RunConfig
from fastface.eval_settings import EvalSet
from fastface.match_evaluation import EmbeddingPairs, module_score, open_embedding_pairs, score_pairs
from fastface.metrics.dependence import persons_of_pairs
from fastface.ship.onnx_graph import write_graph
from fastface.ship.thresholds import Evidence, decide, describe_evidence, pairs_digest, sha256_of

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
        write_graph(network, (example, example + 1), ("first", "second"), "log_odds", partial)
        exported = onnx_score(partial)
        first, second, about = compared_rows(card, pairs)
        difference = parity(ours(first, second), exported(first, second))
        if not difference <= TOLERANCE:
            raise ValueError(f"onnxruntime differs from torch by {difference:.1e} on {about}; {TOLERANCE} is allowed")
        if not np.array_equal(exported(first, second), exported(second, first)):
            raise ValueError(f"the exported file scores (a, b) and (b, a) differently on {about}: do not use it")
        if pairs is not None:
            card = card.model_copy(
                update=decisions_of(score_pairs(pairs, ours), pairs, partial, targets, strict=strict)
            )
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


def decisions_of(
    scores: np.ndarray, pairs: EmbeddingPairs, file: Path, targets: Sequence[float], *, strict: bool
) -> dict[str, Any]:
    """Return thresholds and calibration for the card of a file, by its scores [P] of the calibration pairs."""
    index, listed = pairs.index, pairs.pairs
    assert listed.fold is not None
    evidence = Evidence(pairs.about, pairs_digest(listed, index.name), sha256_of(file), index.dataset_id)
    persons = persons_of_pairs(index.label[listed.first], index.label[listed.second], listed.same)[0]
    return decide(scores, listed.same, listed.fold, targets, evidence, persons, strict=strict)
