"""Pairs of embeddings and what compares them -> scores and the figures of verification."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fastface import dist
from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.embeddings import Embeddings, usable
from fastface.eval_settings import EvalConfig, EvalSet
from fastface.evaluation import OpenedSets, Result
from fastface.metrics.dependence import persons_of_pairs
from fastface.metrics.folds import Pairs, make_folds
from fastface.metrics.pairs import read_pairs, resolve_pairs
from fastface.metrics.sampling import sample_pairs
from fastface.metrics.scores import pair_scores
from fastface.metrics.verification import verification

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Embeddings [P, D] and [P, D] as their models gave them -> float32 [P]: more speaks for one person."""
CHUNK = 8192  # pairs compared at a time: 8,192 x 512 float32 take 16 MB a side


class EmbeddingPairs(NamedTuple):
    """Embeddings and the pairs of them to compare; failed ones are among them, and count as failures."""

    index: EmbeddingIndex
    pairs: Pairs
    """With folds."""
    about: str


def open_embedding_pairs(
    settings: EvalSet,
    sizes: Sequence[int],
    *,
    seed: int = 0,
    drawn: Sequence[Embeddings] = (),
    what: str = "matcher compares",
) -> EmbeddingPairs:
    """Open what an evaluation set names, or embeddings that were drawn, for what takes these embedding sizes.

    Raises:
        ValueError: where a folder is missing or of other models, a pair's image is not there, or pairs cannot be drawn.
    """
    index = EmbeddingIndex(settings.embeddings or drawn, failed_too=True)
    if index.sizes != tuple(sizes):
        raise ValueError(
            f"{index.path} holds embeddings of {_listed(index.sizes)} values, the {what} {_listed(sizes)}: "
            "give the embeddings of the same models, in the same order"
        )
    if isinstance(settings.pairs, Path):
        pairs = resolve_pairs(read_pairs(settings.pairs), index, str(index.path))
        about = f"{settings.pairs} in {index.path}"
    else:
        pairs = sample_pairs(index.label, settings.pairs, seed)
        about = f"{len(pairs.same):,} pairs sampled from {index.path}, seed {seed}"
    if pairs.same.all() or not pairs.same.any():
        raise ValueError(f"{about} has pairs of one kind only; a matcher is judged on both")
    if pairs.fold is None:
        pairs = pairs._replace(fold=make_folds(pairs, index.label))
    return EmbeddingPairs(index, pairs, about)


def _listed(sizes: Sequence[int]) -> str:
    return " + ".join(map(str, sizes))


def score_pairs(opened: EmbeddingPairs, score: Score) -> np.ndarray:
    """Score all pairs, float32 [P]; NaN where an embedding failed."""
    index, pairs = opened.index, opened.pairs
    scores = np.empty(len(pairs.same), np.float32)
    for start in range(0, len(scores), CHUNK):
        part = slice(start, start + CHUNK)
        first, second = index.read(pairs.first[part]), index.read(pairs.second[part])
        whole = np.ones(len(first), bool)
        begin = 0
        for size in index.sizes:  # one model's failure is the pair's
            whole &= usable(first[:, begin : begin + size]) & usable(second[:, begin : begin + size])
            begin += size
        scores[part] = np.where(whole, score(first, second), np.nan)
    return scores


def cosine_scores(opened: EmbeddingPairs) -> dict[str, np.ndarray]:
    """Score all pairs without any learning: by the cosine of each model, and by their mean; float32 [P] each."""
    index, pairs = opened.index, opened.pairs
    where = zip(index.folders, index.row, strict=True)
    rows = [pair_scores(folder.rows, row[pairs.first], row[pairs.second]) for folder, row in where]
    if len(rows) == 1:
        return {"cosine": rows[0]}
    each = {f"cosine {n}": scores for n, scores in enumerate(rows, start=1)}
    return each | {"mean cosine": np.stack(rows).mean(axis=0, dtype=np.float64).astype(np.float32)}


def figures_of(opened: EmbeddingPairs, scores: np.ndarray, *, intervals: bool = True) -> Result:
    """Compute the figures of scored pairs; `intervals` False leaves out those that take time."""
    same, label = np.asarray(opened.pairs.same, bool), opened.index.label
    persons = persons_of_pairs(label[opened.pairs.first], label[opened.pairs.second], same)[0]
    found = verification(scores, same, opened.pairs.fold, persons=persons, intervals=intervals)
    return Result(found.metrics, found.details, scores, np.asarray(opened.pairs.same, bool))


def module_score(module: nn.Module, device: str | torch.device) -> Score:
    """Wrap what ships of a matcher; it is put into evaluation mode for each call, and back."""
    module = module.to(device)
    dtype = next(module.parameters()).dtype

    def score(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        training = module.training
        module.eval()
        with torch.inference_mode():
            rows = (torch.from_numpy(np.ascontiguousarray(side)).to(device, dtype) for side in (first, second))
            logits = module(*rows).float().cpu().numpy()
        module.train(training)
        return logits

    return score


class MatchEvaluators(OpenedSets[EmbeddingPairs]):
    """The evaluation sets of a run of task match."""

    def __init__(self, config: EvalConfig, sizes: Sequence[int], device: torch.device) -> None:
        self.device = device
        super().__init__(config, lambda settings: self.open_one(settings, tuple(sizes), config.seed))

    def run(self, network: nn.Module) -> dict[str, float]:
        """Score every set with the network as it is; figures under `set/metric`, the same on every process."""
        values: dict[str, Any] = {}
        if dist.is_main():  # comparing is cheap: the others wait for less than they would need to be sent
            for name, opened in self.sets.items():
                result = figures_of(opened, self.scores(network, opened), intervals=False)
                values |= {f"{name}/{key}": value for key, value in result.metrics.items()}
        return dist.share(values)

    def open_one(self, settings: EvalSet, sizes: tuple[int, ...], seed: int) -> EmbeddingPairs:
        """Open an evaluation set."""
        return open_embedding_pairs(settings, sizes, seed=seed)

    def scores(self, network: nn.Module, opened: EmbeddingPairs) -> np.ndarray:
        """Score the pairs of a set by what a run ships, float32 [P]."""
        return score_pairs(opened, module_score(network, self.device))
