"""The heads that steps are compared with are ours, written out; ratios are taken round by round."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.step import compared, goals, main, parse, ratio
from benchmarks.step_cases import BASE, CONTIGUOUS
from benchmarks.steppers import MARGIN, SCALE, DenseHead, metric_learning_head
from fastface.heads.margin_head import MarginHead
from fastface.losses.margins import build_margin

CLASSES, SIZE = 7, 5


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randn(6, SIZE, generator=generator, dtype=torch.float64)
    centres = torch.randn(CLASSES, SIZE, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 6, 3, 3, 1, 2])
    embedding[5] = -centres[2]  # beyond pi - margin
    return embedding, centres, labels


def slow_loss(embedding: torch.Tensor, centres: torch.Tensor, labels: torch.Tensor) -> float:
    total = 0.0
    for row, label in zip(embedding, labels.tolist(), strict=True):
        logits = []
        for number, centre in enumerate(centres):
            cosine = max(-1.0, min(1.0, float(row @ centre) / float(row.norm() * centre.norm())))
            if number == label:
                angle = math.acos(cosine) + MARGIN
                cosine = math.cos(angle) if angle < math.pi else cosine - MARGIN * math.sin(MARGIN)
            logits.append(SCALE * cosine)
        top = max(logits)
        total += top + math.log(sum(math.exp(z - top) for z in logits)) - logits[label]
    return total / len(labels)


def test_the_head_by_hand_has_our_heads_loss_and_gradient() -> None:
    embedding, centres, labels = problem()
    gradients = []
    ours = MarginHead(CLASSES, SIZE, margin=build_margin("arcface", m=MARGIN, gradient="straight_through"), s=SCALE)
    ours.double().weight.data.copy_(centres)
    for head in (ours, DenseHead(centres)):
        x = embedding.clone().requires_grad_()
        out = head(x, labels)
        loss = out if isinstance(out, torch.Tensor) else out.loss
        assert float(loss.detach()) == pytest.approx(slow_loss(embedding, centres, labels), rel=1e-9)
        loss.backward()
        gradients.append((x.grad, head.weight.grad))
    for mine, by_hand in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, by_hand, rtol=1e-9, atol=1e-9)


def test_pytorch_metric_learning_has_the_same_loss() -> None:
    pytest.importorskip("pytorch_metric_learning", reason="pytorch-metric-learning is not installed")
    embedding, centres, labels = problem()
    loss = metric_learning_head(centres)(F.normalize(embedding), labels)
    assert float(loss.detach()) == pytest.approx(slow_loss(embedding, centres, labels), rel=1e-6)


def test_ratios_are_medians_over_rounds() -> None:
    base = [{"ms": ms, "processor_ms": 10.0} for ms in (10.0, 40.0, 12.0)]
    other = [{"ms": ms, "processor_ms": 20.0} for ms in (20.0, 20.0, 15.0)]
    assert ratio(other, base) == 0.8  # of 0.5, 2 and 0.8
    (found,) = goals({BASE: base, "arcface_torch": other})
    assert (found["ratio"], found["processor_ratio"]) == (1.25, 2.0)


def test_losses_are_compared_with_the_row_of_the_same_memory_layout() -> None:
    losses = {BASE: [9.0, 9.0], CONTIGUOUS: [10.0, 20.0], "arcface_torch": [10.0, 21.0]}
    found = compared("arcface_torch", losses)
    assert found == {"equal": CONTIGUOUS, "differences": [0.0, 0.05]}
    assert compared("arcface_torch", {BASE: [9.0, 9.0], "arcface_torch": [9.0, 9.0]})["differences"] == []
    assert len(compared(CONTIGUOUS, losses)["differences"]) == 1


def test_a_clone_that_is_none_and_too_few_identities_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--arcface-torch", str(tmp_path)])
    assert "has no partial_fc_v2.py: name recognition/arcface_torch of a clone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--classes", "100", "--batch", "32"])
    assert "--classes must be at least 128" in capsys.readouterr().err
    quick = parse(["--quick", "--only", "loop by hand"])
    assert (quick.networks, quick.classes, quick.rounds, quick.steps) == (["mbf"], [10_000], 3, 1)
    assert quick.cases[0] == BASE
    assert "loop by hand" in quick.cases
    assert not any(name.startswith("arcface_torch") for name in quick.cases)
