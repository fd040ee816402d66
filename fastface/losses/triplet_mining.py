"""Distances and identities -> triplets: which negative each anchor-positive pair is compared with.

Rules take distances [N, N] without gradient, in the measure of the loss. Nothing here asks the device for a value but
`anchor_positive_pairs`, whose result has as many rows as there are pairs.

A random choice is a function of the key and of the two rows' positions in the global batch, nothing else: it does not
depend on the device, on the number of processes, on the chunk, or on other pairs. (Distances are rounded differently by
different devices. Where one lies on the edge of a rule to the last bit, the set that is chosen from may differ.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastface.data.plan import GOLDEN, hash_numbers

# Wu et al., "Sampling matters in deep embedding learning", ICCV 2017. Section 4 bounds the weight of close negatives;
# the number is from the authors' published code, and so is the second: from 1.4 on, a negative no longer costs anything
# in their experiments, so that it need not be drawn.
CLOSEST = 0.5  # negatives nearer than this weigh as much as one at this distance
FARTHEST = 1.4  # negatives at this distance and beyond are not drawn
WEIGHT_STEPS = 1 << 30  # weights are integers up to this: their sums are exact, the same in any order


class Triplets(NamedTuple):
    """Rows of the batch that are compared, one triplet a row; a fixed number of rows, whatever is found."""

    anchor: Tensor  # int64 [T]
    positive: Tensor  # int64 [T]
    negative: Tensor  # int64 [T], any row where none was found
    found: Tensor  # bool [T], False where the rule has no negative for the pair


Rule = Callable[[Tensor, Tensor, float], Tensor]  # (d(a, .) [C, N], d(a, p) [C, 1], margin) -> bool [C, N]


def semi_hard(distances: Tensor, positive: Tensor, margin: float) -> Tensor:
    """Mark rows farther than the positive, by less than the margin (FaceNet, Schroff et al., CVPR 2015, equation 4)."""
    return (distances > positive) & (distances < positive + margin)


def violators(distances: Tensor, positive: Tensor, margin: float) -> Tensor:
    """Mark all rows that are not farther than the positive by the margin, nearer ones included."""
    return distances < positive + margin


RULES: dict[str, Rule] = {"semi-hard": semi_hard, "violators": violators}


def anchor_positive_pairs(labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """List all ordered pairs (a, p) of different rows of one identity: int64 [T] each, ascending, on `device`.

    P identities with K rows each make P * K * (K - 1). Their number depends on the labels: where these lie on a CUDA
    device, the host waits once for all that is queued there. Labels on the CPU cost no wait.
    """
    same = labels[:, None] == labels[None, :]
    anchor, positive = same.fill_diagonal_(False).nonzero(as_tuple=True)
    if device.type == "cuda" and labels.device.type == "cpu":
        anchor, positive = anchor.pin_memory(), positive.pin_memory()  # else the copy would wait
    return anchor.to(device, non_blocking=True), positive.to(device, non_blocking=True)


def random_negatives(
    distances: Tensor, same: Tensor, pairs: tuple[Tensor, Tensor], rule: Rule, margin: float, key: int, chunk: int
) -> Triplets:
    """Choose for every pair one of the negatives that its rule marks, each with the same probability."""

    def counted(anchor: Tensor, positive: Tensor) -> Tensor:
        rows = distances[anchor]
        marked = rule(rows, distances[anchor, positive][:, None], margin) & ~same[anchor]
        return marked.cumsum(1, dtype=torch.int32)

    return _drawn(pairs, counted, key, chunk)


def distance_weighted(
    distances: Tensor, same: Tensor, pairs: tuple[Tensor, Tensor], size: int, key: int, chunk: int
) -> Triplets:
    """Choose for every pair a negative with probability proportional to 1 / q(d), at most 1 / q(CLOSEST).

    q(d) = d^(D-2) (1 - d^2/4)^((D-3)/2) is the density of distances between random points on the sphere in D = `size`
    dimensions: the draw is even over distances (Wu et al. 2017, section 4). distances: plain, of unit vectors. A pair
    whose anchor has no negative nearer than FARTHEST has none. Weights below 2^-31 of the anchor's largest are 0.
    """
    near = distances.clamp_min(CLOSEST)
    weights = -(size - 2) * near.log() - (size - 3) / 2 * torch.log1p(-near.square() / 4)
    weights = weights.masked_fill(same | ~(distances < FARTHEST), -torch.inf)
    steps = ((weights - weights.amax(1, keepdim=True)).exp() * WEIGHT_STEPS).round()
    steps = steps.nan_to_num(0.0)  # -inf - -inf, where an anchor has nobody: devices make various integers of NaN
    total = steps.to(torch.int64).cumsum(1)
    return _drawn(pairs, lambda anchor, positive: total[anchor], key, chunk)


def hardest(distances: Tensor, same: Tensor, pairs: tuple[Tensor, Tensor]) -> Triplets:
    """Choose for every pair the negative nearest to its anchor."""
    nearest, negative = distances.masked_fill(same, torch.inf).min(1)
    return Triplets(*pairs, negative[pairs[0]], (nearest < torch.inf)[pairs[0]])


def batch_hard(distances: Tensor, same: Tensor) -> Triplets:
    """Choose for every anchor its farthest positive and its nearest negative, T = N (Hermans et al. 2017, equation 5).

    An anchor without a positive, or without a negative, has no triplet.
    """
    itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
    farthest, positive = distances.masked_fill(~same | itself, -torch.inf).max(1)
    nearest, negative = distances.masked_fill(same, torch.inf).min(1)
    anchor = torch.arange(len(same), device=same.device)
    return Triplets(anchor, positive, negative, (farthest > -torch.inf) & (nearest < torch.inf))


def _drawn(
    pairs: tuple[Tensor, Tensor], cumulated: Callable[[Tensor, Tensor], Tensor], key: int, chunk: int
) -> Triplets:
    """Draw a column for every pair; `cumulated` returns the running sums [C, N] of integer weights of C pairs."""
    anchor, positive = pairs
    negative, found = torch.zeros_like(anchor), torch.zeros_like(anchor, dtype=torch.bool)
    shares = (pair_hashes(key, anchor, positive) >> 10).to(torch.float64) * 2**-53  # in [0, 1), 53 bits
    for start in range(0, len(anchor), chunk):
        part = slice(start, start + chunk)
        sums = cumulated(anchor[part], positive[part])
        total = sums[:, -1].to(torch.int64)
        # A share of the total, no remainder by it, which would leap where another device rounds one weight otherwise.
        place = ((shares[part] * total).to(torch.int64) + 1).to(sums.dtype)
        drawn = torch.searchsorted(sums, place[:, None])[:, 0]
        negative[part] = drawn.clamp_max(sums.shape[1] - 1)
        found[part] = total > 0
    return Triplets(anchor, positive, negative, found)


def pair_hashes(key: int, first: Tensor, second: Tensor) -> Tensor:
    """Hash (key, first, second) to 63 bits: int64 [T], data.plan.hash_numbers(key, first, second) >> 1.

    int64 stands for uint64 here, for which torch lacks most operations: sums and products wrap to the same bits.
    """
    value = torch.full_like(first, _signed(hash_numbers(int(key))))  # keys of slots are numpy's uint64
    for number in (first, second):
        value = (value ^ number) + _signed(GOLDEN)
        value = (value ^ _shifted(value, 30)) * _signed(0xBF58476D1CE4E5B9)
        value = (value ^ _shifted(value, 27)) * _signed(0x94D049BB133111EB)
        value = value ^ _shifted(value, 31)
    return _shifted(value, 1)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Shift int64 right as if it were uint64: torch repeats the sign bit, which the mask clears."""
    return (value >> bits) & ((1 << 64 - bits) - 1)


def _signed(number: int) -> int:
    """Return the int64 with the bits of a uint64."""
    return number - (1 << 64) if number >> 63 else number
