"""Plan -> Slots: which records make up a global step, and the random key of each of its slots."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the increment of splitmix64
MASK = (1 << 64) - 1
ROUNDS = 6  # Luby and Rackoff prove 4 enough for ideal round functions; 6 leave room for ours
BLOCK = 4096  # rows permuted at once: numpy costs 160 us a call for 128 rows, 310 us for 1,024 (2 cores, 2026-11)


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

    @property
    def batch_size(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def __getitem__(self, step: int) -> Slots: ...

    def describe(self) -> dict[str, Any]:
        """Return what identifies the plan, for checkpoints: JSON values only."""
        ...


class Shuffled:
    """Visit every record once per epoch in an order drawn from (seed, epoch), in batches of equal size.

    An epoch has size // batch_size steps; the records left over differ in every epoch. Memory and the cost of
    starting at any step do not depend on `size`.
    """

    unit = 1

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        _check_sizes(size, batch_size)
        if size < batch_size:
            raise ValueError(f"{size:,} records do not fill a batch of {batch_size:,}; lower it or take more images")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.steps_per_epoch = size // batch_size
        self._block_steps = min(max(1, BLOCK // batch_size), self.steps_per_epoch)
        self._block: tuple[tuple[int, int], np.ndarray] = (
            (-1, -1),
            np.empty((0, 0), np.int64),
        )  # the latest, to save time

    def __getitem__(self, step: int) -> Slots:
        """Return step `step` (from 0, without end) of the run, batch_size rows."""
        _check_step(step)
        epoch, position = divmod(step, self.steps_per_epoch)
        number, row = divmod(position, self._block_steps)
        name, block = self._block  # one assignment, one read: threads see a whole block
        if name != (epoch, number):
            block = self._permuted(epoch, number)
            self._block = (epoch, number), block
        return Slots(step, 0, block[row], slot_keys(self.seed, step, self.batch_size))

    def _permuted(self, epoch: int, number: int) -> np.ndarray:
        """Return the records of block `number` of an epoch: int64 [steps, batch_size]."""
        start = number * self._block_steps
        steps = min(self._block_steps, self.steps_per_epoch - start)
        positions = np.arange(start * self.batch_size, (start + steps) * self.batch_size)
        return permute(positions, self.size, hash_numbers(self.seed, epoch)).reshape(steps, self.batch_size)

    def describe(self) -> dict[str, Any]:
        """Return name, size, batch_size and seed: equal descriptions give equal steps."""
        return {"name": "shuffled", "size": self.size, "batch_size": self.batch_size, "seed": self.seed}


class Sequential:
    """Visit the records once, in order; the last step may be shorter. For evaluation."""

    unit = 1

    def __init__(self, size: int, batch_size: int, seed: int = 0) -> None:
        _check_sizes(size, batch_size)
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.steps_per_epoch = -(-size // batch_size)

    def __getitem__(self, step: int) -> Slots:
        """Return step `step` of steps_per_epoch; IndexError beyond."""
        _check_step(step)
        if step >= self.steps_per_epoch:
            raise IndexError(f"step {step}: {self.size:,} records in order end after {self.steps_per_epoch:,} steps")
        start = step * self.batch_size
        records = np.arange(start, min(start + self.batch_size, self.size))
        return Slots(step, 0, records, slot_keys(self.seed, step, len(records)))

    def describe(self) -> dict[str, Any]:
        """Return name, size, batch_size and seed: equal descriptions give equal steps."""
        return {"name": "sequential", "size": self.size, "batch_size": self.batch_size, "seed": self.seed}


def permute(positions: np.ndarray, size: int, key: int) -> np.ndarray:
    """Map positions in [0, size) to distinct values in [0, size): a pseudorandom permutation chosen by `key`.

    int64 [n] to int64 [n]. A Feistel network on pairs of Z_a x Z_b with a * b just above `size`, walked along
    its cycles until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    Halves that add modulo a and b, not bits that xor, keep a * b within sqrt(size) of size, so that hardly
    any value walks: numpy's cost here is per call, and every further walk repeats all calls.
    """
    values = np.array(positions, np.uint64)
    a = max(1, int(np.ceil(np.sqrt(size))))
    b = -(-size // a)
    round_keys = [np.uint64(hash_numbers(key, number) >> 1) for number in range(ROUNDS)]  # sums stay below 2^64
    inside = np.uint64(size)
    walking = np.arange(len(values))
    while len(walking):
        values[walking] = _feistel(values[walking], np.uint64(a), np.uint64(b), round_keys)
        walking = walking[values[walking] >= inside]
    return values.astype(np.int64)


def _feistel(values: np.ndarray, a: np.uint64, b: np.uint64, round_keys: list[np.uint64]) -> np.ndarray:
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


def slot_keys(seed: int, step: int, count: int) -> np.ndarray:
    """Return the keys of rows 0..count-1 of a step, uint64: splitmix64 from the hash of (seed, step)."""
    return splitmix64(hash_numbers(seed, step, 1), count)  # the 1 keeps keys apart from epoch permutations


def _check_sizes(size: int, batch_size: int) -> None:
    if size < 1 or batch_size < 1:
        raise ValueError(f"a plan needs at least one record and a batch of at least one, not {size} and {batch_size}")


def _check_step(step: int) -> None:
    if step < 0:
        raise IndexError(f"step {step}: steps count from 0")
