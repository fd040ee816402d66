"""The contrastive loss of a step is that of loops over its pairs, and mining is what gives it a gradient."""

import numpy as np
import pytest
import torch

from fastface.losses.contrastive import contrastive_loss
from fastface.losses.pair import pair_contrastive

LABELS = [0, 0, 1, 1, 1, 2]


def distance_of(a: np.ndarray, b: np.ndarray, name: str) -> float:
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return {"plain": np.linalg.norm(a - b), "squared": np.linalg.norm(a - b) ** 2, "cosine": 1 - a @ b}[name]


@pytest.mark.parametrize("distance", ["plain", "squared", "cosine"])
@pytest.mark.parametrize("mining", ["hardest", "all"])
def test_it_is_what_loops_find(distance: str, mining: str) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4))
    margin = {"plain": 1.4, "squared": 1.9, "cosine": 1.0}[distance]
    genuine, impostor, hardest = [], [], []
    for a in range(6):
        others = []
        for b in range(6):
            if a != b:
                (genuine if LABELS[a] == LABELS[b] else others).append(distance_of(rows[a], rows[b], distance))
        impostor += others
        hardest.append(min(others))
    counted = hardest if mining == "hardest" else impostor
    expected = (np.mean(np.square(genuine)) / 2 + np.mean(np.maximum(margin - np.array(counted), 0) ** 2) / 2) / 2
    found = contrastive_loss(
        torch.from_numpy(rows), torch.tensor(LABELS), margin=margin, distance=distance, mining=mining
    )
    assert found.loss.item() == pytest.approx(expected, rel=1e-6)
    assert found.terms["active_all"].item() == pytest.approx(np.mean(np.array(impostor) < margin))
    assert found.terms["active_mined"].item() == pytest.approx(np.mean(np.array(counted) < margin))
    assert found.terms["distance_hardest"].item() == pytest.approx(np.mean(hardest), rel=1e-6)


def test_it_is_the_loss_of_pairs_for_all_of_them() -> None:
    rows = torch.randn(6, 4, dtype=torch.float64)
    ways = [(a, b) for a in range(6) for b in range(6) if a != b]
    same = [(a, b) for a, b in ways if LABELS[a] == LABELS[b]]
    other = [(a, b) for a, b in ways if LABELS[a] != LABELS[b]]
    each = []
    for pairs in (same, other):
        order = [row for pair in pairs for row in pair]
        each.append(pair_contrastive(rows[order], torch.tensor(LABELS)[order], margin=1.3).loss.item())
    found = contrastive_loss(rows, torch.tensor(LABELS), margin=1.3, mining="all")
    assert found.loss.item() == pytest.approx(np.mean(each))


def test_strangers_in_512_dimensions_are_not_within_the_margin() -> None:
    """Without mining no pair teaches anything, and mined ones do once some are near."""
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 512))).requires_grad_()
    labels = torch.arange(64)
    found = contrastive_loss(rows, labels, margin=0.5, mining="all")
    assert found.terms["active_all"].item() == 0
    found.loss.backward()
    assert rows.grad is not None
    assert not rows.grad.any()
    near = rows.detach().clone()
    near[1] = near[0] + 0.2 * near[1]
    found = contrastive_loss(near, labels, margin=0.5, mining="hardest")
    assert found.terms["active_mined"].item() == pytest.approx(2 / 64)
    assert found.terms["active_all"].item() == pytest.approx(2 / (64 * 63))


def test_one_person_alone_has_no_impostors() -> None:
    rows = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    found = contrastive_loss(rows, torch.zeros(3, dtype=torch.int64))
    found.loss.backward()
    assert torch.isfinite(found.loss)
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mining": "harder"}, "hardest"), ({"distance": "plane"}, "plain"), ({"margin": 0.0}, "must be positive")],
)
def test_what_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrastive_loss(torch.randn(2, 4), torch.tensor([0, 1]), **options)
