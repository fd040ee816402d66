"""Triplet loss against loops over all rows, its memory, and batches in which there is nothing to compare."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from fastface.losses import triplet_mining
from fastface.losses.triplet import DISTANCES, MINING, triplet_loss
from tests.losses import slow, slow_triplets

EVERY = pytest.mark.parametrize("mining", MINING)


@EVERY
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"over": "active"}, {"soft": True}, {"key": 2**64 - 1, "margin": 0.7}],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_loss_gradient_and_terms_equal_the_loop(mining: str, distance: str, settings: dict[str, Any]) -> None:
    settings = {"margin": 0.4, "mining": mining, "distance": distance} | settings
    embedding, labels = slow.batch(slow.MIXED, seed=1)
    _, terms = slow_triplets.loss_and_terms(embedding.tolist(), slow.MIXED, **settings)
    assert terms["num_triplets"] >= 4, "nothing is compared here"
    slow.expect(
        lambda x: triplet_loss(x, labels, **settings),
        lambda rows: slow_triplets.loss_and_terms(rows, slow.MIXED, **settings),
        embedding,
    )


@pytest.mark.parametrize("mining", [mining for mining in MINING if mining != "distance-weighted"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_embeddings_may_keep_their_length(mining: str, distance: str) -> None:
    settings = {"margin": 1.5, "mining": mining, "distance": distance, "normalise": False}
    embedding, labels = slow.batch(slow.MIXED, seed=3)
    slow.expect(
        lambda x: triplet_loss(x, labels, **settings),
        lambda rows: slow_triplets.loss_and_terms(rows, slow.MIXED, **settings),
        embedding,
    )


@pytest.mark.parametrize("seed", range(8))
@EVERY
def test_values_equal_the_loop_for_many_batches(mining: str, seed: int) -> None:
    embedding, labels = slow.batch([row % (2 + seed) for row in range(14)], size=4 + seed, seed=seed)
    result = triplet_loss(embedding, labels, mining=mining, key=seed, chunk=1 + 3 * seed)
    loss, terms = slow_triplets.loss_and_terms(embedding.tolist(), labels.tolist(), mining=mining, key=seed)
    assert result.loss.item() == pytest.approx(loss, abs=1e-12)
    assert {name: value.item() for name, value in result.terms.items()} == pytest.approx(terms, abs=1e-12)


def test_the_recipe_of_facenet_by_hand() -> None:
    # Angles on a circle; the squared distance of two is 2 - 2 cos(their difference).
    angles = {"a": 0.0, "p": 0.5, "inside": 0.6, "too near": 0.4, "too far": 1.2}
    embedding = torch.tensor([[math.cos(t), math.sin(t)] for t in angles.values()], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 2, 3])
    result = triplet_loss(embedding, labels)
    # Only "inside" is between d(a, p) = 0.245 and 0.445 from a. From p the others are 0.1 or 0.7 away: 0.010, 0.470.
    assert result.terms["num_triplets"].item() == 1
    assert result.terms["mining_success"].item() == 0.5
    assert result.loss.item() == pytest.approx((2 - 2 * math.cos(0.5)) - (2 - 2 * math.cos(0.6)) + 0.2)


def grid(people: int, images: int, size: int, spread: float = 1.2) -> tuple[Tensor, Tensor]:
    labels = [row // images for row in range(people * images)]
    embedding, wanted = slow.batch(labels, size=size, spread=spread)
    return embedding.float(), wanted


@EVERY
def test_chunks_change_nothing(mining: str) -> None:
    embedding, labels = grid(30, 10, 16)
    found = []
    for chunk in (None, 90, 7000):
        x = embedding.clone().requires_grad_()
        result = triplet_loss(x, labels, mining=mining, chunk=chunk, key=3)
        result.loss.backward()
        assert x.grad is not None
        found.append((result, x.grad))
    (whole, gradient), *parts = found
    assert whole.terms["num_triplets"] > 100
    assert gradient.abs().max() > 0
    for part, other in parts:
        if mining == "all":  # chunks are summed one by one
            torch.testing.assert_close(part.loss, whole.loss)
        else:
            assert part.loss.equal(whole.loss)
        assert other.equal(gradient)
        assert part.terms == whole.terms


class Memory(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation returns, and the most bytes alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.most_bytes = 0
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.alive = {name: entry for name, entry in self.alive.items() if not entry[0].expired()}
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                self.largest = max(self.largest, storage.nbytes() // one.element_size())
                reference = StorageWeakRef(storage)
                self.alive[reference.cdata] = (reference, storage.nbytes())
        self.most_bytes = max(self.most_bytes, sum(size for _, size in self.alive.values()))
        return result


MATRICES = {("all", "squared"): 5, ("all", "plain"): 6}
MATRICES |= {("distance-weighted", "squared"): 9, ("distance-weighted", "plain"): 10}


@EVERY
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_batch_of_facenet_takes_the_memory_that_is_told(mining: str, distance: str) -> None:
    labels = torch.arange(45).repeat_interleave(40)
    pairs = triplet_mining.anchor_positive_pairs(labels, torch.device("cpu"))
    assert len(pairs[0]) == 45 * 40 * 39  # times 1760 negatives: 124 million triplets
    # A fake tensor has no values: nothing is computed, and asking for one (as .item() does) would be an error.
    with FakeTensorMode() as fake, pytest.MonkeyPatch.context() as patch:
        known = tuple(fake.from_tensor(one) for one in pairs)
        patch.setattr(triplet_mining, "anchor_positive_pairs", lambda labels, device: known)
        embedding = torch.empty(1800, 128, requires_grad=True)
        with Memory() as seen:
            loss = triplet_loss(embedding, fake.from_tensor(labels), mining=mining, distance=distance, chunk=1800).loss
            loss.backward()
    assert seen.largest == 1800 * 1800
    matrices = MATRICES.get((mining, distance), 4 if distance == "squared" else 5)
    rows = 4 * 4 * 1800 * 128
    assert seen.most_bytes < 4 * 1800 * 1800 * matrices + 17 * 1800 * 1800 + 80 * len(pairs[0]) + rows


def test_memory_that_is_not_bounded_shows() -> None:
    embedding, labels = grid(20, 10, 8)
    with Memory() as seen:
        triplet_loss(embedding.requires_grad_(), labels, chunk=1800).loss.backward()
    assert seen.largest == 1800 * 200
    assert seen.most_bytes > 8 * 1800 * 200


def test_pairs_are_the_only_question_to_the_device() -> None:
    with FakeTensorMode(), pytest.raises(DynamicOutputShapeException):
        triplet_loss(torch.empty(6, 3), torch.arange(6) // 2)


@EVERY
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "labels", [[0], [0, 1], [4, 4], [0, 1, 2, 3], [5, 5, 5, 5]], ids=["one", "two", "twins", "unique", "identity"]
)
def test_nothing_to_compare_costs_nothing(mining: str, soft: bool, labels: list[int]) -> None:
    embedding, wanted = slow.batch(labels, size=4)
    embedding.requires_grad_()
    result = triplet_loss(embedding, wanted, mining=mining, soft=soft)
    slow.expect_nothing(result, embedding)
    assert result.terms["num_triplets"] == 0
    assert result.terms["mining_success"] == 0


@pytest.mark.parametrize("mining", ["hardest", "batch-hard", "violators", "all", "distance-weighted"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_collapse_shows(mining: str, distance: str) -> None:
    embedding = torch.ones(8, 4, dtype=torch.float64).requires_grad_()
    result = triplet_loss(embedding, torch.arange(8) // 2, mining=mining, distance=distance)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(0.2)
    assert result.terms["active"].item() == 1
    assert result.terms["mean_cosine"].item() == pytest.approx(1.0)
    assert embedding.grad is not None
    assert embedding.grad.abs().max() < 1e-12


def test_semi_hard_finds_nothing_where_all_collapse() -> None:
    embedding = torch.ones(8, 4, dtype=torch.float64).requires_grad_()
    result = triplet_loss(embedding, torch.arange(8) // 2)
    slow.expect_nothing(result, embedding)
    assert result.terms["mean_cosine"].item() == pytest.approx(1.0)


def test_an_identity_with_one_row_is_a_negative_only() -> None:
    embedding, labels = slow.batch([0, 0, 1], size=3)
    embedding.requires_grad_()
    result = triplet_loss(embedding, labels, mining="all", margin=3.9)
    result.loss.backward()
    assert result.terms["num_triplets"] == 2
    assert embedding.grad is not None
    assert (embedding.grad.abs().sum(1) > 0).all()


@EVERY
def test_the_same_key_gives_the_same_loss(mining: str) -> None:
    embedding, labels = grid(10, 5, 8)
    compute = partial(triplet_loss, embedding, labels, mining=mining, margin=0.6)
    assert compute(key=11).loss.equal(compute(key=11).loss)
    assert compute(key=11).loss.equal(compute(key=12).loss) == (mining in ("hardest", "batch-hard", "all"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mining": "semihard"}, "perhaps you meant 'semi-hard'"),
        ({"distance": "square"}, "perhaps you meant 'squared'"),
        ({"over": "activ"}, "perhaps you meant 'active'"),
        ({"margin": -0.1}, "margin -0.1 must be"),
        ({"margin": math.nan}, "margin nan must be"),
        ({"margin": math.inf}, "margin inf must be"),
        ({"chunk": 0}, "chunk 0 must be at least 1"),
        ({"soft": True, "over": "active"}, "set over to selected"),
        ({"mining": "distance-weighted", "normalise": False}, "set normalise to true"),
    ],
)
def test_meaningless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    embedding, labels = slow.batch(slow.MIXED)
    with pytest.raises(ValueError, match=message):
        triplet_loss(embedding, labels, **settings)
