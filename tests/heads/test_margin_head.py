"""The head against a double loop in plain Python, at its hard points, in half precision, and on several processes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastface.heads.margin_head import MarginHead
from fastface.losses import class_softmax
from fastface.losses.margins import MARGINS, build_margin
from tests.heads.reference import losses
from tests.worlds import CASES, everything

CLASSES, SIZE, S = 6, 3, 12.0
GIVEN: dict[str, dict[str, Any]] = {
    "adaface": {"m": 0.4, "h": 0.333},
    "arcface": {"m": 0.5},
    "combined": {"m1": 0.9, "m2": 0.4, "m3": 0.15},
    "cosface": {"m": 0.4},
    "curricularface": {"m": 0.5},
}


def make(name: str = "arcface", classes: int = CLASSES, size: int = SIZE, **options: Any) -> MarginHead:
    """Build a float64 head of large centres, every one of a length of its own, with a margin that has seen steps."""
    margin = build_margin(name, **GIVEN.get(name, {}))
    head = MarginHead(classes, size, margin=margin, **{"s": S, **options}).double()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(np.random.default_rng(7).normal(size=tuple(head.weight.shape))))
        for buffer, value in {"mean": 25.0, "std": 12.0, "t": 0.3}.items():
            if buffer in dict(margin.named_buffers()):
                margin.get_buffer(buffer).fill_(value)
    return head


def samples(labels: list[int], size: int = SIZE, length: float = 20.0) -> tuple[Tensor, Tensor]:
    rows = np.random.default_rng(3).normal(size=(len(labels), size)) * length
    return torch.from_numpy(rows).requires_grad_(), torch.tensor(labels)


def slow(
    head: MarginHead, embedding: Tensor, labels: Tensor, name: str, norms: list[float] | None = None
) -> list[float]:
    return losses(
        embedding.tolist(),
        head.weight.tolist(),
        labels.tolist(),
        name,
        GIVEN.get(name, {}),
        s=S,
        sub_centres=head.sub_centres,
        filter_above=head.rules.filter_above,
        t=0.3,
        norms=norms,
    )


def slopes(head: MarginHead, embedding: Tensor, labels: Tensor, name: str, moved: Tensor) -> Tensor:
    """Central differences of the slow loss by `moved`: the embeddings or the centres."""
    found = torch.zeros_like(moved)
    step = 1e-6
    norms = embedding.norm(dim=1).tolist() if name == "adaface" else None  # a margin that the norm only chooses
    with torch.no_grad():
        for place in np.ndindex(*moved.shape):
            before = moved[place].item()
            ends = []
            for sign in (1, -1):
                moved[place] = before + sign * step
                ends.append(np.mean(slow(head, embedding, labels, name, norms)))
            moved[place] = before
            found[place] = float(ends[0] - ends[1]) / (2 * step)
    return found


def small_chunks(monkeypatch: pytest.MonkeyPatch, head: MarginHead, *, keep: bool, bytes: int = 200) -> None:
    """Take a few classes at a time, and compute them again in the backward pass, or not."""
    monkeypatch.setitem(class_softmax.CHUNK_BYTES, "cpu", bytes)
    head.rules = head.rules._replace(memory_bytes=head.rules.memory_bytes if keep else 0)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("filter_above", [None, 0.3])
@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize("name", MARGINS)
def test_loss_and_gradients_are_those_of_a_double_loop(
    monkeypatch: pytest.MonkeyPatch, name: str, sub_centres: int, filter_above: float | None, keep: bool
) -> None:
    head = make(name, sub_centres=sub_centres, filter_above=filter_above)
    embedding, labels = samples([4, 0, 4, 5])
    small_chunks(monkeypatch, head, keep=keep)
    found = head(embedding, labels)
    found.loss.backward()
    assert embedding.grad is not None
    assert head.weight.grad is not None
    assert found.loss.item() == pytest.approx(np.mean(slow(head, embedding, labels, name)), rel=1e-12)
    by_embedding = slopes(head, embedding, labels, name, embedding)
    np.testing.assert_allclose(embedding.grad.numpy(), by_embedding.detach().numpy(), atol=1e-7)
    by_centres = slopes(head, embedding, labels, name, head.weight)
    np.testing.assert_allclose(head.weight.grad.numpy(), by_centres.detach().numpy(), atol=1e-7)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize("name", MARGINS)
def test_float32_is_float64_rounded(monkeypatch: pytest.MonkeyPatch, name: str, sub_centres: int, keep: bool) -> None:
    results = []
    for kind in (torch.float64, torch.float32):
        head = make(name, sub_centres=sub_centres, filter_above=0.3, s=64.0).to(kind)
        small_chunks(monkeypatch, head, keep=keep)
        embedding, labels = samples([1, 1, 3, 2, 0])
        own = embedding.detach().to(kind).requires_grad_()
        loss = head(own, labels).loss
        loss.backward()
        assert loss.dtype == kind
        assert own.grad is not None
        assert head.weight.grad is not None
        results.append((loss.double().detach(), own.grad.double(), head.weight.grad.double()))
    for exact, rounded in zip(*results, strict=True):
        torch.testing.assert_close(rounded, exact, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize("name", MARGINS)
def test_half_precision_is_near(name: str, sub_centres: int, kind: torch.dtype, tolerance: float) -> None:
    """Of the loss and of each gradient's length; the embeddings come in the half type, as from a network."""
    results = []
    for reduced in (False, True):
        head = make(name, classes=40, size=16, sub_centres=sub_centres).float()
        embedding, labels = samples([1, 1, 3, 39, 0, 7], size=16, length=0.2 if name == "softmax" else 5.0)
        own = embedding.detach().to(kind).to(kind if reduced else torch.float32).requires_grad_()
        with torch.autocast("cpu", dtype=kind, enabled=reduced):
            loss = head(own, labels).loss
        loss.backward()
        assert loss.dtype == torch.float32
        assert own.grad is not None
        assert own.grad.dtype == own.dtype
        assert head.weight.grad is not None
        results.append((loss.detach().reshape(1), own.grad.float(), head.weight.grad))
    for exact, rough in zip(*results, strict=True):
        assert (rough - exact).norm() <= tolerance * exact.norm()
        assert not torch.equal(rough, exact)  # the products did run in the half type


@pytest.mark.parametrize("name", MARGINS)
def test_a_batch_of_one(name: str) -> None:
    head = make(name)
    embedding, labels = samples([2])
    assert head(embedding, labels).loss.item() == pytest.approx(slow(head, embedding, labels, name)[0], rel=1e-12)


@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize("name", sorted(set(MARGINS) - {"magface"}))  # whose penalty stays
def test_without_another_class_nothing_is_left_to_learn(name: str, sub_centres: int) -> None:
    """A sampled step may see one class only; and inter-class filtering may leave out all others of a sample."""
    head = make(name, sub_centres=sub_centres, sample_rate=1e-12)
    head.choose(0, lambda: np.array([3, 3]), None)
    assert len(head.rows) == sub_centres
    filtered = make(name, classes=2, sub_centres=sub_centres, filter_above=1e-9)
    with torch.no_grad():
        filtered.weight.copy_(torch.ones_like(filtered.weight))
    for module, label in ((head, 3), (filtered, 1)):
        embedding, labels = samples([label, label])
        if module is filtered:
            embedding = embedding.detach().abs().requires_grad_()
        found = module(embedding, labels)
        found.loss.backward()
        assert found.loss.item() == 0.0
        assert embedding.grad is not None
        assert module.learning.grad is not None
        assert not embedding.grad.any()
        assert not module.learning.grad.any()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MARGINS)
def test_poles_and_zeros_give_finite_losses_and_gradients(name: str, kind: torch.dtype) -> None:
    """Cosines of exactly 1 and -1, to the own class and to another; a centre of zero; an embedding of zero."""
    head = make(name).to(kind)
    with torch.no_grad():
        head.weight[5] = 0.0
    rows = torch.stack([head.weight[1], -head.weight[1], head.weight[2], head.weight[0] * 0, head.weight[3]])
    embedding = rows.detach().clone().requires_grad_()
    labels = torch.tensor([1, 1, 3, 4, 5])  # own pole, opposite pole, another's pole, no direction, no centre
    found = head(embedding, labels)
    found.loss.backward()
    slow_loss = np.mean(slow(head, embedding, labels, name))
    assert found.loss.item() == pytest.approx(slow_loss, rel=1e-9 if kind == torch.float64 else 1e-4)
    assert embedding.grad is not None
    assert head.weight.grad is not None
    assert embedding.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("where", ["embedding", "own centre", "another centre"])
def test_nan_stays_nan(name: str, where: str) -> None:
    head = make(name, filter_above=0.5)
    embedding, labels = samples([1, 2])
    with torch.no_grad():
        {"embedding": embedding[0], "own centre": head.weight[1], "another centre": head.weight[4]}[where][1] = math.nan
    found = head(embedding, labels)
    assert found.loss.isnan()
    found.loss.backward()
    assert embedding.grad is not None
    assert embedding.grad.isnan().any()


def test_the_own_class_is_never_filtered_out() -> None:
    head = make("normface", filter_above=0.01)
    embedding = head.weight[:4].detach().clone().requires_grad_()
    found = head(embedding, torch.arange(4))
    assert found.target_cosine.item() == pytest.approx(1.0)
    found.loss.backward()
    assert head.weight.grad is not None
    assert found.loss.item() == pytest.approx(np.mean(slow(head, embedding, torch.arange(4), "normface")), rel=1e-12)


@pytest.mark.parametrize("labels", [[0, 6], [-1, 0]])
def test_labels_of_no_class_are_refused(labels: list[int]) -> None:
    """A head whose target is on no shard would learn nothing, at a loss of -log(1e-30) = 69.08 or any other."""
    head = make()
    embedding, wrong = samples(labels)
    with pytest.raises(ValueError, match=r"outside \[0, 6\)"):
        head(embedding, wrong)


def test_labels_that_choose_was_not_given_are_refused() -> None:
    head = make(sample_rate=1e-12)
    head.choose(0, lambda: np.array([1, 4]), None)
    embedding, labels = samples([1, 2])
    with pytest.raises(ValueError, match=r"choose\(\) was given: \[2\]"):
        head(embedding, labels)


def test_what_is_looked_at_is_counted_before_the_margin() -> None:
    head = make("arcface", sub_centres=3)
    embedding, labels = samples([0, 1, 2, 3, 4, 5])
    found = head(embedding, labels)
    cosine = torch.nn.functional.normalize(embedding) @ torch.nn.functional.normalize(head.weight).T
    cosine = cosine.view(6, 6, 3).amax(2)
    assert found.accuracy.item() == pytest.approx((cosine.argmax(1) == labels).double().mean().item())
    assert found.target_cosine.item() == pytest.approx(cosine.diagonal().mean().item())
    assert not found.accuracy.requires_grad
    assert not found.target_cosine.requires_grad


@pytest.mark.parametrize(("share", "micro_batch", "kept"), [(0.5, None, 3), (0.7, 3, 2), (0.01, 2, 1), (1.0, 2, 2)])
def test_the_hardest_of_each_micro_batch_are_learned_from(share: float, micro_batch: int | None, kept: int) -> None:
    head = make(keep_hardest=share)
    head.micro_batch = micro_batch
    embedding, labels = samples([0, 1, 2, 3, 4, 5])
    each = slow(head, embedding, labels, "arcface")
    size = micro_batch or 6
    hardest = [sorted(each[first : first + size])[-kept:] for first in range(0, 6, size)]
    assert head(embedding, labels).loss.item() == pytest.approx(np.mean(hardest), rel=1e-12)


def test_the_margin_moves_when_the_step_is_over() -> None:
    head = make("curricularface")
    embedding, labels = samples([0, 1])
    found = head(embedding, labels)
    assert head.margin.get_buffer("t").item() == 0.3
    head.settle()
    assert head.margin.get_buffer("t").item() == pytest.approx(0.99 * 0.3 + 0.01 * found.target_cosine.item())


def test_two_backward_passes_add_up() -> None:
    head = make()
    embedding, labels = samples([0, 1])
    loss = head(embedding, labels).loss
    loss.backward(retain_graph=True)
    assert head.weight.grad is not None
    once = head.weight.grad.clone()
    loss.backward()
    assert torch.equal(head.weight.grad, 2 * once)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"s": 0.0}, "above 0, 64 is usual"),
        ({"s": math.nan}, "above 0"),
        ({"filter_above": 1.0}, "0.4 is usual"),
        ({"filter_above": 0.0}, "0.4 is usual"),
        ({"keep_hardest": 1.5}, "0.7 is usual"),  # may change from step to step: it is looked at where it is used
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)(*samples([0, 1]))


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_processes_learn_what_one_process_learns(case: str, world: int) -> None:
    """Loss, classes, gradients and, after 20 steps, all weights and moments."""
    runs = everything()[0]
    alone, several = runs[f"{case}/1"], runs[f"{case}/{world}"]
    exact = CASES[case].kind == torch.float64
    assert several.losses.shape == (world, 20)
    assert (several.losses == several.losses[0]).all()
    np.testing.assert_allclose(several.losses[0], alone.losses[0], rtol=1e-12 if exact else 1e-6)
    np.testing.assert_array_equal(several.chosen, alone.chosen)
    for found, expected, tolerance in [
        (several.gradients, alone.gradients, 1e-12 if exact else 1e-5),
        (several.model, alone.model, 1e-11 if exact else 1e-4),
        (several.optimizer, alone.optimizer, 1e-11 if exact else 1e-4),
    ]:
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)
