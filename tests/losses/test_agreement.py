"""Agreement with pytorch-metric-learning, wherever it defines a loss or a rule of mining in the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastface.losses.multi_similarity import multi_similarity_loss
from fastface.losses.pair import pair_contrastive
from fastface.losses.supcon import supcon_loss
from fastface.losses.triplet import triplet_loss
from fastface.losses.triplet_mining import RULES
from tests.losses import slow
from tests.losses.test_triplet_mining import listed, mine

pml = pytest.importorskip(
    "pytorch_metric_learning", reason="needs pytorch-metric-learning, of the extra dev: nothing is compared with it"
)
from pytorch_metric_learning import distances, losses, miners, reducers  # noqa: E402

Theirs = Callable[[Tensor, Tensor], Tensor]
LABELS = [[row % 5 for row in range(20)], [*slow.MIXED, 3, 2, 1, 0]]
BATCHES = pytest.mark.parametrize("labels", LABELS, ids=["even", "uneven"])


def euclid(distance: str) -> Any:
    return distances.LpDistance(p=2, power=2 if distance == "squared" else 1)


def expect(ours: Theirs, theirs: Theirs, labels: list[int], size: int = 6) -> None:
    """Compare values and gradients; the batch is such that both are not 0."""
    embedding, wanted = slow.batch(labels, size=size)
    found = []
    for compute in (ours, theirs):
        x = embedding.clone().requires_grad_()
        loss = compute(x, wanted)
        (gradient,) = torch.autograd.grad(loss, x)
        found.append((loss.detach(), gradient))
    assert found[0][0] > 0
    assert found[0][1].abs().max() > 1e-3
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-9)


@BATCHES
@pytest.mark.parametrize("distance", ["squared", "plain"])
@pytest.mark.parametrize("over", ["selected", "active"])
def test_all_triplets(labels: list[int], distance: str, over: str) -> None:
    reducer = reducers.AvgNonZeroReducer() if over == "active" else reducers.MeanReducer()
    theirs = losses.TripletMarginLoss(margin=0.2, distance=euclid(distance), reducer=reducer)
    expect(lambda x, y: triplet_loss(x, y, distance=distance, mining="all", over=over).loss, theirs, labels)


@BATCHES
@pytest.mark.parametrize("soft", [False, True])
def test_batch_hard(labels: list[int], soft: bool) -> None:
    miner = miners.BatchHardMiner(distance=euclid("plain"))
    loss = losses.TripletMarginLoss(
        margin=0.0 if soft else 0.2, smooth_loss=soft, distance=euclid("plain"), reducer=reducers.MeanReducer()
    )
    expect(
        lambda x, y: triplet_loss(x, y, distance="plain", mining="batch-hard", soft=soft).loss,
        lambda x, y: loss(x, y, miner(x, y)),
        labels,
    )


@BATCHES
@pytest.mark.parametrize("mining", RULES)
def test_mining_draws_from_the_same_triplets(labels: list[int], mining: str) -> None:
    """Theirs lists all triplets that a rule allows; ours, over many keys, comes to see each and no other."""
    embedding, wanted = slow.batch(labels, size=6)
    kind = {"semi-hard": "semihard", "violators": "all"}[mining]
    miner = miners.TripletMarginMiner(margin=0.4, type_of_triplets=kind, distance=euclid("squared"))
    theirs = set(zip(*(column.tolist() for column in miner(embedding, wanted)), strict=True))
    ours = {one for key in range(200) for one in listed(mine(mining, embedding, wanted, key, chunk=1000))}
    assert len(theirs) > 20
    assert ours == theirs


@BATCHES
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_supervised_contrastive(labels: list[int], temperature: float) -> None:
    theirs = losses.SupConLoss(temperature=temperature)
    expect(lambda x, y: supcon_loss(x, y, temperature=temperature).loss, theirs, labels)


@BATCHES
@pytest.mark.parametrize("epsilon", [None, 0.1, 0.3])
def test_multi_similarity(labels: list[int], epsilon: float | None) -> None:
    loss = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    miner = None if epsilon is None else miners.MultiSimilarityMiner(epsilon=epsilon)
    expect(
        lambda x, y: multi_similarity_loss(x, y, epsilon=epsilon).loss,
        lambda x, y: loss(x, y) if miner is None else loss(x, y, miner(x, y)),
        labels,
    )


@pytest.mark.parametrize("distance", ["squared", "plain"])
def test_contrastive(distance: str) -> None:
    """Theirs is not squared: the distances of genuine pairs and what is missing to the margin of the others."""
    loss = losses.ContrastiveLoss(
        pos_margin=0, neg_margin=1.2, distance=euclid(distance), reducer=reducers.DoNothingReducer()
    )

    def theirs(x: Tensor, labels: Tensor) -> Tensor:
        first, second = torch.arange(0, len(x), 2), torch.arange(1, len(x), 2)
        same = labels[first] == labels[second]
        parts = loss(x, indices_tuple=(first[same], second[same], first[~same], second[~same]))
        every = torch.cat([parts["pos_loss"]["losses"], parts["neg_loss"]["losses"]])
        return every.square().mean() / 2

    labels = [0, 0, 1, 2, 3, 3, 0, 1, 2, 2, 4, 5]
    expect(lambda x, y: pair_contrastive(x, y, margin=1.2, distance=distance).loss, theirs, labels, size=4)
