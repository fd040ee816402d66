"""Keys are in the order of scores, bins hold them, and rough scores are no further off than is promised."""

import math

import numpy as np
import pytest
import torch

from fastface.metrics.all_pairs import panels
from fastface.metrics.all_pairs.keys import BINS, HIGHEST, LOWEST, bin_of, edge, key_of, keys_of, score_of
from fastface.metrics.all_pairs.products import half_of, product
from fastface.metrics.scores import unit
from tests.metrics.all_pairs.slow import people, scores_of


def test_keys_are_in_the_order_of_scores() -> None:
    scores = np.array([-1, -0.5, -1e-30, -1e-45, 0, 1e-45, 1e-30, 0.25, np.nextafter(np.float32(0.25), 1), 1], "<f4")
    keys = keys_of(scores)
    assert (np.diff(keys) > 0).all()
    assert [score_of(key) for key in keys.tolist()] == scores.tolist()
    assert key_of(-0.0) == key_of(0.0) == 0
    for score in scores:
        after = np.nextafter(score, np.float32(np.inf))
        assert score_of(key_of(float(score)) + 1) == after
    assert (LOWEST, HIGHEST) == (key_of(-1.0), key_of(1.0))


def test_bins_begin_at_their_edge() -> None:
    for number in (0, 1, BINS // 2 - 1, BINS // 2, BINS // 2 + 1, BINS - 1):
        assert bin_of(edge(number)) == number
        assert bin_of(math.nextafter(edge(number + 1), -2)) == number


@pytest.mark.parametrize("dim", [1, 2, 16, 512])
@pytest.mark.parametrize("kind", ["gauss", "equal signs", "one large", "wild"])
def test_rough_scores_are_within_the_bound(dim: int, kind: str) -> None:
    rng = np.random.default_rng(dim)
    rows = rng.standard_normal((60, dim)).astype(np.float32)
    if kind == "equal signs":
        rows = np.abs(rows) + 1  # sums grow, and with them the rounding
    elif kind == "one large":
        rows[:, 0] = 1e4
    elif kind == "wild":
        rows *= np.exp(rng.uniform(-40, 40, rows.shape)).astype(np.float32)
    exact = unit(rows) @ unit(rows).T
    for half in (False, True):
        device = torch.device("cpu")
        scanned = panels.scan(rows, np.arange(60) // 2, device, half=half)
        multiply = product(half_of(device) if half else torch.float32, dim, scanned.residual)
        some = panels.Panels(scanned, 60, multiply.kind, device, 10)[0].unit
        rough = multiply(some, some, torch.empty(60, 60)).numpy()
        bound = np.vectorize(multiply.error)(exact)
        assert (np.abs(rough - exact.astype(np.float32)) <= bound).all()


def test_the_bound_at_512() -> None:
    assert 3.0e-5 < product(torch.float32, 512).error() < 3.2e-5


def test_genuine_pairs_are_binned() -> None:
    rows, labels = people(700, 60)
    scanned = panels.scan(rows, labels, torch.device("cpu"), half=False)
    scores, same = scores_of(rows, labels)
    expected = np.bincount([bin_of(float(score)) for score in scores[same]], minlength=BINS)
    found = panels.genuine_bins(scanned)
    assert found.sum() == expected.sum() == scanned.finite[0]
    assert np.abs(np.cumsum(found - expected)).max() <= 5  # float32 beside float64, at an edge


def test_a_part_keeps_identities_whole() -> None:
    rows, labels = people(300, 40)
    scanned = panels.scan(rows, labels, torch.device("cpu"), half=False)
    part = scanned.part(30)
    chosen = np.unique(labels[part.order])
    assert 30 <= len(part.order) < 60
    assert sorted(part.order) == np.flatnonzero(np.isin(labels, chosen)).tolist()
    assert part.finite == (part.genuine, part.impostors)
    same = labels[part.order][:, None] == labels[part.order]
    assert part.genuine == np.triu(same, 1).sum()
    assert part.stop.tolist() == [int(np.flatnonzero(row).max()) + 1 for row in same]
