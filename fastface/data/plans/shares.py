"""Weights -> whose turn it is: which part takes each row of a step, so that every batch has its exact share.

A batch of B rows is B equal strata of [0, 1), and step s takes the same point u(s) of all of them. A part that owns
an interval of length w then gets floor(B * w) or ceil(B * w) rows, never else; the u of an epoch or period are all
multiples of 1 / steps, in an order that spreads those of neighbouring steps, so that the remainders rotate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from fastface.data.plan import STREAMS, hash_numbers, permute

GOLDEN_SECTION = (math.sqrt(5) - 1) / 2  # its multiples modulo 1 spread most evenly (three-distance theorem)
TABLE = 1 << 18  # rows of a Schedule's table, about: 4 MB, and at most four times as many


class Schedule:
    """A few parts with weights: which part each unit of a step belongs to, and its running number there.

    Whole periods have exact counts: of weights in the ratio of small integers, else to one unit in about TABLE.
    """

    def __init__(self, weights: Sequence[float], units: int) -> None:
        tickets = _tickets(weights)
        total = sum(tickets)
        exact = total * units <= 4 * TABLE
        self.steps = total * max(1, TABLE // (units * total)) if exact else max(1, TABLE // units)
        self._counts = apportion(np.array(weights), self.steps * units)  # of each part in a period
        if (lost := (np.array(weights) > 0) & (self._counts == 0)).any():
            weight = weights[int(lost.argmax())]
            raise ValueError(
                f"weight {weight} of {list(weights)} is less than one row in {self.steps * units:,}: raise it"
            )
        place = _places(np.arange(self.steps), units, self.steps)
        part = np.searchsorted(np.cumsum(self._counts), place.ravel(), "right")  # in the order of time
        order = np.argsort(part, kind="stable")
        number = np.empty(len(part), np.int64)
        number[order] = np.arange(len(part)) - np.repeat(np.cumsum(self._counts) - self._counts, self._counts)
        self._part, self._number = part.reshape(place.shape), number.reshape(place.shape)
        counts = np.stack([(self._part == which).sum(axis=1) for which in range(len(weights))], axis=1)
        self._before = np.cumsum(counts, axis=0) - counts  # int64 [steps, parts]

    def at(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each unit of steps (int64 [n]) its part, and how many the part had before: int64 [n, units]."""
        period, step = np.divmod(steps, self.steps)
        part = self._part[step]
        return part, self._number[step] + period[:, None] * self._counts[part]

    def before(self, step: int) -> np.ndarray:
        """Return how many units each part had before a step: int64 [parts]."""
        period, place = divmod(step, self.steps)
        return self._before[place] + period * self._counts


class Shares:
    """Any number of parts with weights, shuffled in every epoch, which has `steps` steps of `rows` rows.

    A part has floor or ceil of its share of an epoch's rows, those with one more differ from epoch to epoch.
    """

    def __init__(self, weights: np.ndarray, rows: int, steps: int, seed: int) -> None:
        quota = weights * (rows * steps / weights.sum())
        self._base = np.floor(quota + 1e-9).astype(np.int32)
        self._rest = np.clip(quota - self._base, 0, 1)  # the chance of one row more
        self._rows, self._steps, self._seed = rows, steps, seed
        self._tables = -1, np.empty(0, np.int32), np.empty(0, np.int64)  # of the latest epoch

    def most(self, part: np.ndarray) -> np.ndarray:
        """Return how many rows of an epoch parts take, at most: int64 of their shape."""
        return self._base[part].astype(np.int64) + (self._rest[part] > 1e-9)

    def at(self, epoch: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each row of steps (int64 [n], within the epoch) its part, and its number there in this epoch.

        Both int64 [n, rows]; the numbers of a part run from 0 below `most`, each once in an epoch.
        """
        tables = self._tables  # one read, one assignment: threads see all of an epoch
        if tables[0] != epoch:
            tables = self._tables = (epoch, *self._ends(epoch))
        _, parts, ends = tables
        place = _places(positions, self._rows, self._steps)
        owner = np.searchsorted(ends, place, "right")
        return parts[owner], place - np.where(owner, ends[owner - 1], 0)

    def _ends(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the parts in the order of this epoch, and where each ends among the epoch's rows."""
        key = hash_numbers(self._seed, STREAMS["share"], epoch)
        parts = permute(np.arange(len(self._base)), len(self._base), key).astype(np.int32)
        more = self._rows * self._steps - int(self._base.sum(dtype=np.int64))
        start = (key >> 40) / 2**24  # of few bits, so that the sums below are exact where it matters
        upto = np.minimum(np.cumsum(self._rest[parts]), more) + start
        upto[-1] = more + start
        return parts, np.cumsum(self._base[parts], dtype=np.int64) + np.floor(upto).astype(np.int64)


def apportion(weights: np.ndarray, rows: int) -> np.ndarray:
    """Divide `rows` among weights by largest remainder (Hamilton), the first of equals first: int64 [parts]."""
    quota = weights * (rows / weights.sum())
    counts = np.floor(quota + 1e-9).astype(np.int64)
    counts[np.argsort(counts - quota, kind="stable")[: rows - counts.sum()]] += 1
    return counts


def _tickets(weights: Sequence[float]) -> list[int]:
    """Return small integers in the ratio of the weights, as nearly as denominators up to 1,000 allow."""
    fractions = [Fraction(weight / max(weights)).limit_denominator(1000) for weight in weights]
    common = math.lcm(*(fraction.denominator for fraction in fractions))
    tickets = [int(fraction * common) for fraction in fractions]
    return [ticket // math.gcd(*tickets) for ticket in tickets]


def _places(positions: np.ndarray, rows: int, steps: int) -> np.ndarray:
    """Return a point for each row of steps (int64 [n] in [0, steps)): all of [0, rows * steps) over all steps.

    int64 [n, rows]. Row r is in stratum r of a fixed order that spreads: any run of rows, such as that of a
    process, has its even share of all strata.
    """
    strata = np.argsort(np.argsort(np.arange(rows) * GOLDEN_SECTION % 1))
    stride = max(1, round(steps * GOLDEN_SECTION))
    while math.gcd(stride, steps) > 1:
        stride += 1
    return strata * steps + (positions * stride % steps)[:, None]
