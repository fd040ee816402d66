"""Embeddings of image pairs -> loss: rows 2i and 2i + 1 are compared, and with no other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastface.losses.compared import (
    Compared,
    as_rows,
    cosine_terms,
    mean_cosine,
    mean_of_hardest,
    mean_where,
    root,
    unit,
)
from fastface.spelling import nearest

DISTANCES = ("plain", "cosine", "squared")


def pair_bce(
    embedding: Tensor, labels: Tensor, *, scale: Tensor | float, bias: Tensor | float, keep_hardest: float = 1.0
) -> Compared:
    """Return the mean binary cross entropy of "these are one person", with the logit scale * cosine + bias.

    embedding: [N, D], N even; labels: integers [N], the identity of each row. scale, bias: floats, or scalar tensors
    that are learned (they get gradients, and are not checked). A pair is one person from cosine -bias / scale on.
    keep_hardest: share of the pairs, those with the largest losses, that the mean is of (OHEM, Shrivastava et al., CVPR
    2016).
    terms: accuracy (of that threshold), cosine_positive, cosine_negative, positives (share of pairs), mean_cosine.
    """
    if not isinstance(scale, Tensor) and not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale {scale} must be positive and finite: a larger cosine means the same person")
    if not isinstance(bias, Tensor) and not math.isfinite(bias):
        raise ValueError(f"bias {bias} must be finite; -scale * t asks for cosines above t")
    rows, genuine = _pairs(embedding, labels)
    vectors = unit(rows)
    cosine = (vectors[0::2] * vectors[1::2]).sum(1)
    logit = scale * cosine + bias
    loss = mean_of_hardest(
        F.binary_cross_entropy_with_logits(logit, genuine.to(logit.dtype), reduction="none"), keep_hardest
    )
    terms = {"accuracy": ((logit.detach() > 0) == genuine).to(rows.dtype).mean()}
    return Compared(loss, terms | _terms(vectors, cosine, genuine))


def pair_contrastive(
    embedding: Tensor, labels: Tensor, *, margin: float = 0.5, distance: str = "plain", keep_hardest: float = 1.0
) -> Compared:
    """Return the mean of D^2 / 2 for pairs of one person and of [margin - D]_+^2 / 2 for pairs of two.

    Source: Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006, equation
    4, here on unit vectors. D is |x - y| (plain, 0 to 2, the paper's), 1 - cosine (cosine, 0 to 2) or |x - y|^2
    (squared, 0 to 4, twice the cosine's).

    embedding: [N, D], N even; labels: integers [N], the identity of each row. keep_hardest: as in pair_bce.
    terms: active (share of the pairs of two people within the margin), distance_positive, distance_negative,
    cosine_positive, cosine_negative, positives (share of pairs), mean_cosine.
    """
    check_contrast(margin, distance)
    rows, genuine = _pairs(embedding, labels)
    vectors = unit(rows)
    squared = (vectors[0::2] - vectors[1::2]).square().sum(1)
    apart = separation(squared, distance)
    missing = (margin - apart).clamp_min(0)
    loss = mean_of_hardest(torch.where(genuine, apart, missing).square() / 2, keep_hardest)
    far = apart.detach()
    terms = {
        "active": mean_where((far < margin).to(far.dtype), ~genuine),
        "distance_positive": mean_where(far, genuine),
        "distance_negative": mean_where(far, ~genuine),
    }
    return Compared(loss, terms | _terms(vectors, 1 - squared / 2, genuine))


def check_contrast(margin: float, distance: str) -> None:
    """Refuse a distance that is unknown, and a margin that is none."""
    if distance not in DISTANCES:
        raise ValueError(
            f"distance {distance!r} is unknown{nearest(distance, DISTANCES)}; known: {', '.join(DISTANCES)}"
        )
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(
            f"margin {margin} must be positive and finite: the distance from which two people cost nothing"
        )


def separation(squared: Tensor, distance: str) -> Tensor:
    """Turn squared distances of unit vectors into the distance of that name."""
    return {"plain": root, "cosine": lambda d: d / 2, "squared": lambda d: d}[distance](squared)


def _pairs(embedding: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the checked rows [N, D] and, for each pair, whether it shows one person: bool [N / 2]."""
    rows = as_rows(embedding, labels)
    if len(rows) % 2:
        raise ValueError(f"there are {len(rows)} embeddings: rows 2i and 2i + 1 are a pair, so their number is even")
    labels = labels.to(rows.device)
    return rows, labels[0::2] == labels[1::2]


def _terms(vectors: Tensor, cosine: Tensor, genuine: Tensor) -> dict[str, Tensor]:
    terms = cosine_terms(cosine.detach(), genuine, ~genuine)
    return terms | {"positives": genuine.to(vectors.dtype).mean(), "mean_cosine": mean_cosine(vectors)}
