"""What losses that compare rows share: distances that survive equal rows, products in full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastface.losses import compared
from fastface.losses.compared import Compared
from fastface.losses.multi_similarity import multi_similarity_loss
from fastface.losses.pair import pair_bce, pair_contrastive
from fastface.losses.supcon import supcon_loss
from fastface.losses.triplet import MINING, triplet_loss
from tests.losses import slow

Loss = Callable[[Tensor, Tensor], Compared]
LOSSES: dict[str, Loss] = {f"triplet {mining}": partial(triplet_loss, mining=mining) for mining in MINING}
LOSSES |= {
    "triplet plain": partial(triplet_loss, distance="plain", mining="batch-hard"),
    "supcon": supcon_loss,
    "multi-similarity": multi_similarity_loss,
    "pair bce": partial(pair_bce, scale=10.0, bias=-3.0),
    "pair contrastive": pair_contrastive,
}
EVERY = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@EVERY
def test_gradients_agree_with_differences(loss: Loss) -> None:
    embedding, labels = slow.batch(slow.MIXED, seed=5)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels).loss, embedding.requires_grad_(), atol=1e-6)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    half, labels = slow.batch(slow.MIXED, size=8)
    half = half.to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    ours, reference = loss(half, labels).loss, loss(full, labels).loss
    assert ours.dtype == torch.float32
    assert ours.equal(reference)
    ours.backward()
    reference.backward()
    assert half.grad is not None
    assert full.grad is not None
    assert half.grad.equal(full.grad.to(dtype))


@EVERY
def test_float32_is_near_float64(loss: Loss) -> None:
    exact, labels = slow.batch(slow.MIXED, size=16)
    exact.requires_grad_()
    rough = exact.detach().float().requires_grad_()
    loss(exact, labels).loss.backward()
    loss(rough, labels).loss.backward()
    assert exact.grad is not None
    assert rough.grad is not None
    torch.testing.assert_close(rough.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


@EVERY
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_hidden(loss: Loss, value: float) -> None:
    embedding, labels = slow.batch(slow.MIXED)
    embedding[4, 1] = value
    assert loss(embedding, labels).loss.isnan()
    assert loss(embedding, torch.arange(len(labels))).loss.isnan()  # where nothing is compared as well


@EVERY
def test_equal_rows_give_finite_gradients(loss: Loss) -> None:
    embedding, labels = slow.batch(slow.MIXED)
    embedding[:] = embedding[0]
    embedding = embedding.float().requires_grad_()
    result = loss(embedding, labels)
    result.loss.backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()
    assert result.terms["mean_cosine"].item() == pytest.approx(1.0, abs=1e-6)


@EVERY
def test_a_row_of_zeros_gives_finite_numbers(loss: Loss) -> None:
    embedding, labels = slow.batch(slow.MIXED)
    embedding[2] = 0.0
    embedding.requires_grad_()
    result = loss(embedding, labels)
    result.loss.backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()
    assert result.loss.isfinite()


@EVERY
def test_autocast_changes_nothing(loss: Loss) -> None:
    embedding, labels = slow.batch(slow.MIXED, size=8)
    embedding = embedding.float().requires_grad_()
    plain = loss(embedding, labels).loss
    (expected,) = torch.autograd.grad(plain, embedding)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss(embedding, labels).loss
        (found,) = torch.autograd.grad(cast, embedding)
    assert cast.equal(plain)
    assert found.equal(expected)


class Products(TorchDispatchMode):
    """Notes whether TF32 was allowed at each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in str(func):
            self.allowed.append(torch.backends.cuda.matmul.allow_tf32)
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("tf32")
def test_products_do_without_tf32_both_ways() -> None:
    rows = torch.randn(4, 3, requires_grad=True)
    with Products() as seen:
        compared.dot_products(rows).sum().backward()
        _ = rows @ rows.T
    assert seen.allowed == [False, False, True]  # the last is not ours: the mode does see it


@pytest.mark.usefixtures("tf32")
def test_full_precision_ends_with_an_error_inside() -> None:
    with pytest.raises(RuntimeError, match="inside"), compared.full_precision(torch.device("cpu")):
        raise RuntimeError("inside")
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("distance", ["squared", "plain"])
def test_distances_equal_the_differences(distance: str) -> None:
    embedding, _ = slow.batch(slow.MIXED, size=5)
    found = compared.squared_distances(embedding)
    found = compared.root(found) if distance == "plain" else found
    rows = embedding.tolist()
    for i, x in enumerate(rows):
        for j, y in enumerate(rows):
            expected = slow.squared(x, y) ** (0.5 if distance == "plain" else 1)
            assert found[i, j].item() == pytest.approx(expected, abs=1e-5 if i == j else 1e-12)


def test_equal_rows_in_float32_meet() -> None:
    embedding, _ = slow.batch(list(range(45)), size=128)
    distances = compared.squared_distances(compared.unit(embedding.float().repeat(2, 1)))
    assert distances.diagonal(45).abs().max() < 3e-7  # 6e-7 where the lengths are not from the same product


@pytest.mark.parametrize("offset", [0.0, 1e-20, 1e-13])
def test_the_root_has_no_slope_where_rows_meet(offset: float) -> None:
    squared = torch.tensor([offset, torch.nan, 0.25], dtype=torch.float64, requires_grad=True)
    compared.root(squared)[[0, 2]].sum().backward()
    assert squared.grad is not None
    assert squared.grad.tolist() == [0.0, 0.0, 1.0]
    assert compared.root(squared)[1].isnan()


@pytest.mark.parametrize("number", [1, 2, 7])
def test_mean_cosine_equals_the_loop(number: int) -> None:
    embedding, _ = slow.batch(list(range(number)))
    assert compared.mean_cosine(embedding).item() == pytest.approx(slow.mean_cosine(embedding.tolist()), abs=1e-12)


def test_mean_of_nothing_is_zero() -> None:
    values = torch.tensor([1.0, 5.0], requires_grad=True)
    assert compared.mean_where(values, torch.tensor([False, True])).item() == 5.0
    none = compared.mean_where(values, torch.tensor([False, False]))
    none.backward()
    assert none.item() == 0.0
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0]


@EVERY
@pytest.mark.parametrize(
    ("embedding", "labels", "message"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), "must be .N, D"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "N >= 1"),
        (torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), "floating point"),
        (torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64), "one for each of 4"),
        (torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.int64), "one for each of 4"),
        (torch.zeros(4, 3), torch.zeros(4), "an identity is an integer"),
    ],
)
def test_a_batch_of_another_shape_is_refused(loss: Loss, embedding: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(embedding, labels)
