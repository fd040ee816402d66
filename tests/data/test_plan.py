"""Plans: every record once an epoch, the same sequence for any number of processes and from any step."""

import json
import math

import numpy as np
import pytest

from fastface.data.plan import hash_numbers, permute, slot_keys, splitmix64
from fastface.data.plans import Sequential, Shuffled

SIZES = [*range(1, 40), 63, 64, 65, 127, 255, 256, 257, 997, 1000, 1009, 4096, 4099, 10_007]


@pytest.mark.parametrize("size", SIZES)
def test_permute_is_a_bijection(size: int) -> None:
    for key in (0, 1, 2**63, 2**64 - 1):
        assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def feistel(position: int, size: int, key: int) -> int:
    """The same permutation in plain integers."""
    mask = 2**64 - 1

    def scramble(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
        return (value ^ value >> 31) >> 1

    a = math.isqrt(size - 1) + 1
    b = (size + a - 1) // a
    while True:
        left, right = position // b, position % b
        for number in range(6):
            round_key = hash_numbers(key, number) >> 1
            if number % 2 == 0:
                left = (left + scramble(right + round_key)) % a
            else:
                right = (right + scramble(left + round_key)) % b
        position = left * b + right
        if position < size:
            return position


@pytest.mark.parametrize("size", [1, 2, 3, 7, 24, 101, 5_822_653, 2**40 + 15])
def test_permute_agrees_with_plain_integers(size: int) -> None:
    positions = [p for p in (0, 1, 2, 3, 5, size // 2, size - 1) if p < size]
    expected = [feistel(p, size, 12345) for p in positions]
    assert permute(np.array(positions), size, 12345).tolist() == expected


def test_permute_has_no_favourites() -> None:
    size, keys = 7, 700
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), permute(np.arange(size), size, key)] += 1
    # chi-square over 49 cells, 36 degrees of freedom: 99.99 % lie below 78
    assert ((counts - keys / size) ** 2 / (keys / size)).sum() < 78


def test_neighbours_part_in_a_large_set() -> None:
    order = permute(np.arange(2000), 5_000_000, 3)
    steps = np.abs(np.diff(order))
    assert abs(np.mean(steps) / 5_000_000 - 1 / 3) < 0.03  # as for independent uniform places
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.1


def test_splitmix64_matches_published_values() -> None:
    # the first outputs for seed 1234567, as listed with the reference implementation (Vigna, splitmix64.c)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567, 4).tolist() == expected


def test_keys_are_distinct_over_seeds_steps_and_slots() -> None:
    keys = [slot_keys(seed, step, 64) for seed in (0, 1, -1) for step in range(50)]
    assert len(np.unique(np.concatenate(keys))) == 3 * 50 * 64
    assert keys[0].dtype == np.uint64
    assert slot_keys(0, 0, 10).tolist() == keys[0][:10].tolist()  # a key knows nothing of the batch size


@pytest.mark.parametrize(("size", "batch_size"), [(1, 1), (7, 7), (40, 8), (43, 8), (9973, 96)])
def test_shuffled_visits_each_record_at_most_once_per_epoch(size: int, batch_size: int) -> None:
    plan = Shuffled(size, batch_size, seed=5)
    assert plan.steps_per_epoch == size // batch_size
    left_over = []
    for epoch in range(3):
        first = epoch * plan.steps_per_epoch
        seen = np.concatenate([plan[first + n].records for n in range(plan.steps_per_epoch)])
        assert len(np.unique(seen)) == len(seen) == plan.steps_per_epoch * batch_size
        assert seen.min() >= 0
        assert seen.max() < size
        left_over.append(tuple(np.setdiff1d(np.arange(size), seen)))
    if size % batch_size and size > 100:
        assert len(set(left_over)) == 3


def sequence(plan: Shuffled, world: int, steps: range) -> list[tuple[int, int, int, int]]:
    """List (step, slot, record, key) in global order, gathered from `world` ranks."""
    rows = []
    for step in steps:
        for rank in range(world):
            part = plan[step].split(rank, world)
            assert part.step == step
            rows += [(step, part.first + n, int(r), int(k)) for n, (r, k) in enumerate(zip(*part[2:], strict=True))]
    return rows


@pytest.mark.parametrize("world", [1, 2, 4])
def test_same_sequence_for_any_world_and_start(world: int) -> None:
    make = lambda: Shuffled(103, 8, seed=11)  # noqa: E731 - a fresh plan each time, with nothing remembered
    whole = sequence(make(), 1, range(40))
    assert [row[:2] for row in whole] == [(step, slot) for step in range(40) for slot in range(8)]
    plan = make()
    for start in (0, 1, 11, 12, 13, 29, 5):  # epochs begin at 12, 24 and 36; going back is allowed
        assert sequence(plan, world, range(start, 40)) == whole[start * 8 :]


def test_epochs_and_seeds_differ() -> None:
    plan = Shuffled(1000, 1000, seed=0)
    orders = [plan[0].records, plan[1].records, Shuffled(1000, 1000, seed=1)[0].records]
    for n, a in enumerate(orders):
        for b in orders[:n]:
            assert (a == b).sum() < 10


def test_far_steps_cost_no_memory() -> None:
    slots = Shuffled(42_000_000, 512, seed=0)[10**9]
    assert slots.records.shape == slots.keys.shape == (512,)
    assert slots.records.max() < 42_000_000


def test_sequential_ends_with_a_short_step() -> None:
    plan = Sequential(10, 4)
    assert plan.steps_per_epoch == 3
    assert [plan[n].records.tolist() for n in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    with pytest.raises(IndexError, match="end after 3 steps"):
        plan[3]


def test_descriptions_tell_plans_apart() -> None:
    plans = [
        Shuffled(10, 2, 0),
        Shuffled(10, 2, 1),
        Shuffled(11, 2, 0),
        Shuffled(10, 5, 0),
        Sequential(10, 2),
    ]
    texts = [json.dumps(plan.describe(), sort_keys=True) for plan in plans]
    assert len(set(texts)) == len(plans)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="do not fill a batch of 32"):
        Shuffled(10, 32, 0)
    with pytest.raises(ValueError, match="at least one record"):
        Shuffled(0, 1, 0)
    with pytest.raises(IndexError, match="count from 0"):
        Shuffled(10, 2, 0)[-1]
    with pytest.raises(ValueError, match=r"8 rows, which 3 parts do not divide.*micro_batch"):
        Shuffled(20, 8, 0)[0].split(0, 3)
    with pytest.raises(ValueError, match="part 2 of 2"):
        Shuffled(20, 8, 0)[0].split(2, 2)
