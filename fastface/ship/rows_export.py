"""RUN of a task that learns from embeddings -> one ONNX file and its model.json: checked against torch, calibrated."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fastface import checkpoint
from fastface.card import RowsCard
from fastface.comparator import comparator_of, onnx_score
from fastface.config import RunConfig
from fastface.eval_settings import EvalSet
from fastface.fuser import fusion_of, onnx_fuse
from fastface.fusion_evaluation import fused_scores, module_fuse, open_fusion_pairs
from fastface.match_evaluation import EmbeddingPairs, module_score, open_embedding_pairs, score_pairs
from fastface.metrics.dependence import persons_of_pairs
from fastface.ship.onnx_graph import seal, write_graph
from fastface.ship.thresholds import Evidence, decide, describe_evidence, pairs_digest, sha256_of

TOLERANCE = 1e-4
"""Largest accepted difference, torch against onnxruntime, both float32: of a log-odds relative to the largest; of any
entry of a fused embedding or of the logarithm of its weight."""
COMPARED = 256
"""Pairs compared."""


class Kind(NamedTuple):
    """What export needs to know of a task that learns from embeddings."""

    build: Callable[[checkpoint.Checkpoint], tuple[nn.Module, Any]]
    """What ships, and its card."""
    open_pairs: Callable[..., EmbeddingPairs]
    """Settings of an evaluation set, the card, seed -> pairs."""
    inputs: tuple[str, ...]
    outputs: Callable[[Any], tuple[str, ...]]
    """By the card."""
    differ: Callable[[nn.Module, Path, np.ndarray, np.ndarray], float]
    """What ships, its file and both sides of some pairs -> how far the two are apart."""
    score: Callable[[Path, EmbeddingPairs], np.ndarray]
    """The file's scores of pairs."""
    measure: str
    """What the difference is of."""


def _match_differs(network: nn.Module, file: Path, first: np.ndarray, second: np.ndarray) -> float:
    ours, exported = module_score(network, "cpu"), onnx_score(file)
    if not np.array_equal(exported(first, second), exported(second, first)):
        raise ValueError("the exported file scores (a, b) and (b, a) differently: do not use it")
    return parity(ours(first, second), exported(first, second))


def _fusion_differs(network: nn.Module, file: Path, first: np.ndarray, second: np.ndarray) -> float:
    rows = np.concatenate([first, second])
    ours, exported = module_fuse(network, "cpu"), onnx_fuse(file)
    found = []
    for size in (1, 7, len(rows)):  # the batch is dynamic: several sizes take part
        found += [np.abs(a - b).max() for a, b in zip(ours(rows[:size]), exported(rows[:size]), strict=True)]
    return float(np.max(found))  # numpy's max keeps a NaN, which then is refused


KINDS = {
    "match": Kind(
        comparator_of,
        lambda settings, card, seed: open_embedding_pairs(settings, card.embedding_sizes, seed=seed),
        ("first", "second"),
        lambda card: ("log_odds",),
        _match_differs,
        lambda file, pairs: score_pairs(pairs, onnx_score(file)),
        "of the largest log-odds",
    ),
    "fusion": Kind(
        fusion_of,
        lambda settings, card, seed: open_fusion_pairs(settings, card, seed=seed),
        ("embeddings",),
        lambda card: ("fused",) if card.pooling == "mean" else ("fused", "log_weight"),
        _fusion_differs,
        lambda file, pairs: fused_scores(pairs, onnx_fuse(file)),
        "(unit embeddings)",
    ),
}


class ExportedRows(NamedTuple):
    path: Path
    card: Any
    """A MatchCard or FusionCard."""
    difference: float
    about: str
    """What was compared."""

    def report(self) -> str:
        lines = [
            f"{self.path}  ({self.path.stat().st_size / 1e6:.1f} MB, dynamic batch)",
            f"  onnxruntime differs from torch by at most {self.difference:.1e} {KINDS[self.card.kind].measure} "
            f"({self.about})",
            *describe_evidence(self.card.thresholds, self.card.calibration),
        ]
        if not self.card.thresholds:
            lines.append("  no threshold: the run has no evaluation set; give --calibrate PAIRS_OR_EMBEDDINGS")
        return "\n".join(lines)


def export_rows(
    saved: checkpoint.Checkpoint,
    *,
    out: Path | None,
    calibrate_on: Path | None,
    embeddings: Path | None,
    targets: Sequence[float],
    strict: bool,
) -> ExportedRows:
    """Write what compares or fuses embeddings as model.onnx and model.json into `out` (default: RUN/export/).

    Args:
        calibrate_on: a folder of embeddings, or a pairs file about `embeddings`; default: the run's first evaluation
            set, the only one possible for embeddings of several models.

    Raises:
        ValueError: where onnxruntime and torch differ by more than TOLERANCE, or with `strict` a target has too few
            pairs; nothing is left behind then.
    """
    kind = KINDS[saved.state["card"]["kind"]]
    network, card = kind.build(saved)
    pairs = calibration_pairs(saved, card, calibrate_on, embeddings)
    folder = out or saved.path.parent.parent / "export"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.onnx.partial"
    try:
        example = torch.ones(2, sum(card.embedding_sizes))
        examples = [example + number for number in range(len(kind.inputs))]
        write_graph(network, examples, kind.inputs, kind.outputs(card), partial)
        seal(partial, "fp32")
        first, second, about = compared_rows(card, pairs)
        difference = kind.differ(network, partial, first, second)
        if not difference <= TOLERANCE:
            raise ValueError(f"onnxruntime differs from torch by {difference:.1e} on {about}; {TOLERANCE} is allowed")
        if pairs is not None:
            decisions = decisions_of(kind.score(partial, pairs), pairs, partial, targets, strict=strict)
            card = card.model_copy(update=decisions)
        kept = ("step", "dataset_id", "embeddings", "num_classes", "config", "versions")
        training = {key: saved.state[key] for key in kept if key in saved.state}
        training |= {"onnx_difference": difference, "onnx_compared": about}
        card = card.model_copy(update={"training": training})
        checkpoint.write_json(folder / "model.json", card.model_dump(mode="json"))
        partial.replace(folder / "model.onnx")
    finally:
        partial.unlink(missing_ok=True)
    return ExportedRows(folder / "model.onnx", card, difference, about)


def calibration_pairs(
    saved: checkpoint.Checkpoint, card: RowsCard, chosen: Path | None, embeddings: Path | None
) -> EmbeddingPairs | None:
    """Open the pairs whose scores set the thresholds."""
    config = RunConfig.model_validate_json(json.dumps(saved.state["config"]))
    seed, open_pairs = config.eval.seed, KINDS[saved.state["card"]["kind"]].open_pairs
    if chosen is None:
        first = next(iter(config.eval.sets.values()), None)
        return None if first is None else open_pairs(first, card, seed)
    if (chosen / "meta.json").is_file():
        return open_pairs(EvalSet(embeddings=(chosen,)), card, seed)
    if embeddings is None:
        raise ValueError(f"{chosen} holds no embeddings; for a pairs file say where they are: --images EMBEDDINGS")
    return open_pairs(EvalSet(embeddings=(embeddings,), pairs=chosen), card, 0)


def compared_rows(card: RowsCard, pairs: EmbeddingPairs | None) -> tuple[np.ndarray, np.ndarray, str]:
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
