"""Draws: Philox by its published vectors, and parameters that depend on the key of a slot alone."""

import numpy as np
import pytest

from fastface.data.augment import Augment
from fastface.data.augment.philox import philox4x32, philox_rounds, uniform
from fastface.data.plan import Shuffled, Slots

# kat_vectors of the Random123 distribution: counter, key, result of philox4x32 with 10 rounds
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def test_philox_matches_published_vectors() -> None:
    counter, key, expected = (np.array(part, np.uint64).T for part in zip(*KNOWN, strict=True))
    assert philox_rounds(counter, key).tolist() == expected.tolist()


def philox(key: int, stream: int, block: int) -> list[int]:
    """Philox4x32-10 in plain integers."""
    c, k = [block, stream, 0, 0], [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [q >> 32 ^ c[1] ^ k[0], q & 0xFFFFFFFF, p >> 32 ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_philox_takes_key_stream_and_block() -> None:
    keys = np.array([0, 1, 2**32, 2**64 - 1, 0x0123456789ABCDEF], np.uint64)
    for stream, block in [(0, 0), (3, 0), (0, 5)]:
        expected = [philox(int(key), stream, block) for key in keys]
        assert philox4x32(keys, stream, block).T.tolist() == expected


def test_uniform_is_uniform() -> None:
    numbers = uniform(np.arange(20_000, dtype=np.uint64), "flip")  # keys in a row: the worst a caller can do
    assert numbers.shape == (4, 20_000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=16, range=(0, 1))
    expected = numbers.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # 15 degrees of freedom: 99.99 % lie below 45
    assert np.abs(np.corrcoef(numbers) - np.eye(4)).max() < 0.04


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_draws_do_not_depend_on_the_split(parts: int) -> None:
    plan, augment = Shuffled(1000, 64, seed=3), Augment(flip=0.3)
    whole = augment.draw(plan[7])
    split = [augment.draw(plan[7].split(part, parts)) for part in range(parts)]
    assert np.concatenate([draws.flip for draws in split]).tolist() == whole.flip.tolist()
    expected = [philox(int(key), 0, 0)[0] / 2**32 < 0.3 for key in plan[7].keys]
    assert whole.flip.tolist() == expected


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_flip_has_its_probability(probability: float) -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64)
    flip = Augment(flip=probability).draw(Slots(0, 0, np.zeros(20_000, np.int64), keys)).flip
    assert flip.dtype == np.bool_
    assert abs(flip.mean() - probability) <= 4 * (probability * (1 - probability) / 20_000) ** 0.5


def test_probability_is_checked() -> None:
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"augment\.flip is .*from 0 to 1"):
            Augment(flip=wrong)
