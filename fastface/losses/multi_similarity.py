"""Embeddings and identities -> multi-similarity loss: hard pairs, weighted by how they stand among the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastface.losses.compared import (
    Compared,
    as_rows,
    cosine_terms,
    dot_products,
    mean_cosine,
    nothing,
    same_identity,
    share,
    unit,
)


def multi_similarity_loss(
    embedding: Tensor,
    labels: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float | None = 0.1,
) -> Compared:
    """Return the loss of Wang et al., "Multi-similarity loss with general pair weighting", CVPR 2019, equation 15.

    With cosines c, and for an anchor i its chosen positives P and negatives N, the mean over all rows of

        1 / alpha * log(1 + sum over k in P of exp(-alpha (c_ik - base)))
        + 1 / beta * log(1 + sum over k in N of exp(beta (c_ik - base)))

    Chosen are negatives with c > (the smallest cosine to a positive) - epsilon (equation 11) and positives with
    c < (the largest cosine to a negative) + epsilon (equation 12); with epsilon None, all. A row without positives
    chooses no negatives, one without negatives no positives. 0 with zero gradient where nothing is chosen.

    embedding: [N, D], scaled to length 1 here; labels: integers [N]. Memory: some 7 matrices [N, N].
    terms: kept_positive and kept_negative (share of the pairs that are chosen), cosine_positive, cosine_negative (means
    over all pairs), mean_cosine.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} {value} must be positive and finite; the paper has alpha 2 and beta 50")
    if not math.isfinite(base):
        raise ValueError(f"base {base} must be finite; the paper's is 0.5")
    if epsilon is not None and not (epsilon >= 0 and math.isfinite(epsilon)):
        raise ValueError(
            f"epsilon {epsilon} must be finite and not negative, or null for all pairs; the paper's is 0.1"
        )
    rows = unit(as_rows(embedding, labels))
    cosine = dot_products(rows)
    same = same_identity(labels, rows.device)
    genuine = same & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    positives, negatives = genuine, ~same
    if epsilon is not None:
        with torch.no_grad():
            farthest = cosine.masked_fill(~genuine, torch.inf).amin(1, keepdim=True)
            closest = cosine.masked_fill(same, -torch.inf).amax(1, keepdim=True)
            positives = genuine & (cosine < closest + epsilon)
            negatives = ~same & (cosine > farthest - epsilon)
    pulled = _log_one_plus(alpha * (base - cosine), positives) / alpha
    pushed = _log_one_plus(beta * (cosine - base), negatives) / beta
    terms = cosine_terms(cosine.detach(), genuine, ~same)
    terms |= {
        "kept_positive": share(positives.sum(), genuine.sum(), rows.dtype),
        "kept_negative": share(negatives.sum(), (~same).sum(), rows.dtype),
        "mean_cosine": mean_cosine(rows),
    }
    return Compared((pulled + pushed).mean() + nothing(rows), terms)


def _log_one_plus(exponents: Tensor, chosen: Tensor) -> Tensor:
    """Return log(1 + sum of exp over the chosen) of each row, [N]; 0 where none is chosen."""
    total = exponents.masked_fill(~chosen, -torch.inf).logsumexp(1)
    return torch.logaddexp(total, torch.zeros_like(total))
