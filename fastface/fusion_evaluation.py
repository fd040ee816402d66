"""Embeddings of several models and a fusion of them -> fused embeddings, scores of pairs, and figures in training."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.embeddings import usable
from fastface.eval_settings import EvalConfig, EvalSet
from fastface.fusion_card import FusionCard, draw_embeddings
from fastface.match_evaluation import EmbeddingPairs, MatchEvaluators, open_embedding_pairs
from fastface.metrics.scores import pair_scores

Fuse = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Rows as their models gave them, float32 [B, sum of sizes] -> unit embeddings float32 [B, D], and the logarithm of the
weights [B] that they have among other images of the same person."""
CHUNK = 512  # rows fused at a time: 512 x 1,536 float32 take 3 MB


def open_fusion_pairs(settings: EvalSet, card: FusionCard, *, seed: int = 0) -> EmbeddingPairs:
    """Open what an evaluation set names; ValueError as `open_embedding_pairs`."""
    what = "fusion takes"
    if settings.drawn is None:
        return open_embedding_pairs(settings, card.embedding_sizes, seed=seed, what=what)
    if card.synthetic is None:
        raise ValueError("the fusion was trained on embeddings of images, and draws no people: give --embeddings")
    drawn = draw_embeddings(settings.drawn, card.synthetic)
    return open_embedding_pairs(settings, card.embedding_sizes, seed=seed, drawn=drawn, what=what)


def module_fuse(module: nn.Module, device: str | torch.device) -> Fuse:
    """Wrap what ships of a fusion; it is put into evaluation mode for each call, and back."""
    module = module.to(device)
    dtype = next(module.parameters()).dtype

    def fuse(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        training = module.training
        module.eval()
        with torch.inference_mode():
            found = module(torch.from_numpy(np.ascontiguousarray(rows)).to(device, dtype))
            out = [one.float().cpu().numpy() for one in (found if isinstance(found, tuple) else (found,))]
        module.train(training)
        return out[0], out[1] if len(out) == 2 else np.zeros(len(rows), np.float32)

    return fuse


def fused_rows(index: EmbeddingIndex, records: np.ndarray, fuse: Fuse) -> tuple[np.ndarray, np.ndarray]:
    """Fuse the rows of records (int64 [n]): float32 [n, D], NaN where a model's embedding failed; log weights [n]."""
    parts, weights = [], []
    for start in range(0, max(len(records), 1), CHUNK):
        chosen = records[start : start + CHUNK]
        found, weight = fuse(index.read(chosen))
        whole = np.logical_and.reduce([usable(index.read_of(n, chosen)) for n in range(len(index.sizes))])
        parts.append(np.where(whole[:, None], found, np.nan).astype(np.float32))
        weights.append(weight)
    return np.concatenate(parts), np.concatenate(weights)


def fused_scores(opened: EmbeddingPairs, fuse: Fuse) -> np.ndarray:
    """Score pairs by the cosine of fused embeddings, float32 [P]; each image is fused once."""
    ends = np.stack([opened.pairs.first, opened.pairs.second])
    records, place = np.unique(ends, return_inverse=True)
    first, second = place.reshape(2, -1)
    return pair_scores(fused_rows(opened.index, records, fuse)[0], first, second)


class FusionEvaluators(MatchEvaluators):
    """The evaluation sets of a run of task fusion."""

    def __init__(self, config: EvalConfig, card: FusionCard, device: torch.device) -> None:
        self.card = card
        super().__init__(config, card.embedding_sizes, device)

    def open_one(self, settings: EvalSet, sizes: tuple[int, ...], seed: int) -> EmbeddingPairs:
        return open_fusion_pairs(settings, self.card, seed=seed)

    def scores(self, network: nn.Module, opened: EmbeddingPairs) -> np.ndarray:
        return fused_scores(opened, module_fuse(network, self.device))
