"""Plan -> Slots: which records make up a global step, and the random key of each of its slots."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the increment of splitmix64
MASK = (1 << 64) - 1
# What a seed is hashed with, so that no two uses of it share their randomness. Permutations of whole epochs take
# (seed, epoch), keys of slots (seed, step, 1), the rest (seed, one of these, ...).
STREAMS = {"image": 2, "share": 3, "pair": 4, "turn": 5, "first": 6, "second": 7, "window": 8, "segment": 9}
STREAMS |= {"mined": 10, "neighbour": 11, "spare": 12, "source": 13, "refresh": 14, "cut": 15}
ROUNDS = 6  # Luby and Rackoff prove 4 enough for ideal round functions; 6 leave room for ours


class Slots(NamedTuple):
    """The rows of one global step, or a contiguous part of them."""

    step: int
    first: int  # row 0 here is row `first` of the step's global batch
    records: np.ndarray  # int64 [B], index into the shard set
    keys: np.ndarray  # uint64 [B], random key of each row: all randomness of a sample comes from it

    def split(self, part: int, parts: int) -> Slots:
        """Return part `part` of `parts` equal contiguous parts; ValueError where the rows do not divide."""
        rows, remainder = divmod(len(self.records), parts)
        if remainder:
            raise ValueError(
                f"step {self.step} has {len(self.records)} rows, which {parts} parts do not divide; "
                f"choose batch_size as a multiple of micro_batch * number of processes"
            )
        if not 0 <= part < parts:
            raise ValueError(f"part {part} of {parts}: parts count from 0")
        return self.rows(part * rows, (part + 1) * rows)

    def rows(self, start: int, stop: int) -> Slots:
        """Return the rows [start, stop) of these slots, fewer where there are fewer."""
        return Slots(self.step, self.first + start, self.records[start:stop], self.keys[start:stop])


class Plan(Protocol):
    """A pure function of the step: it knows nothing of processes, threads or devices."""

    unit: int  # neighbouring rows that belong together: no micro-batch may part them
    notes: list[str]  # what the user should hear once, such as which identities are left out

    @property
    def batch_size(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def __getitem__(self, step: int) -> Slots: ...

    def describe(self) -> dict[str, Any]:
        """Return what identifies the plan, for checkpoints: JSON values only."""
        ...


def permute(positions: np.ndarray, size: int | np.ndarray, key: int | np.ndarray) -> np.ndarray:
    """Map positions in [0, size) to distinct values in [0, size): a pseudorandom permutation chosen by `key`.

    int64 to int64 of the common shape: each row may have a size (int64) and a key (uint64) of its own, as long as
    they broadcast to `positions`. A Feistel network on pairs of Z_a x Z_b with a * b just above `size`, walked along
    its cycles until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    Halves that add modulo a and b, not bits that xor, keep a * b within sqrt(size) of size, so that hardly
    any value walks: numpy's cost here is per call, and every further walk repeats all calls.
    """
    values = np.array(positions, np.uint64)
    sizes = np.atleast_1d(np.asarray(size)).astype(np.uint64)
    a = np.maximum(np.ceil(np.sqrt(sizes.astype(np.float64))), 1).astype(np.uint64)
    b = (sizes + a - np.uint64(1)) // a
    folded = hash_rows(key)
    round_keys = [_fold(folded, number) >> np.uint64(1) for number in range(ROUNDS)]  # sums stay below 2^64
    values = _feistel(values, a, b, round_keys)
    while (walking := values >= sizes).any():
        a_of, b_of, *keys_of = (_rows_of(rows, walking) for rows in (a, b, *round_keys))
        values[walking] = _feistel(values[walking], a_of, b_of, keys_of)
    return values.astype(np.int64)


def _rows_of(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return what belongs to the places that `where` (bool) marks, of an array that broadcasts to it: [n] or [1]."""
    return rows.ravel() if rows.size == 1 else np.broadcast_to(rows, where.shape)[where]


def _feistel(values: np.ndarray, a: np.ndarray, b: np.ndarray, round_keys: list[np.ndarray]) -> np.ndarray:
    left, right = np.divmod(values, b)
    for number, key in enumerate(round_keys):
        if number % 2:
            right = (right + _mix(left + key)) % b
        else:
            left = (left + _mix(right + key)) % a
    return left * b + right


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble uint64 [n] to 63 bits; the modulus after it is uneven by a / 2^63 only."""
    return _finish(values) >> np.uint64(1)


def _finish(values: np.ndarray) -> np.ndarray:
    """Finish splitmix64: each input bit flips each output bit with probability near 1/2.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, with the constants
    of David Stafford (Mix13).
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def splitmix64(state: int, count: int) -> np.ndarray:
    """Return the first `count` outputs (uint64) of the generator splitmix64 seeded with `state`."""
    return _finish(np.uint64(state & MASK) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN))


def hash_numbers(*numbers: int) -> int:
    """Fold integers (each taken modulo 2^64) into one 64-bit hash; the order matters."""
    value = 0
    for number in numbers:
        value = (value ^ (number & MASK)) + GOLDEN & MASK
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
        value ^= value >> 31
    return value


def hash_rows(*numbers: int | np.ndarray) -> np.ndarray:
    """Fold integers, some of them arrays, into hashes: what `hash_numbers` gives for each row, uint64 [n] (n >= 1)."""
    value = np.zeros(1, np.uint64)
    for number in numbers:
        value = _fold(value, number)
    return value


def _fold(value: np.ndarray, number: int | np.ndarray) -> np.ndarray:
    bits = np.uint64(number & MASK) if isinstance(number, int) else np.atleast_1d(number).astype(np.uint64)
    return _finish((value ^ bits) + np.uint64(GOLDEN))


def slot_keys(seed: int, step: int, count: int) -> np.ndarray:
    """Return the keys of rows 0..count-1 of a step, uint64: splitmix64 from the hash of (seed, step)."""
    return splitmix64(hash_numbers(seed, step, 1), count)  # the 1 keeps keys apart from epoch permutations
