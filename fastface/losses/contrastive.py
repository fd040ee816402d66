"""Embeddings and identities of a step -> contrastive loss of all its genuine pairs and mined impostor pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from fastface.losses.compared import (
    Compared,
    as_rows,
    cosine_terms,
    mean_cosine,
    mean_where,
    nothing,
    same_identity,
    squared_distances,
    unit,
)
from fastface.losses.pair import check_contrast, separation
from fastface.spelling import nearest

MINING = ("hardest", "all")


def contrastive_loss(
    embedding: Tensor, labels: Tensor, *, margin: float = 0.5, distance: str = "plain", mining: str = "hardest"
) -> Compared:
    """Return half the mean of D^2 / 2 over all genuine pairs plus half that of [margin - D]_+^2 / 2 over impostor ones.

    The loss of fastface.losses.pair.pair_contrastive for all pairs of rows, both kinds weighing the same. mining: the
    impostor pairs that count: "all", or "hardest", for every row the nearest of another identity. Unit embeddings of
    two people are about sqrt(2) apart, so that of all pairs hardly any is within a margin of 0.5 (a cosine above 0.875,
    for distance cosine above 0.5), and what they teach is divided by the number of those that teach nothing.

    embedding: [N, D], scaled to length 1 here; labels: integers [N].
    terms: active_all and active_mined (share of all, and of the mined impostor pairs within the margin),
    distance_positive, distance_negative, distance_hardest, cosine_positive, cosine_negative, mean_cosine.
    """
    check_contrast(margin, distance)
    if mining not in MINING:
        raise ValueError(f"mining {mining!r} is unknown{nearest(mining, MINING)}; known: {', '.join(MINING)}")
    rows = unit(as_rows(embedding, labels))
    squared = squared_distances(rows).clamp_min(0)
    apart = separation(squared, distance)
    same = same_identity(labels, rows.device)
    genuine, impostor = same & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device), ~same
    pulled = mean_where(apart.square() / 2, genuine)
    # Of rows without impostors the distance is infinite, and so costs nothing.
    hardest = apart.masked_fill(same, torch.inf).amin(1)
    there = impostor.any(1)
    missing = (margin - (hardest if mining == "hardest" else apart)).clamp_min(0)
    pushed = mean_where(missing.square() / 2, there if mining == "hardest" else impostor)
    far, near = apart.detach(), hardest.detach()
    inside = (far < margin).to(rows.dtype)
    terms = {
        "active_all": mean_where(inside, impostor),
        "active_mined": mean_where((near < margin).to(rows.dtype), there)
        if mining == "hardest"
        else mean_where(inside, impostor),
        "distance_positive": mean_where(far, genuine),
        "distance_negative": mean_where(far, impostor),
        "distance_hardest": mean_where(near, there),
    }
    terms |= cosine_terms((1 - squared / 2).detach(), genuine, impostor)
    return Compared((pulled + pushed) / 2 + nothing(rows), terms | {"mean_cosine": mean_cosine(rows)})
