import numpy as np
import pytest

from fastface.metrics.folds import shared_identities
from fastface.metrics.pairs import count_pairs, sample_pairs


def all_pairs(labels: np.ndarray) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    couples = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    genuine = {(i, j) for i, j in couples if labels[i] == labels[j]}
    return genuine, set(couples) - genuine


@pytest.mark.parametrize("num_folds", [0, 10])
def test_all_are_taken_where_fewer_exist(num_folds: int) -> None:
    labels = np.array([3, 1, 1, 2, 1, 2, 7])
    pairs = sample_pairs(labels, 1000, num_folds=num_folds)
    found = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    genuine, impostors = all_pairs(labels)
    assert count_pairs(labels) == (len(genuine), len(impostors))
    assert len(found) == len(set(found)) == 21
    assert {p for p, same in zip(found, pairs.same, strict=True) if same} == genuine
    assert {p for p, same in zip(found, pairs.same, strict=True) if not same} == impostors


@pytest.mark.parametrize("num", [2, 100, 2000, 3000])
def test_half_are_genuine_and_none_occurs_twice(num: int) -> None:
    labels = np.random.default_rng(0).integers(0, 40, 500)
    pairs = sample_pairs(labels, num, seed=3)
    assert (int(pairs.same.sum()), int((~pairs.same).sum())) == (num // 2, num // 2)
    assert np.array_equal(labels[pairs.first] == labels[pairs.second], pairs.same)
    assert (pairs.first < pairs.second).all()
    assert len(np.unique(pairs.first * 500 + pairs.second)) == num


def test_the_rarer_kind_can_set_the_number() -> None:
    labels = np.arange(60) // 3
    assert np.bincount(sample_pairs(labels, 1000).same).tolist() == [500, 60]
    assert np.bincount(sample_pairs(labels, 1000, balanced=True).same).tolist() == [60, 60]


def test_folds_share_nobody() -> None:
    labels = np.repeat(np.arange(60), 20)
    pairs = sample_pairs(labels, 20_000)
    assert pairs.fold is not None
    assert shared_identities(pairs, labels) == 0
    for kind in (pairs.same, ~pairs.same):
        assert (np.bincount(pairs.fold[kind], minlength=10) > 800).all()
    assert (np.diff(pairs.fold) >= 0).all()


def test_few_persons_still_give_the_pairs_and_say_what_crosses() -> None:
    labels = np.repeat([0, 1, 2], 40)
    pairs = sample_pairs(labels, 400)
    assert pairs.fold is not None
    assert np.bincount(pairs.same).tolist() == [200, 200]
    assert pairs.fold.max() >= 1
    assert shared_identities(pairs, labels) > 0


def chi_square_per_cell(counts: np.ndarray) -> float:
    return float((np.square(counts - counts.mean()) / counts.mean()).sum() / (counts.size - 1))


def test_genuine_pairs_are_uniform_over_pairs_not_persons() -> None:
    """Persons of 2, 5 and 11 pictures have 1, 10 and 55 pairs; each of the 66 must come up alike."""
    labels = np.repeat([0, 1, 2], [2, 5, 11])
    counts = np.zeros((18, 18))
    for seed in range(300):
        pairs = sample_pairs(labels, 40, seed=seed, num_folds=0)
        np.add.at(counts, (pairs.first[pairs.same], pairs.second[pairs.same]), 1)
    drawn = np.array([counts[i, j] for i in range(18) for j in range(i + 1, 18) if labels[i] == labels[j]])
    assert drawn.sum() == 300 * 20
    assert 0.3 < chi_square_per_cell(drawn) < 1.3  # without repetition within a draw, hence below 1


def test_impostor_pairs_are_uniform() -> None:
    labels = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])
    counts = np.zeros((21, 21))
    for seed in range(300):
        pairs = sample_pairs(labels, 60, seed=seed, num_folds=0)
        np.add.at(counts, (pairs.first[~pairs.same], pairs.second[~pairs.same]), 1)
    drawn = np.array([counts[i, j] for i in range(21) for j in range(i + 1, 21) if labels[i] != labels[j]])
    assert drawn.sum() == 300 * 30
    assert 0.4 < chi_square_per_cell(drawn) < 1.3


def test_the_draw_is_fixed_by_labels_and_seed() -> None:
    labels = np.repeat(np.arange(50), 8)
    one, again, other = (sample_pairs(labels, 500, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one.first, other.first)
    assert (one.first[:4].tolist(), one.second[:4].tolist()) == ([384, 306, 18, 19], [388, 309, 19, 21])


def test_a_million_images_are_counted_in_64_bits() -> None:
    labels = np.zeros(200_000, dtype=np.int32)
    labels[-3:] = 1
    assert count_pairs(labels) == (199_997 * 199_996 // 2 + 3, 199_997 * 3)
    pairs = sample_pairs(labels, 2000)
    assert np.array_equal(labels[pairs.first] == labels[pairs.second], pairs.same)
    assert pairs.first[pairs.same].max() > 100_000


@pytest.mark.parametrize(
    ("labels", "message"),
    [([1, 1, 1], "no two persons"), ([1, 2, 3], "no two images of one person"), ([], "0 images")],
)
def test_labels_without_a_kind_are_refused(labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_pairs(np.array(labels, dtype=np.int64))
