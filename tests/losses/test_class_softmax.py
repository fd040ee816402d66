"""Log-sums, largest cosines and own cosines, and their gradients, against loops and torch's own softmax in float64."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastface.losses import class_softmax
from fastface.losses.class_softmax import Rules, compare, target_cosine
from tests.heads.reference import dot, log_sum_exp, unit

RULES = [
    Rules(16.0),
    Rules(1.0, normalised=False),
    Rules(16.0, sub_centres=3),
    Rules(30.0, filter_above=0.2),
    Rules(1.0, normalised=False, sub_centres=2),
    Rules(16.0, sub_centres=3, filter_above=0.2),
]
IDS = [f"{'unit' if r.normalised else 'raw'}-{r.sub_centres}-{r.filter_above}" for r in RULES]
CHUNKS = [1, 500, 1 << 20]  # bytes: a class at a time, a few, all
OWN = [4, -1, 0, 4, 10, -1]  # -1: another process's


def inputs(rules: Rules, classes: int = 11, size: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = np.random.default_rng(2)
    rows = torch.from_numpy(generator.normal(size=(len(OWN), size)))
    if rules.normalised:
        rows = F.normalize(rows)
    centres = torch.from_numpy(generator.normal(size=(classes * rules.sub_centres, size)))
    return rows.requires_grad_(), centres.requires_grad_(), torch.tensor(OWN)


def chunked(monkeypatch: pytest.MonkeyPatch, rules: Rules, size: int, *, keep: bool) -> Rules:
    monkeypatch.setitem(class_softmax.CHUNK_BYTES, "cpu", size)
    return rules if keep else rules._replace(memory_bytes=0)


@pytest.mark.parametrize("size", CHUNKS)
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("rules", RULES, ids=IDS)
def test_sums_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch, rules: Rules, hard: bool, size: int) -> None:
    rows, centres, own = inputs(rules)
    rules = chunked(monkeypatch, rules, size, keep=True)
    harder_than = torch.linspace(-0.5, 0.3, len(OWN), dtype=torch.float64) if hard else None
    t = torch.tensor(0.4, dtype=torch.float64) if hard else None
    found = compare(rows, centres, own, rules, harder_than=harder_than, t=t)
    assert torch.equal(target_cosine(rows, centres, own, rules), found.target)
    assert not found.top.requires_grad
    count, weights = rules.sub_centres, centres.tolist()
    for i, row in enumerate(rows.tolist()):
        best = []
        for first in range(0, len(weights), count):
            group = weights[first : first + count]
            best.append(max(dot(row, unit(c) if rules.normalised else c) for c in group))
        others = [c for j, c in enumerate(best) if j != OWN[i]]
        assert found.top[i].item() == pytest.approx(max(others), rel=1e-12)
        assert found.target[i].item() == pytest.approx(best[OWN[i]] if OWN[i] >= 0 else 0.0, rel=1e-12)
        if rules.filter_above is not None:
            others = [c for c in others if c <= rules.filter_above]
        if harder_than is not None:
            others = [c * (0.4 + c) if c > harder_than[i].item() else c for c in others]
        assert found.lse[i].item() == pytest.approx(log_sum_exp([rules.scale * c for c in others]), rel=1e-12)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", CHUNKS)
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("rules", RULES, ids=IDS)
def test_gradients_are_those_of_autograd(
    monkeypatch: pytest.MonkeyPatch, rules: Rules, hard: bool, size: int, keep: bool
) -> None:
    rows, centres, own = inputs(rules)
    rules = chunked(monkeypatch, rules, size, keep=keep)
    harder_than = torch.linspace(-0.5, 0.3, len(OWN), dtype=torch.float64) if hard else None
    t = torch.tensor(0.4, dtype=torch.float64) if hard else None
    on_lse, on_target = torch.from_numpy(np.random.default_rng(5).normal(size=(2, len(OWN))))
    found = compare(rows, centres, own, rules, harder_than=harder_than, t=t)
    got = torch.autograd.grad((found.lse * on_lse + found.target * on_target).sum(), (rows, centres))

    matrix = rows @ (F.normalize(centres) if rules.normalised else centres).T
    cosine = matrix.view(len(OWN), -1, rules.sub_centres).amax(2)
    target = torch.where(own >= 0, cosine.gather(1, own.clamp_min(0)[:, None])[:, 0], 0.0)
    left_out = F.one_hot(own.clamp_min(0), cosine.shape[1]).bool() & (own >= 0)[:, None]
    if rules.filter_above is not None:
        left_out |= cosine > rules.filter_above
    if harder_than is not None:
        cosine = torch.where(cosine > harder_than[:, None], cosine * (0.4 + cosine), cosine)
    lse = (rules.scale * cosine).masked_fill(left_out, -torch.inf).logsumexp(1)
    expected = torch.autograd.grad((lse * on_lse + target * on_target).sum(), (rows, centres))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("rules", RULES, ids=IDS)
def test_frozen_centres_leave_the_gradient_by_the_embeddings(rules: Rules, keep: bool) -> None:
    rows, centres, own = inputs(rules)
    rules = rules if keep else rules._replace(memory_bytes=0)
    gradients = []
    for by in (centres, centres.detach()):
        found = compare(rows, by, own, rules)
        gradients += torch.autograd.grad((found.lse + found.target).sum(), rows)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("keep", [True, False])
def test_float16_holds_the_gradients_of_a_scaled_loss(keep: bool) -> None:
    """16 samples of one direction, all probability on one class, a loss times 65536 (torch's first loss scale)."""
    rules = Rules(64.0, memory_bytes=1 << 20 if keep else 0)
    rows, centres = torch.ones(16, 4) / 2, torch.eye(3, 4) + 0.1
    for product in (torch.float16, torch.float32):
        a, b = rows.clone().requires_grad_(), centres.clone().requires_grad_()
        found = compare(a, b, torch.zeros(16, dtype=torch.int64), rules, product=product)
        (found.lse.mean() * 65536).backward()
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.isfinite().all()
        assert b.grad.isfinite().all()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_sums_survive_logits_beyond_what_exp_can_hold(monkeypatch: pytest.MonkeyPatch, size: int, keep: bool) -> None:
    """Logits from -3000 to 3000 in rising and falling order of classes, so that the running maximum moves or stays."""
    rules = chunked(monkeypatch, Rules(1.0, normalised=False), size, keep=keep)
    centres = torch.linspace(-3000.0, 3000.0, 7, dtype=torch.float64)[:, None].requires_grad_()
    rows = torch.tensor([[1.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    found = compare(rows, centres, torch.tensor([6, 3]), rules)
    assert found.lse.tolist() == [2000.0, 3000.0]
    found.lse.sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [[2000.0], [-3000.0]]


@pytest.mark.parametrize("product", [torch.bfloat16, torch.float16])
def test_the_own_cosine_is_never_rounded_to_half(product: torch.dtype) -> None:
    rules = Rules(64.0)
    rows, centres, own = inputs(rules)
    rows, centres = rows.float(), centres.float()
    rough, exact = compare(rows, centres, own, rules, product=product), compare(rows, centres, own, rules)
    assert torch.equal(rough.target, exact.target)
    assert not torch.equal(rough.lse, exact.lse)
    torch.testing.assert_close(rough.lse, exact.lse, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("rules", RULES, ids=IDS)
def test_no_class_at_all_is_an_empty_sum(rules: Rules) -> None:
    """A process none of whose classes is sampled in a step."""
    rows, centres, own = inputs(rules)
    none = centres[:0].detach().requires_grad_()
    found = compare(rows, none, torch.full_like(own, -1), rules)
    assert found.lse.isneginf().all()
    assert found.top.isneginf().all()
    assert not found.target.any()
    assert not target_cosine(rows, none, torch.full_like(own, -1), rules).any()
    (found.lse.exp() + found.target).sum().backward()
    assert rows.grad is not None
    assert none.grad is not None
    assert not rows.grad.any()
    assert none.grad.shape == none.shape


def test_nothing_is_kept_where_nothing_learns() -> None:
    rows, centres, own = inputs(RULES[0])
    with torch.no_grad():
        found = compare(rows, centres, own, RULES[0])
    assert found.lse.grad_fn is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize("keep", [True, False])
def test_memory_stays_below_the_formula(keep: bool) -> None:
    """200,000 classes x 32 at batch 256, beside the centres and their gradient: 205 MB of exponentials, or none."""
    samples, classes, size = 256, 200_000, 32
    program = f"""
import torch
from pathlib import Path
from fastface.losses.class_softmax import CHUNK_BYTES, Rules, compare
torch.set_num_threads(1)
def once(classes, memory):
    rows = torch.nn.functional.normalize(torch.ones({samples}, {size}, requires_grad=True))
    centres = torch.ones(classes, {size}, requires_grad=True)
    found = compare(rows, centres, torch.zeros({samples}, dtype=torch.int64), Rules(64.0, memory_bytes=memory))
    (found.lse + found.target).sum().backward()
once(100, 0)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
once({classes}, {1 << 30 if keep else 0})
print((peak() - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    exponentials = samples * classes * 4 if keep else 0
    formula = exponentials + 12 * class_softmax.CHUNK_BYTES["cpu"] + 12 * samples * size * 4
    grown = int(done.stdout) - 2 * classes * size * 4  # less the centres and their gradient
    assert grown < formula
    assert grown > exponentials
