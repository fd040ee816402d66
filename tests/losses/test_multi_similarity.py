"""Multi-similarity loss against its equations as loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fastface.losses.multi_similarity import multi_similarity_loss
from tests.losses import slow
from tests.losses.slow import Rows


def reference(
    rows: Rows,
    labels: list[int],
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float | None = 0.1,
) -> tuple[float, dict[str, float]]:
    vectors = [slow.unit(row) for row in rows]
    losses, kept, there = [], [0, 0], [0, 0]
    for i, anchor in enumerate(vectors):
        own = [slow.dot(anchor, x) for j, x in enumerate(vectors) if labels[j] == labels[i] and j != i]
        others = [slow.dot(anchor, x) for j, x in enumerate(vectors) if labels[j] != labels[i]]
        positives, negatives = own, others
        if epsilon is not None:
            positives = [c for c in own if others and c < max(others) + epsilon]
            negatives = [c for c in others if own and c > min(own) - epsilon]
        kept = [kept[0] + len(positives), kept[1] + len(negatives)]
        there = [there[0] + len(own), there[1] + len(others)]
        pulled = math.log(1 + sum(math.exp(-alpha * (c - base)) for c in positives)) / alpha
        pushed = math.log(1 + sum(math.exp(beta * (c - base)) for c in negatives)) / beta
        losses.append(pulled + pushed)
    return sum(losses) / len(rows), {
        "cosine_positive": slow.mean(slow.cosines(rows, labels, genuine=True)),
        "cosine_negative": slow.mean(slow.cosines(rows, labels, genuine=False)),
        "kept_positive": kept[0] / max(there[0], 1),
        "kept_negative": kept[1] / max(there[1], 1),
        "mean_cosine": slow.mean_cosine(rows),
    }


@pytest.mark.parametrize(
    "settings",
    [{}, {"epsilon": None}, {"epsilon": 0.0}, {"epsilon": 0.5}, {"alpha": 5.0, "beta": 10.0, "base": 0.2}],
    ids=lambda settings: ",".join(f"{name}={value}" for name, value in settings.items()) or "default",
)
@pytest.mark.parametrize("labels", [slow.MIXED, [0, 0], [0, 1, 0], [0, 0, 1, 1, 2, 2, 2]])
def test_loss_gradient_and_terms_equal_the_loop(labels: list[int], settings: dict[str, Any]) -> None:
    embedding, wanted = slow.batch(labels, size=5, seed=4)
    slow.expect(
        lambda x: multi_similarity_loss(x, wanted, **settings),
        lambda rows: reference(rows, labels, **settings),
        embedding,
    )


def test_mining_leaves_some_and_takes_some() -> None:
    embedding, labels = slow.batch([row % 6 for row in range(30)], size=5)
    terms = multi_similarity_loss(embedding, labels).terms
    assert 0 < terms["kept_positive"] < 1
    assert 0 < terms["kept_negative"] < 1


@pytest.mark.parametrize("labels", [[0], [0, 1], [3, 2, 1, 0], [5, 5, 5]], ids=["one", "two", "unique", "identity"])
def test_nothing_to_compare_costs_nothing(labels: list[int]) -> None:
    embedding, wanted = slow.batch(labels)
    embedding.requires_grad_()
    slow.expect_nothing(multi_similarity_loss(embedding, wanted), embedding)


def test_collapse_shows() -> None:
    result = multi_similarity_loss(torch.ones(8, 4, dtype=torch.float64), torch.arange(8) // 2)
    pulled = math.log(1 + math.exp(-1.0)) / 2
    pushed = math.log(1 + 6 * math.exp(25.0)) / 50
    assert result.loss.item() == pytest.approx(pulled + pushed)
    assert result.terms["mean_cosine"].item() == pytest.approx(1.0)


def test_steep_weights_do_not_overflow() -> None:
    embedding, labels = slow.batch(slow.MIXED)
    embedding = embedding.float().requires_grad_()
    loss = multi_similarity_loss(embedding, labels, alpha=500.0, beta=5000.0, epsilon=None).loss
    loss.backward()
    assert loss.isfinite()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha 0.0 must be positive"),
        ({"beta": -50.0}, "beta -50.0 must be positive"),
        ({"beta": math.inf}, "beta inf must be positive"),
        ({"base": math.nan}, "base nan must be finite"),
        ({"epsilon": -0.1}, "epsilon -0.1 must be finite"),
        ({"epsilon": math.nan}, "epsilon nan must be finite"),
    ],
)
def test_meaningless_settings_are_refused(settings: dict[str, float], message: str) -> None:
    embedding, labels = slow.batch(slow.MIXED)
    with pytest.raises(ValueError, match=message):
        multi_similarity_loss(embedding, labels, **settings)
