"""Embeddings of several models -> what a fusion of them starts from.

It learns by the tasks of networks of images (arcface, metric, pair), which see its embeddings as they would see theirs.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.embeddings import CHUNK
from fastface.models.fusion import start_map


class Start(NamedTuple):
    """What the training embeddings give a fusion to start from."""

    map: Tensor | None
    """Linear map of the concatenation, float32 [D, sum of sizes]; None where there is none."""
    log_norms: Tensor
    """Mean and standard deviation of the logarithm of each model's lengths, float32 [2, models]."""


def start_of(index: EmbeddingIndex, *, map_size: int | None, kind: str) -> Start:
    """Look through the training embeddings once; map_size: D of the linear map, None where there is none.

    kind: "pca" or "orthogonal", see fastface.models.fusion.start_map.
    """
    total, models = sum(index.sizes), len(index.sizes)
    moment = torch.zeros(total, total, dtype=torch.float64) if map_size not in (None, total) else None
    sums, squares = np.zeros(models), np.zeros(models)
    chunk = max(1, CHUNK * 8 // total)  # rows that take 4 MB in float64
    for begin in range(0, index.num_samples, chunk):
        rows = index.read(np.arange(begin, min(begin + chunk, index.num_samples)))
        units = []
        for model, part in enumerate(np.split(rows.astype(np.float64), np.cumsum(index.sizes)[:-1], axis=1)):
            norm = np.linalg.norm(part, axis=1)
            units.append(part / norm[:, None])
            sums[model] += np.log(norm).sum()
            squares[model] += np.square(np.log(norm)).sum()
        if moment is not None:
            block = torch.from_numpy(np.concatenate(units, axis=1))
            moment.addmm_(block.T, block)
    mean = sums / index.num_samples
    deviation = np.sqrt(np.maximum(squares / index.num_samples - mean * mean, 0))
    deviation[deviation < 1e-6] = 1.0  # lengths that are all the same say nothing
    log_norms = torch.from_numpy(np.stack([mean, deviation])).float()
    if map_size is None:
        return Start(None, log_norms)
    if moment is None:
        return Start(torch.eye(total), log_norms)
    return Start(start_map(kind, map_size, moment / index.num_samples), log_norms)
