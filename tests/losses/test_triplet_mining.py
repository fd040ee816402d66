"""Mining: every choice of the random rules comes with its probability, from the key and the two positions alone."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from fastface.data.plan import hash_numbers
from fastface.losses import triplet_mining
from fastface.losses.compared import root, same_identity, squared_distances, unit
from fastface.losses.triplet_mining import RULES, Triplets
from tests.losses import slow, slow_triplets

CPU = torch.device("cpu")
KEYS = 500  # keys that a test of frequencies draws with; they are fixed, and so is what comes out


def mine(mining: str, embedding: Tensor, labels: Tensor, key: int, margin: float = 0.4, chunk: int = 64) -> Triplets:
    rows = unit(embedding)
    squared, same = squared_distances(rows), same_identity(labels, CPU)
    pairs = triplet_mining.anchor_positive_pairs(labels, CPU)
    if mining == "distance-weighted":
        return triplet_mining.distance_weighted(root(squared), same, pairs, rows.shape[1], key, chunk)
    return triplet_mining.random_negatives(squared, same, pairs, RULES[mining], margin, key, chunk)


def listed(triplets: Triplets) -> list[tuple[int, int, int]]:
    rows = zip(*(column.tolist() for column in triplets), strict=True)
    return [(a, p, n) for a, p, n, found in rows if found]


RANDOM = pytest.mark.parametrize("mining", [*RULES, "distance-weighted"])


@pytest.mark.parametrize("key", [0, 1, 12345, 2**63, 2**64 - 1])
def test_hashes_are_those_of_the_plans(key: int) -> None:
    first, second = torch.tensor([0, 1, 2, 1799, 2**40]), torch.tensor([3, 1, 0, 1798, 5])
    found = triplet_mining.pair_hashes(key, first, second).tolist()
    assert found == [hash_numbers(key, a, b) >> 1 for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    keys = np.array([key], np.uint64)  # as Slots has them
    assert triplet_mining.pair_hashes(keys[0], first, second).tolist() == found


@pytest.mark.parametrize("labels", [slow.MIXED, [0], [1, 2, 3], [6, 6, 6], [-1, 4, -1]])
def test_pairs_equal_the_loop(labels: list[int]) -> None:
    anchor, positive = triplet_mining.anchor_positive_pairs(torch.tensor(labels), CPU)
    assert list(zip(anchor.tolist(), positive.tolist(), strict=True)) == slow_triplets.pairs(labels)


@RANDOM
@pytest.mark.parametrize("key", [0, 7, 2**64 - 3])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_picks_equal_the_loop(mining: str, key: int, chunk: int) -> None:
    embedding, labels = slow.batch([row % 5 for row in range(20)], size=6)
    rows = [slow.unit(row) for row in embedding.tolist()]
    expected = slow_triplets.mined(rows, labels.tolist(), 0.4, "squared", mining, key)
    assert len(expected) > 20
    assert listed(mine(mining, embedding, labels, key, chunk=chunk)) == expected


@pytest.mark.parametrize("rule", ["hardest", "batch-hard"])
def test_hardest_equal_the_loop(rule: str) -> None:
    embedding, labels = slow.batch([row % 5 for row in range(20)] + [5], size=6)
    distances, same = squared_distances(embedding), same_identity(labels, CPU)
    pairs = triplet_mining.anchor_positive_pairs(labels, CPU)
    hardest = triplet_mining.hardest
    found = hardest(distances, same, pairs) if rule == "hardest" else triplet_mining.batch_hard(distances, same)
    assert listed(found) == slow_triplets.mined(embedding.tolist(), labels.tolist(), 0.4, "squared", rule, 0)


def valid_negatives(mining: str, embedding: Tensor, labels: list[int]) -> dict[tuple[int, int], dict[int, float]]:
    """Give for each pair the probability of each negative, from distances in plain Python."""
    rows = [slow.unit(row) for row in embedding.tolist()]
    found: dict[tuple[int, int], dict[int, float]] = {}
    for a, p in slow_triplets.pairs(labels):
        near = slow.squared(rows[a], rows[p])
        weights = {}
        for n in slow_triplets.others(labels, a):
            far = slow.squared(rows[a], rows[n])
            if mining == "distance-weighted":
                weights[n] = slow_triplets.weight(far**0.5, len(rows[0]))
            else:
                weights[n] = float(far < near + 0.4 and (far > near or mining == "violators"))
        total = sum(weights.values())
        found[a, p] = {n: one / total for n, one in weights.items() if one > 0}
    return found


@RANDOM
def test_every_negative_comes_with_its_probability(mining: str) -> None:
    embedding, labels = slow.batch([row % 4 for row in range(20)], size=4)
    probabilities = valid_negatives(mining, embedding, labels.tolist())
    seen: dict[tuple[int, int], Counter[int]] = {pair: Counter() for pair in probabilities}
    for key in range(KEYS):
        for a, p, n in listed(mine(mining, embedding, labels, hash_numbers(key), chunk=1000)):
            seen[a, p][n] += 1
    values = []
    for pair, expected in probabilities.items():
        assert seen[pair].keys() <= expected.keys()
        likely = [n for n, one in expected.items() if one * KEYS >= 5]
        if len(likely) > 1:
            counts = np.array([seen[pair][n] for n in likely])
            shares = np.array([expected[n] for n in likely])
            values.append(float(chisquare(counts, shares / shares.sum() * counts.sum()).pvalue))
    assert len(values) > 20
    assert min(values) > 1e-3 / len(values)
    assert chisquare(np.histogram(values, 4, (0, 1))[0]).pvalue > 1e-3  # neither too uneven nor too even


def test_pairs_choose_independently() -> None:
    """Two pairs with the same anchor and the same four negatives: all 16 outcomes are as frequent."""
    embedding = torch.eye(7, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 2, 3, 4])
    outcomes: Counter[tuple[int, int]] = Counter()
    for key in range(800):
        chosen = {(a, p): n for a, p, n in listed(mine("violators", embedding, labels, key))}
        outcomes[chosen[0, 1], chosen[0, 2]] += 1
    assert len(outcomes) == 16
    assert chisquare(list(outcomes.values())).pvalue > 1e-3


@RANDOM
def test_a_pick_depends_on_the_key_and_the_positions_only(mining: str) -> None:
    embedding, labels = slow.batch([row % 5 for row in range(20)], size=6)
    embedding = torch.cat([embedding, torch.full((20, 1), 3.0, dtype=torch.float64)], dim=1)  # all on one side
    choose = partial(mine, mining)
    first = listed(choose(embedding, labels, 5))
    assert len(first) > 20
    assert listed(choose(embedding, labels, 5)) == first
    assert listed(choose(embedding, labels, 6)) != first
    # Three more people on the other side, out of reach of all rules: nobody chooses otherwise.
    opposite = torch.tensor([[0.0] * 6 + [-1.0]], dtype=torch.float64).expand(3, -1)
    more = torch.cat([embedding, opposite]), torch.cat([labels, torch.tensor([90, 91, 92])])
    assert listed(choose(*more, 5)) == first


def test_a_negative_beyond_all_weight_is_not_drawn() -> None:
    # Right angles are 1.414 apart, beyond 1.4.
    embedding = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert listed(mine("distance-weighted", embedding, torch.tensor([0, 0, 1]), 0)) == []


@pytest.mark.parametrize("size", [2, 3, 128, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_many_dimensions_do_not_overflow(size: int, dtype: torch.dtype) -> None:
    """Close, equal and opposite rows; 0.5^-2046 is beyond float64."""
    embedding = torch.eye(8, size, dtype=dtype) if size >= 8 else torch.randn(8, size, dtype=dtype)
    embedding[1:5] = embedding[0] + torch.linspace(0, 0.9, 4, dtype=dtype)[:, None] * embedding[7]
    embedding[5] = -embedding[0]
    found = listed(mine("distance-weighted", embedding, torch.tensor([0, 1, 2, 3, 4, 5, 0, 0]), 3))
    reach = squared_distances(unit(embedding)).sqrt()
    assert all(reach[a, n] < triplet_mining.FARTHEST for a, _, n in found)
    assert {a for a, _, _ in found} >= {0}
