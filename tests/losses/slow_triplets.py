"""Triplet loss and its mining in plain Python: every rule as a loop over rows."""

from __future__ import annotations

import math

from fastface.data.plan import hash_numbers
from tests.losses import slow
from tests.losses.slow import Rows

Triplet = tuple[int, int, int]


def distances(rows: Rows, distance: str) -> list[list[float]]:
    power = 0.5 if distance == "plain" else 1.0
    return [[slow.squared(x, y) ** power for y in rows] for x in rows]


def share(key: int, anchor: int, positive: int) -> float:
    """Turn a pair into its random number in [0, 1)."""
    return (hash_numbers(key, anchor, positive) >> 11) / 2**53


def pairs(labels: list[int]) -> list[tuple[int, int]]:
    rows = range(len(labels))
    return [(a, p) for a in rows for p in rows if a != p and labels[a] == labels[p]]


def others(labels: list[int], anchor: int) -> list[int]:
    return [n for n in range(len(labels)) if labels[n] != labels[anchor]]


def weight(distance: float, size: int) -> float:
    """Weigh a negative by 1 / q(d), equation in section 4 of Wu et al.; at most as at 0.5, nothing from 1.4 on."""
    if distance >= 1.4:
        return 0.0
    d = max(distance, 0.5)
    return 1 / (d ** (size - 2) * (1 - d * d / 4) ** ((size - 3) / 2))


def mined(rows: Rows, labels: list[int], margin: float, distance: str, mining: str, key: int) -> list[Triplet]:
    d = distances(rows, distance)
    found = []
    if mining == "batch-hard":
        for a in range(len(rows)):
            positives = [p for b, p in pairs(labels) if b == a]
            negatives = others(labels, a)
            if positives and negatives:
                farthest = max(positives, key=lambda p: d[a][p])
                found.append((a, farthest, min(negatives, key=lambda n: d[a][n])))
        return found
    for a, p in pairs(labels):
        negatives = others(labels, a)
        if mining == "hardest":
            found += [(a, p, min(negatives, key=lambda n: d[a][n]))] if negatives else []
        elif mining == "all":
            found += [(a, p, n) for n in negatives]
        elif mining == "distance-weighted":
            plain = distances(rows, "plain")[a]
            weights = [weight(plain[n], len(rows[0])) for n in negatives]
            drawn = share(key, a, p) * sum(weights)
            for n, one in zip(negatives, weights, strict=True):
                if 0 <= drawn < one:
                    found.append((a, p, n))
                drawn -= one
        else:
            lowest = d[a][p] if mining == "semi-hard" else -1.0
            valid = [n for n in negatives if lowest < d[a][n] < d[a][p] + margin]
            found += [(a, p, valid[int(share(key, a, p) * len(valid))])] if valid else []
    return found


def loss_and_terms(
    rows: Rows,
    labels: list[int],
    *,
    margin: float = 0.2,
    distance: str = "squared",
    mining: str = "semi-hard",
    over: str = "selected",
    soft: bool = False,
    key: int = 0,
    normalise: bool = True,
) -> tuple[float, dict[str, float]]:
    terms = {"mean_cosine": slow.mean_cosine(rows)}
    rows = [slow.unit(row) for row in rows] if normalise else rows
    d = distances(rows, distance)
    triplets = mined(rows, labels, margin, distance, mining, key)
    leads = [d[a][p] - d[a][n] + (0.0 if soft else margin) for a, p, n in triplets]
    losses = [math.log1p(math.exp(lead)) if soft else max(lead, 0.0) for lead in leads]
    active = [lead > 0 for lead in leads]
    anchored = [a if mining == "batch-hard" else (a, p) for a, p, _ in triplets]
    candidates = {a if mining == "batch-hard" else (a, p) for a, p in pairs(labels)}
    terms["active"] = slow.mean([float(one) for one in active])
    terms["mining_success"] = len(set(anchored)) / max(len(candidates), 1)
    terms["distance_positive"] = slow.mean([d[a][p] for a, p, _ in triplets])
    terms["distance_negative"] = slow.mean([d[a][n] for a, _, n in triplets])
    terms["num_triplets"] = float(len(triplets))
    if over == "active":
        losses = [loss for loss, counts in zip(losses, active, strict=True) if counts]
    return slow.mean(losses), terms
