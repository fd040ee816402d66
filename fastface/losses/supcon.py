"""Embeddings and identities -> supervised contrastive loss: a softmax over all other rows, with several right ones."""

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
    mean_where,
    nothing,
    same_identity,
    unit,
)


def supcon_loss(embedding: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Compared:
    """Return L_out of Khosla et al., "Supervised contrastive learning", NeurIPS 2020, equation 2, as a mean.

    For an anchor i with the positives P(i), cosines c and the temperature t:

        -1 / |P(i)| * sum over p in P(i) of log( exp(c_ip / t) / sum over a != i of exp(c_ia / t) )

    averaged over the anchors that have a positive (the paper sums; its code averages). Rows of an identity that is
    there once stand in the denominators of others only. 0 with zero gradient where no anchor has a positive.

    embedding: [N, D], scaled to length 1 here; labels: integers [N]. Memory: some 6 matrices [N, N].
    terms: cosine_positive, cosine_negative (means over pairs), anchors (share of the rows with a positive),
    mean_cosine.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature {temperature} must be positive and finite; the paper's is 0.1")
    rows = unit(as_rows(embedding, labels))
    cosine = dot_products(rows)
    same = same_identity(labels, rows.device)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    genuine = same & ~itself
    positives = genuine.sum(1)
    logits = cosine / temperature
    everyone = logits.masked_fill(itself, -torch.inf).logsumexp(1)
    each = everyone - torch.where(genuine, logits, 0).sum(1) / positives.clamp_min(1)
    terms = cosine_terms(cosine.detach(), genuine, ~same)
    terms |= {"anchors": (positives > 0).to(rows.dtype).mean(), "mean_cosine": mean_cosine(rows)}
    return Compared(mean_where(each, positives > 0) + nothing(rows), terms)
