"""Which classes a step sees, what happens to the others (nothing), and where their first centres come from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fastface.data.plan import GOLDEN, MASK, hash_numbers
from fastface.heads.class_rows import BLOCK, SAMPLED, STANDARD_DEVIATION, ClassRows, first_centres, sample, shard
from fastface.optim import build_optimizer

CPU = torch.device("cpu")
OPTIMIZERS = ["sgd", "adam", "adamw", "adagrad"]


def finish(value: int) -> int:
    """splitmix64's, in Python's own integers."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


@pytest.mark.parametrize("rate", [1e-9, 0.1, 0.5, 0.999])
@pytest.mark.parametrize(("seed", "step"), [(0, 0), (-1, 3), (2**63, 10**9)])
def test_a_class_is_sampled_by_a_hash_of_seed_step_and_class(seed: int, step: int, rate: float) -> None:
    """The hash is read as a signed number, from the least to the greatest: the same as flipping its sign bit."""
    key = hash_numbers(seed, step, SAMPLED)
    found = sample(90, 390, rate, seed, step, CPU).tolist()
    assert found == [(finish(key + number * GOLDEN & MASK) ^ 1 << 63) / 2**64 < rate for number in range(90, 390)]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_sampling_has_its_rate_and_is_uniform_and_independent(rate: float) -> None:
    """200 classes over 500 steps: chi-square of the classes, of the steps, and of neighbours in both directions."""
    steps, classes = 500, 200
    drawn = np.stack([sample(0, classes, rate, 5, step, CPU).numpy() for step in range(steps)])
    assert abs(drawn.mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / drawn.size)
    for axis, count, times in ((0, classes, steps), (1, steps, classes)):
        chi_square = ((drawn.sum(axis) - times * rate) ** 2).sum() / (times * rate * (1 - rate))
        assert abs(chi_square - count) < 4 * math.sqrt(2 * count)
    for a, b in ((drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1])):
        assert abs((a & b).mean() - rate**2) < 4 * math.sqrt(rate**2 * (1 - rate**2) / a.size)
    other = np.stack([sample(0, classes, rate, 6, step, CPU).numpy() for step in range(steps)])
    assert abs((drawn & other).mean() - rate**2) < 4 * math.sqrt(rate**2 * (1 - rate**2) / drawn.size)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
def test_shards_tile_the_classes_and_draw_as_one(parts: int) -> None:
    bounds = [shard(7, part, parts) for part in range(parts)]
    assert [number for first, last in bounds for number in range(first, last)] == list(range(7))
    assert all(last > first for first, last in bounds)
    drawn = torch.cat([sample(first, last, 0.4, 1, 2, CPU) for first, last in bounds])
    assert torch.equal(drawn, sample(0, 7, 0.4, 1, 2, CPU))


def test_choosing_is_pure_in_seed_and_step_and_never_without_the_present() -> None:
    once, again = (ClassRows(50, 4, sample_rate=0.2, seed=9) for _ in range(2))
    for step in (3, 0, 17):
        once.choose(step, lambda: np.array([7, 49, 7, 0]), None)
    again.choose(17, lambda: np.array([0, 7, 49]), None)
    assert once._chosen is not None
    assert again._chosen is not None
    assert torch.equal(once._chosen, again._chosen)
    expected = sorted({0, 7, 49, *sample(0, 50, 0.2, 9, 17, CPU).nonzero()[:, 0].tolist()})
    assert once._chosen.tolist() == expected
    assert torch.equal(once.rows, once.weight[expected])
    assert once.own(torch.tensor([49, 0, 7])).tolist() == [len(expected) - 1, 0, expected.index(7)]


def test_whole_heads_have_nothing_to_choose() -> None:
    rows = ClassRows(5, 4)

    def refuse() -> np.ndarray:
        raise AssertionError("the labels of the step cost a look at the plan")

    rows.choose(0, refuse, None)
    assert rows.learning is rows.weight
    assert rows.own(torch.tensor([4, 0])).tolist() == [4, 0]
    assert list(rows.state_dict()) == ["weight"]


@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_not_chosen_stays_to_the_bit_and_what_is_moves_as_in_a_whole_head(name: str, sub_centres: int) -> None:
    """With weight decay and momentum; a whole head, whose unchosen rows are put back after each step, is the model."""
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "betas": (0.9, 0.99), "fused": False}
    rows = ClassRows(20, 4, sub_centres=sub_centres, sample_rate=0.4, seed=1).double()
    whole = torch.nn.Parameter(rows.weight.detach().clone())
    optimizer = build_optimizer(name, [{"params": [rows.rows], "weight_decay": 0.1}], **options)
    expected = build_optimizer(name, [{"params": [whole], "weight_decay": 0.1}], **options)
    for step in range(6):
        pull = torch.from_numpy(np.random.default_rng(step).normal(size=tuple(whole.shape)))
        before = {"weight": rows.weight.detach().clone()} | {key: value.clone() for key, value in rows.moments.items()}
        rows.choose(step, lambda: np.array([3]), optimizer)
        lines = rows._lines()
        assert 0 < len(lines) < len(whole)
        rows.rows.grad = pull[lines]
        optimizer.step()
        rows.put_back(optimizer)
        other = torch.ones(len(whole), dtype=torch.bool)
        other[lines] = False
        state = expected.state[whole]
        whole_before = {key: value.clone() for key, value in state.items() if isinstance(value, torch.Tensor)}
        weight_before = whole.detach().clone()
        whole.grad = pull
        expected.step()
        with torch.no_grad():
            whole[other] = weight_before[other]
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == whole.shape:
                    value[other] = whole_before[key][other] if key in whole_before else 0.0
        torch.testing.assert_close(rows.weight, whole.detach(), rtol=1e-13, atol=1e-15)
        assert rows.moments
        for key, value in rows.moments.items():
            torch.testing.assert_close(value, state[key], rtol=1e-13, atol=1e-15)
            assert key not in before or torch.equal(value[other], before[key][other])
        assert torch.equal(rows.weight[other], before["weight"][other])
        assert not torch.equal(rows.weight[~other], before["weight"][~other])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_costs_the_optimizer_its_rows_only(name: str) -> None:
    rows = ClassRows(1000, 4, sample_rate=0.01, seed=1)
    groups = [{"params": [p for p in rows.parameters() if p.requires_grad], "weight_decay": 0.1}]
    optimizer = build_optimizer(name, groups, lr=0.1, momentum=0.9, betas=(0.9, 0.99), fused=False)
    for step in range(2):
        rows.choose(step, lambda: np.array([3]), optimizer)
        assert len(rows.rows) < 30
        rows.rows.grad = torch.ones_like(rows.rows)
        optimizer.step()
        sizes = {v.shape for v in optimizer.state[rows.rows].values() if isinstance(v, torch.Tensor) and v.ndim == 2}
        assert sizes == {rows.rows.shape}
        rows.put_back(optimizer)


def test_the_number_of_rows_may_change_while_the_last_loss_is_held() -> None:
    """As a training loop does that names it: `loss = head(...)` lets the old graph live until the new one is there."""
    rows = ClassRows(50, 4, sample_rate=0.3)
    held, sizes = [], set()
    for step in range(5):
        rows.choose(step, lambda: np.array([0]), None)
        loss = rows.learning.square().sum()
        loss.backward()
        assert rows.rows.grad is not None
        torch.testing.assert_close(rows.rows.grad, 2 * rows.rows.detach())
        held.append(loss)
        sizes.add(len(rows.rows))
    assert len(sizes) > 1


def test_micro_batches_of_a_step_add_up() -> None:
    rows = ClassRows(50, 4, sample_rate=0.3)
    rows.choose(0, lambda: np.array([0]), None)
    for _ in range(3):
        rows.learning.sum().backward()
    assert rows.rows.grad is not None
    assert (rows.rows.grad == 3.0).all()


def test_a_shard_without_a_sampled_class_has_no_rows() -> None:
    rows = ClassRows(50, 4, sample_rate=1e-12)
    rows.choose(0, lambda: np.array([60]), None)  # another shard's
    assert rows.rows.shape == (0, 4)


def test_state_holds_all_rows_and_no_copies() -> None:
    rows, other = (ClassRows(9, 4, sub_centres=2, sample_rate=0.5, seed=seed) for seed in (1, 2))
    rows.choose(0, lambda: np.array([0]), None)
    state = rows.state_dict()
    assert list(state) == ["weight"]
    nested = torch.nn.ModuleDict({"head": other})
    assert str(nested.load_state_dict({"head.weight": state["weight"]})) == "<All keys matched successfully>"
    assert torch.equal(other.weight, rows.weight)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict({"weight": state["weight"][:4]})


@pytest.mark.parametrize("sub_centres", [1, 3])
def test_first_centres_depend_on_the_seed_and_the_class(sub_centres: int) -> None:
    count = 2 * BLOCK + 5
    whole = first_centres(0, count, sub_centres, 3, 4)
    assert whole.shape == (count * sub_centres, 3)
    for parts in (2, 3, 5):
        pieces = [first_centres(*shard(count, part, parts), sub_centres, 3, 4) for part in range(parts)]
        assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(first_centres(0, 7, sub_centres, 3, 4), whole[: 7 * sub_centres])
    assert len(torch.unique(whole, dim=0)) == len(whole)
    assert not torch.equal(first_centres(0, count, sub_centres, 3, 5), whole)
    assert abs(whole.mean().item()) < 4 * STANDARD_DEVIATION / math.sqrt(whole.numel())
    assert whole.std().item() == pytest.approx(STANDARD_DEVIATION, rel=4 / math.sqrt(2 * whole.numel()))


def test_a_float64_head_starts_from_the_same_centres() -> None:
    """They are drawn in float32: a head made float64 holds the same numbers."""
    torch.testing.assert_close(ClassRows(9, 4).double().weight, ClassRows(9, 4).weight.double(), rtol=0, atol=0)


@pytest.mark.parametrize("sampled", [False, True])
def test_drawing_takes_little_more_than_what_is_drawn(monkeypatch: pytest.MonkeyPatch, sampled: bool) -> None:
    """Counted at torch.empty, where all of it is made: the rows, and one block at a time."""
    made: list[int] = []
    empty = torch.empty

    def counting(*shape: int, **options: Any) -> torch.Tensor:
        made.append(math.prod(shape))
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", counting)
    ClassRows(10 * BLOCK, 8, sample_rate=0.1 if sampled else 1.0)
    assert max(made[1:]) == BLOCK * 8
    assert made[0] == 10 * BLOCK * 8


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (1, {}, "1 identities are too few for a classifier on 1 process"),
        (5, {"sub_centres": 0}, "3 is usual for noisy sets"),
        (5, {"sample_rate": 0.0}, r"must be in \(0, 1\]"),
        (5, {"sample_rate": 1.1}, r"must be in \(0, 1\]"),
        (5, {"sample_rate": math.nan}, r"must be in \(0, 1\]"),
    ],
)
def test_what_has_no_meaning_is_refused(classes: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassRows(classes, 4, **options)
