"""Embeddings and identities -> triplet loss: the own identity must be nearer than others, by a margin.

    [ d(a, p) - d(a, n) + margin ]_+

for an anchor a, a positive p of the same identity and a negative n of another one (FaceNet, Schroff et al., CVPR
2015, equation 3, where d is the squared distance of unit vectors and the margin 0.2).

What `mining` compares:

    semi-hard          each anchor-positive pair with a random negative that is farther than the positive, by less than
                       the margin (FaceNet, section 3.2)
    violators          the same with a random one of all negatives that cost something, nearer ones included
    hardest            each anchor-positive pair with the anchor's nearest negative (FaceNet, section 3.1)
    batch-hard         each anchor with its farthest positive and its nearest negative (Hermans et al. 2017, equation 5)
    distance-weighted  each anchor-positive pair with a negative drawn evenly over distances (Wu et al., ICCV 2017)
    all                each anchor-positive pair with every negative (Hermans et al. 2017, equation 6)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastface.losses import triplet_mining
from fastface.losses.compared import (
    Compared,
    as_rows,
    mean_cosine,
    mean_where,
    nothing,
    root,
    same_identity,
    share,
    squared_distances,
    unit,
)
from fastface.losses.triplet_mining import Triplets
from fastface.spelling import nearest
from fastface.timing import Watch, silent

DISTANCES = ("squared", "plain")
MINING = ("semi-hard", "violators", "hardest", "batch-hard", "distance-weighted", "all")
OVER = ("selected", "active")
CHUNK_ELEMENTS = 1 << 22  # distances that a chunk looks at where none is given: 70 MB in float32


def triplet_loss(
    embedding: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.2,
    distance: str = "squared",
    mining: str = "semi-hard",
    over: str = "selected",
    soft: bool = False,
    chunk: int | None = None,
    key: int = 0,
    normalise: bool = True,
    watch: Watch = silent,
) -> Compared:
    """Compare the rows of a step in triplets.

    embedding: [N, D]; labels: integers [N], on the CPU or the embeddings' device (the CPU saves a wait, see
    `triplet_mining.anchor_positive_pairs`). Pairs are ordered: (i, j) and (j, i) are two. An identity with one row has
    no pair, and serves as negative.

    distance   squared: |x - y|^2, 0 to 4 for unit vectors; plain: |x - y|, 0 to 2. The margin is in the same measure.
    mining     a rule of the module's table. A pair without a negative that fits drops out.
    over       the loss is the mean over the selected triplets, or over those with a positive loss ("active").
    soft       log(1 + exp(d(a, p) - d(a, n))) instead of the hinge (Hermans et al. 2017): the margin then acts in
               the mining of semi-hard and violators only.
    chunk      anchor-positive pairs looked at together, None: as many as make 2^22 distances. Changes the memory
               and the speed only, but for the rounding of sums with "all".
    key        all randomness of semi-hard, violators and distance-weighted; give every step another.
    normalise  scale embeddings to length 1 first.
    watch      times the choice of triplets as "mining".

    Without a triplet the loss is 0 with zero gradient; where an embedding is not finite it is NaN.

    Memory, for float32: at the peak 4 matrices of 4 * N * N bytes with squared distances and 5 with plain ones (all: 5
    and 6, distance-weighted: 9 and 10), 80 bytes a pair, and 17 bytes * chunk * N while mining: 53 MB for FaceNet's
    45 x 40 rows in chunks of 90. No tensor has more elements than max(N * N, chunk * N, N * D, 2 * number of pairs).

    terms: active (share of the triplets with d(a, n) < d(a, p) + margin; without margin if soft), mining_success
    (share of the anchor-positive pairs, of batch-hard's anchors with a positive, for which there is a negative),
    distance_positive and distance_negative (means over the triplets), num_triplets, mean_cosine.
    """
    check_triplet(margin, distance, mining, over, soft, chunk, normalise)
    rows = as_rows(embedding, labels)
    rows = unit(rows) if normalise else rows
    squared = squared_distances(rows)
    distances = root(squared) if distance == "plain" else squared
    same = same_identity(labels, rows.device)
    chunk = chunk or max(CHUNK_ELEMENTS // len(rows), 1)
    terms = {"mean_cosine": mean_cosine(rows)}
    if mining == "all":
        loss, more = _all_triplets(distances, labels, same, 0.0 if soft else margin, over, soft, chunk)
        return Compared(loss, terms | more)
    with torch.no_grad(), watch("mining"):
        triplets, candidates = _mined(mining, squared, distances, labels, same, rows.shape[1], margin, key, chunk)
    positive = distances[triplets.anchor, triplets.positive]
    negative = distances[triplets.anchor, triplets.negative]
    lead = positive - negative if soft else positive - negative + margin
    each = F.softplus(lead) if soft else lead.clamp_min(0)
    active = triplets.found & (lead.detach() > 0)
    loss = mean_where(each, active if over == "active" else triplets.found) + nothing(rows)
    terms |= {
        "active": share(active.sum(), triplets.found.sum(), rows.dtype),
        "mining_success": share(triplets.found.sum(), candidates, rows.dtype),
        "distance_positive": mean_where(positive.detach(), triplets.found),
        "distance_negative": mean_where(negative.detach(), triplets.found),
        "num_triplets": triplets.found.sum().to(rows.dtype),
    }
    return Compared(loss, terms)


def check_triplet(
    margin: float, distance: str, mining: str, over: str, soft: bool, chunk: int | None, normalise: bool
) -> None:
    """Refuse settings that have no meaning, with a ValueError that says which."""
    for name, value, known in (("distance", distance, DISTANCES), ("mining", mining, MINING), ("over", over, OVER)):
        if value not in known:
            raise ValueError(f"{name} {value!r} is unknown{nearest(value, known)}; known: {', '.join(known)}")
    if not (margin >= 0 and math.isfinite(margin)):
        raise ValueError(f"margin {margin} must be finite and not negative; FaceNet's is 0.2 for squared distances")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk {chunk} must be at least 1: the number of anchor-positive pairs looked at together")
    if soft and over == "active":
        raise ValueError("every triplet of a soft loss costs something: set over to selected, or soft to false")
    if mining == "distance-weighted" and not normalise:
        raise ValueError("distance-weighted mining knows the distances of unit vectors only: set normalise to true")


def _mined(
    mining: str,
    squared: Tensor,
    distances: Tensor,
    labels: Tensor,
    same: Tensor,
    size: int,
    margin: float,
    key: int,
    chunk: int,
) -> tuple[Triplets, Tensor | int]:
    """Return the triplets of a rule and how many there could be."""
    if mining == "batch-hard":
        return triplet_mining.batch_hard(distances, same), (same.sum(1) > 1).sum()
    pairs = triplet_mining.anchor_positive_pairs(labels, distances.device)
    if mining == "hardest":
        return triplet_mining.hardest(distances, same, pairs), len(pairs[0])
    if mining == "distance-weighted":
        return triplet_mining.distance_weighted(root(squared), same, pairs, size, key, chunk), len(pairs[0])
    rule = triplet_mining.RULES[mining]
    return triplet_mining.random_negatives(distances, same, pairs, rule, margin, key, chunk), len(pairs[0])


def _all_triplets(
    distances: Tensor, labels: Tensor, same: Tensor, margin: float, over: str, soft: bool, chunk: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and terms over all triplets, with the memory of a chunk.

    Autograd would keep a mask for each of the triplets. The derivative by the distances [N, N] is summed up beside the
    value instead, and handed to autograd as the slope of a function that is linear in them.
    """
    anchor, positive = triplet_mining.anchor_positive_pairs(labels, distances.device)
    fixed, different = distances.detach(), ~same
    slopes = torch.zeros_like(fixed)
    sums, counts = [fixed.new_zeros(())], [anchor.new_zeros(())]
    for start in range(0, len(anchor), chunk):
        a, p = anchor[start : start + chunk], positive[start : start + chunk]
        lead = (fixed[a, p][:, None] - fixed[a] + margin).masked_fill(~different[a], -torch.inf)  # [C, N]
        counts.append((lead > 0).sum())
        slope = lead.sigmoid() if soft else (lead > 0).to(lead.dtype)
        sums.append((F.softplus(lead) if soft else lead.clamp_min_(0)).sum())
        slopes[a, p] = slope.sum(1)
        slopes.index_put_((a,), slope.neg_(), accumulate=True)  # sums in a fixed order on CUDA, unlike index_add_
    positives, negatives = same.sum(1) - 1, different.sum(1)
    number, active = (positives * negatives).sum(), torch.stack(counts).sum()
    divisor = (active if over == "active" else number).clamp_min(1)
    loss = (torch.stack(sums).sum() + (slopes * (distances - fixed)).sum()) / divisor
    # Each positive stands in as many triplets as its anchor has negatives, and the other way round.
    to_positive = torch.where(same, fixed, 0).sum(1) * negatives - fixed.diagonal() * negatives
    to_negative = torch.where(different, fixed, 0).sum(1) * positives
    return loss, {
        "active": share(active, number, fixed.dtype),
        "mining_success": share(((negatives > 0) * positives).sum(), len(anchor), fixed.dtype),
        "distance_positive": to_positive.sum() / number.clamp_min(1),
        "distance_negative": to_negative.sum() / number.clamp_min(1),
        "num_triplets": number.to(fixed.dtype),
    }
