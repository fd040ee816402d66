"""The arithmetic of plans: permutations, hashes and keys, against plain integers and published values."""

import numpy as np
import pytest

from fastface.data.plan import hash_numbers, hash_rows, permute, slot_keys, splitmix64
from fastface.data.plans import Shuffled
from tests.data.plain import feistel

SIZES = [*range(1, 40), 63, 64, 65, 127, 255, 256, 257, 997, 1000, 1009, 4096, 4099, 10_007]


@pytest.mark.parametrize("size", SIZES)
def test_permute_is_a_bijection(size: int) -> None:
    for key in (0, 1, 2**63, 2**64 - 1):
        assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


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


def test_each_row_may_have_a_size_and_a_key_of_its_own() -> None:
    rng = np.random.default_rng(0)
    sizes, keys = rng.integers(1, 60, (200, 1)), rng.integers(0, 2**64, (200, 1), np.uint64)
    positions = rng.integers(0, sizes, (200, 5))
    expected = [
        [feistel(int(p), int(size), int(key)) for p in row]
        for row, size, key in zip(positions, sizes[:, 0], keys[:, 0], strict=True)
    ]
    assert permute(positions, sizes, keys).tolist() == expected
    assert permute(positions[:, :1], sizes, 7).tolist() == [
        [feistel(int(p), int(size), 7)] for p, size in zip(positions[:, 0], sizes[:, 0], strict=True)
    ]


def test_hashes_of_rows_are_those_of_numbers() -> None:
    values = np.array([0, 1, -1, 2**62], np.int64)
    for number, row in zip(values.tolist(), hash_rows(-3, values, 5), strict=True):
        assert int(row) == hash_numbers(-3, number, 5)
    assert hash_rows(2**64 - 1, 7).tolist() == [hash_numbers(2**64 - 1, 7)]


def test_slots_refuse_uneven_parts() -> None:
    with pytest.raises(ValueError, match=r"8 rows, which 3 parts do not divide.*micro_batch"):
        Shuffled(20, 8, 0)[0].split(0, 3)
    with pytest.raises(ValueError, match="part 2 of 2"):
        Shuffled(20, 8, 0)[0].split(2, 2)
