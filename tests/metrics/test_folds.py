import numpy as np
import pytest

from fastface.metrics.folds import Pairs, make_folds, shared_identities, stratified_folds


def crossing(pairs: Pairs, identities: np.ndarray) -> int:
    assert pairs.fold is not None
    seen: dict[int, set[int]] = {}
    for a, b, k in zip(pairs.first, pairs.second, pairs.fold, strict=True):
        for i in (a, b):
            seen.setdefault(int(identities[i]), set()).add(int(k))
    ends = zip(pairs.first, pairs.second, strict=True)
    return sum(len(seen[int(identities[a])]) > 1 or len(seen[int(identities[b])]) > 1 for a, b in ends)


def test_blocks_of_lfw_are_found() -> None:
    same = np.tile(np.repeat([True, False], 300), 10)
    assert np.array_equal(stratified_folds(same), np.arange(6000) // 600)


def test_sorted_pairs_spread_both_kinds_over_all_folds() -> None:
    folds = stratified_folds(np.arange(1000) < 500)
    assert [(int((folds[:500] == k).sum()), int((folds[500:] == k).sum())) for k in range(10)] == [(50, 50)] * 10


@pytest.mark.parametrize(("genuine", "impostors"), [(1, 1), (1, 3), (3, 2), (5, 40)])
def test_few_pairs_make_few_folds_none_empty(genuine: int, impostors: int) -> None:
    folds = stratified_folds(np.repeat([True, False], [genuine, impostors]))
    assert set(folds.tolist()) == set(range(folds.max() + 1))
    assert folds.max() >= 1


def test_folds_share_nobody_where_the_pairs_allow_it() -> None:
    """Forty persons in couples: impostor pairs stay within a couple."""
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(40), 5)
    a, b = rng.integers(0, 5, (2, 400))
    person = rng.integers(0, 40, 400)
    other = np.where(np.arange(400) % 2 == 0, person, person ^ 1)
    keep = (person != other) | (a != b)
    pairs = Pairs((person * 5 + a)[keep], (other * 5 + b)[keep], (person == other)[keep])
    pairs = pairs._replace(fold=make_folds(pairs, identities))
    assert pairs.fold is not None
    assert shared_identities(pairs, identities) == crossing(pairs, identities) == 0
    sizes = np.bincount(pairs.fold)
    assert len(sizes) == 10
    assert sizes.max() < 2 * sizes.min()


def test_where_impostors_link_all_the_genuine_pairs_of_a_person_stay_together() -> None:
    rng = np.random.default_rng(1)
    identities = np.repeat(np.arange(30), 10)
    first, second = rng.integers(0, 300, (2, 4000))
    first, second = first[first != second], second[first != second]
    pairs = Pairs(first, second, identities[first] == identities[second])
    pairs = pairs._replace(fold=make_folds(pairs, identities))
    assert pairs.fold is not None
    for person in range(30):
        mine = pairs.same & (identities[pairs.first] == person)
        assert len(set(pairs.fold[mine].tolist())) <= 1
    assert len(np.bincount(pairs.fold)) == 10
    assert shared_identities(pairs, identities) == crossing(pairs, identities) > 0


def test_pictures_without_known_persons_are_linked_by_their_genuine_pairs() -> None:
    """0-1-2 is one person by two pairs, though every picture is numbered as its own."""
    pairs = Pairs(np.array([0, 1, 3, 5]), np.array([1, 2, 4, 6]), np.array([True, True, True, False]))
    folds = make_folds(pairs, np.arange(7), num=2)
    assert folds[0] == folds[1]
    assert set(folds.tolist()) == {0, 1}


def test_two_persons_still_make_folds() -> None:
    identities = np.array([0, 0, 1, 1])
    pairs = Pairs(np.array([0, 0, 1]), np.array([1, 2, 3]), np.array([True, False, False]))
    folds = make_folds(pairs, identities)
    assert set(folds.tolist()) == set(range(folds.max() + 1))
    assert folds.max() >= 1
