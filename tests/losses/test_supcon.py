"""Supervised contrastive loss against its equation as a loop."""

from __future__ import annotations

import math

import pytest
import torch

from fastface.losses.supcon import supcon_loss
from tests.losses import slow
from tests.losses.slow import Rows


def reference(rows: Rows, labels: list[int], temperature: float) -> tuple[float, dict[str, float]]:
    vectors = [slow.unit(row) for row in rows]
    losses = []
    for i, anchor in enumerate(vectors):
        others = [j for j in range(len(vectors)) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        if positives:
            total = sum(math.exp(slow.dot(anchor, vectors[j]) / temperature) for j in others)
            terms = [math.log(math.exp(slow.dot(anchor, vectors[j]) / temperature) / total) for j in positives]
            losses.append(-sum(terms) / len(positives))
    return slow.mean(losses), {
        "cosine_positive": slow.mean(slow.cosines(rows, labels, genuine=True)),
        "cosine_negative": slow.mean(slow.cosines(rows, labels, genuine=False)),
        "anchors": len(losses) / len(rows),
        "mean_cosine": slow.mean_cosine(rows),
    }


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("labels", [slow.MIXED, [0, 0], [2, 2, 2, 2], [0, 1, 0], [0, 0, 1, 1]])
def test_loss_gradient_and_terms_equal_the_loop(labels: list[int], temperature: float) -> None:
    embedding, wanted = slow.batch(labels, seed=2)
    slow.expect(
        lambda x: supcon_loss(x, wanted, temperature=temperature),
        lambda rows: reference(rows, labels, temperature),
        embedding,
    )


@pytest.mark.parametrize("labels", [[0], [0, 1], [3, 2, 1, 0]], ids=["one", "two", "unique"])
def test_no_positive_costs_nothing(labels: list[int]) -> None:
    embedding, wanted = slow.batch(labels)
    embedding.requires_grad_()
    slow.expect_nothing(supcon_loss(embedding, wanted), embedding)


def test_two_rows_of_one_identity_have_no_other_choice() -> None:
    embedding, labels = slow.batch([4, 4])
    embedding.requires_grad_()
    result = supcon_loss(embedding, labels)
    result.loss.backward()
    assert result.loss.item() == 0.0  # log 1: all the weight is on the only other row
    assert embedding.grad is not None
    assert embedding.grad.abs().max() < 1e-12


def test_collapse_costs_the_logarithm_of_the_others() -> None:
    result = supcon_loss(torch.ones(12, 4, dtype=torch.float64), torch.arange(12) // 3)
    assert result.loss.item() == pytest.approx(math.log(11))
    assert result.terms["mean_cosine"].item() == pytest.approx(1.0)


def test_small_temperatures_do_not_overflow() -> None:
    embedding, labels = slow.batch(slow.MIXED)
    assert supcon_loss(embedding.float(), labels, temperature=1e-3).loss.isfinite()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_without_meaning_is_refused(temperature: float) -> None:
    embedding, labels = slow.batch(slow.MIXED)
    with pytest.raises(ValueError, match=r"must be positive and finite; the paper's is 0\.1"):
        supcon_loss(embedding, labels, temperature=temperature)
