"""Losses of image pairs against loops over the pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fastface.losses.pair import DISTANCES, pair_bce, pair_contrastive
from tests.losses import slow
from tests.losses.slow import Rows

LABELS = [0, 0, 1, 2, 3, 3, 0, 1, 2, 2, 4, 5]
BATCHES = pytest.mark.parametrize("labels", [LABELS, [1, 1], [1, 2], [0, 0, 1, 1], [0, 1, 2, 3]])


def terms_of(rows: Rows, labels: list[int]) -> dict[str, float]:
    cosines = [slow.dot(slow.unit(x), slow.unit(y)) for x, y in zip(rows[0::2], rows[1::2], strict=True)]
    genuine = [a == b for a, b in zip(labels[0::2], labels[1::2], strict=True)]
    return {
        "cosine_positive": slow.mean([c for c, same in zip(cosines, genuine, strict=True) if same]),
        "cosine_negative": slow.mean([c for c, same in zip(cosines, genuine, strict=True) if not same]),
        "positives": sum(genuine) / len(genuine),
        "mean_cosine": slow.mean_cosine(rows),
    }


def slow_bce(rows: Rows, labels: list[int], scale: float, bias: float) -> tuple[float, dict[str, float]]:
    losses, right = [], []
    for i in range(0, len(rows), 2):
        probability = 1 / (1 + math.exp(-scale * slow.dot(slow.unit(rows[i]), slow.unit(rows[i + 1])) - bias))
        same = labels[i] == labels[i + 1]
        losses.append(-math.log(probability if same else 1 - probability))
        right.append(float((probability > 0.5) == same))
    return slow.mean(losses), terms_of(rows, labels) | {"accuracy": slow.mean(right)}


def slow_contrastive(rows: Rows, labels: list[int], margin: float, distance: str) -> tuple[float, dict[str, float]]:
    losses = []
    near, far = [], []
    for i in range(0, len(rows), 2):
        x, y = slow.unit(rows[i]), slow.unit(rows[i + 1])
        d = {"plain": math.dist(x, y), "cosine": 1 - slow.dot(x, y), "squared": math.dist(x, y) ** 2}[distance]
        same = labels[i] == labels[i + 1]
        (near if same else far).append(d)
        losses.append(d * d / 2 if same else max(0.0, margin - d) ** 2 / 2)
    return slow.mean(losses), terms_of(rows, labels) | {
        "active": slow.mean([float(d < margin) for d in far]),
        "distance_positive": slow.mean(near),
        "distance_negative": slow.mean(far),
    }


@BATCHES
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (8.0, -3.0), (0.5, 2.0)])
def test_cross_entropy_equals_the_loop(labels: list[int], scale: float, bias: float) -> None:
    embedding, wanted = slow.batch(labels, seed=6)
    slow.expect(
        lambda x: pair_bce(x, wanted, scale=scale, bias=bias),
        lambda rows: slow_bce(rows, labels, scale, bias),
        embedding,
    )


@BATCHES
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("margin", [0.3, 0.5, 1.5])
def test_contrastive_equals_the_loop(labels: list[int], distance: str, margin: float) -> None:
    embedding, wanted = slow.batch(labels, seed=6)
    slow.expect(
        lambda x: pair_contrastive(x, wanted, margin=margin, distance=distance),
        lambda rows: slow_contrastive(rows, labels, margin, distance),
        embedding,
    )


@pytest.mark.parametrize("shape", [(), (1,)])
def test_scale_and_bias_can_be_learned(shape: tuple[int, ...]) -> None:
    embedding, labels = slow.batch(LABELS)
    rows = embedding.tolist()
    scale = torch.full(shape, 5.0, dtype=torch.float64, requires_grad=True)
    bias = torch.full(shape, -2.0, dtype=torch.float64, requires_grad=True)
    result = pair_bce(embedding, labels, scale=scale, bias=bias)
    result.loss.backward()
    step = 1e-6
    for learned, moved in ((scale, (step, 0.0)), (bias, (0.0, step))):
        ends = [slow_bce(rows, LABELS, 5.0 + sign * moved[0], -2.0 + sign * moved[1])[0] for sign in (1, -1)]
        assert learned.grad is not None
        assert learned.grad.item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)
    assert result.loss.item() == pytest.approx(slow_bce(rows, LABELS, 5.0, -2.0)[0])


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairs_that_are_as_wanted_cost_nothing(distance: str) -> None:
    embedding = torch.tensor([[1.0, 0], [2, 0], [1, 0], [-1, 0]], dtype=torch.float64, requires_grad=True)
    result = pair_contrastive(embedding, torch.tensor([0, 0, 0, 1]), distance=distance)
    result.loss.backward()
    assert 0.0 <= result.loss.item() < 1e-12  # the plain distance of equal rows is 1e-6
    assert embedding.grad is not None
    assert (embedding.grad == 0).all()
    assert result.terms["active"] == 0


@pytest.mark.parametrize("distance", DISTANCES)
def test_collapse_shows(distance: str) -> None:
    result = pair_contrastive(torch.ones(8, 4, dtype=torch.float64), torch.arange(8), distance=distance)
    assert result.loss.item() == pytest.approx(0.5**2 / 2, abs=1e-6)
    assert result.terms["active"] == 1
    assert result.terms["mean_cosine"].item() == pytest.approx(1.0)


def test_large_logits_do_not_overflow() -> None:
    embedding, labels = slow.batch(LABELS)
    assert pair_bce(embedding.float(), labels, scale=1e6, bias=0.0).loss.isfinite()


def test_a_row_without_partner_is_refused() -> None:
    embedding, labels = slow.batch([0, 0, 1])
    with pytest.raises(ValueError, match="there are 3 embeddings"):
        pair_bce(embedding, labels, scale=1.0, bias=0.0)
    with pytest.raises(ValueError, match="there are 3 embeddings"):
        pair_contrastive(embedding, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.0, "bias": 0.0}, "scale 0.0 must be positive"),
        ({"scale": math.nan, "bias": 0.0}, "scale nan must be positive"),
        ({"scale": 1.0, "bias": math.inf}, "bias inf must be finite"),
        ({"margin": 0.0}, "margin 0.0 must be positive"),
        ({"margin": math.inf}, "margin inf must be positive"),
        ({"distance": "cosin"}, "perhaps you meant 'cosine'"),
    ],
)
def test_meaningless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    embedding, labels = slow.batch([0, 0])
    with pytest.raises(ValueError, match=message):
        (pair_bce if "scale" in settings else pair_contrastive)(embedding, labels, **settings)
