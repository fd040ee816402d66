"""Pairs: an exact share of genuine ones, each pair of images once before any comes again."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from fastface.data.plan import STREAMS, hash_numbers
from fastface.data.plans import Pairs
from fastface.data.plans.pairs import unordered_pair
from tests.data.fake_index import fake_index
from tests.data.plain import feistel
from tests.data.plans.small import small_index

INDEX = small_index()


def pairs_of(plan: Pairs, steps: range) -> np.ndarray:
    """Return the pairs of steps in order: int64 [n, 2]."""
    return np.concatenate([plan[step].records.reshape(-1, 2) for step in steps])


@pytest.mark.parametrize("genuine", [0.0, 0.25, 0.5, 0.3, 1.0])
def test_the_share_of_genuine_pairs_is_exact(genuine: float) -> None:
    plan = Pairs(INDEX, genuine, 24, seed=0)
    total = 0
    for step in range(100):
        pairs = plan[step].records.reshape(-1, 2)
        assert (pairs[:, 0] != pairs[:, 1]).all()
        count = int((INDEX.label[pairs[:, 0]] == INDEX.label[pairs[:, 1]]).sum())
        assert np.floor(12 * genuine) <= count <= np.ceil(12 * genuine)
        total += count
    assert total == pytest.approx(1200 * genuine, abs=2)


def test_every_pair_of_images_of_one_identity_comes_once_a_cycle() -> None:
    index = fake_index(np.array([0, 1, 0, 2, 1, 0, 3, 1, 1, 5]))
    every = [{a, b} for a, b in combinations(range(10), 2) if index.label[a] == index.label[b]]
    plan = Pairs(index, 1.0, 2, seed=7)
    assert plan.num[0] == len(every) == 9
    orders = []
    for cycle in range(3):
        pairs = pairs_of(plan, range(cycle * 9, cycle * 9 + 9)).tolist()
        assert sorted(map(sorted, pairs)) == sorted(map(sorted, every))
        orders.append(pairs)
    assert orders[0] != orders[1] != orders[2]


def test_every_pair_of_identities_comes_once_a_cycle_with_any_of_their_images() -> None:
    index = fake_index(np.array([0, 1, 0, 2, 1, 0, 3, 1, 1, 5]))
    plan = Pairs(index, 0.0, 2, seed=7)
    images: Counter[int] = Counter()
    for cycle in range(30):
        pairs = pairs_of(plan, range(cycle * 10, cycle * 10 + 10))
        people = sorted(map(sorted, index.label[pairs].tolist()))
        assert people == sorted(map(list, combinations([0, 1, 2, 3, 5], 2)))
        images.update(pairs.ravel().tolist())
    for person in (0, 1):  # each image of a person about equally often
        own = np.flatnonzero(index.label == person)
        expected = 30 * 4 / len(own)
        assert all(0.5 * expected < images[int(record)] < 1.6 * expected for record in own)


def test_either_image_may_come_first() -> None:
    for genuine in (0.0, 1.0):
        pairs = pairs_of(Pairs(INDEX, genuine, 64, seed=1), range(20))
        side = INDEX.label[pairs] if genuine == 0 else pairs
        assert 0.4 < np.mean(side[:, 0] < side[:, 1]) < 0.6


def test_pairs_count_in_their_order() -> None:
    plain = [(a, b) for b in range(40) for a in range(b)]
    assert unordered_pair(np.arange(len(plain))).tolist() == [list(pair) for pair in plain]
    for large in (10**6, 2 * 10**6, 94_906_267):  # around the end of float64's integers, 2^53
        first = large * (large - 1) // 2
        found = unordered_pair(np.array([first - 1, first, first + large - 1]))
        assert found.tolist() == [[large - 2, large - 1], [0, large], [large - 1, large]]


def test_an_epoch_is_as_many_pairs_as_asked_for() -> None:
    assert Pairs(INDEX, 0.5, 32, 0).steps_per_epoch == 10  # 300 images, 150 pairs, 16 a step
    assert Pairs(INDEX, 0.5, 32, 0, pairs_per_epoch=161).steps_per_epoch == 11


def test_errors_say_what_is_lacking() -> None:
    with pytest.raises(ValueError, match="no identity with two images"):
        Pairs(fake_index(np.array([0, 1, 2])), 0.5, 2, 0)
    with pytest.raises(ValueError, match="has only one identity"):
        Pairs(fake_index(np.array([0, 0])), 0.5, 2, 0)
    with pytest.raises(ValueError, match="batch_size 7 is not a multiple of the rows of a pair = 2"):
        Pairs(INDEX, 0.5, 7, 0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        Pairs(INDEX, 1.5, 8, 0)


def test_pairs_are_what_plain_loops_give() -> None:
    plan, count = Pairs(INDEX, 1.0, 8, seed=3), Pairs(INDEX, 0.0, 8, seed=3)
    own = [np.flatnonzero(INDEX.label == person).tolist() for person in range(40)]
    every = [[(images[a], images[b]) for b in range(len(images)) for a in range(b)] for images in own]
    genuine = [pair for pairs in every for pair in pairs]
    people = [person for person in range(40) if own[person]]
    strangers = [(people[a], people[b]) for b in range(len(people)) for a in range(b)]
    for number in [*range(40), *range(len(genuine) - 4, len(genuine) + 4)]:
        cycle, place = divmod(number, len(genuine))
        pair = genuine[feistel(place, len(genuine), hash_numbers(3, STREAMS["pair"], 0, cycle))]
        turned = hash_numbers(3, STREAMS["turn"], number) & 1
        assert plan[number // 4].records.reshape(-1, 2)[number % 4].tolist() == list(pair[::-1] if turned else pair)
        cycle, place = divmod(number, len(strangers))
        two = strangers[feistel(place, len(strangers), hash_numbers(3, STREAMS["pair"], 1, cycle))]
        draws = [hash_numbers(3, STREAMS[side], number) for side in ("first", "second")]
        if draws[0] >> 63:
            two = two[::-1]
        expected = [own[person][(draw >> 1) % len(own[person])] for person, draw in zip(two, draws, strict=True)]
        assert count[number // 4].records.reshape(-1, 2)[number % 4].tolist() == expected
