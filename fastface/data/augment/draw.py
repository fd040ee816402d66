"""Slots -> Draws: the random parameters of every sample, drawn on the host for a decoder to apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastface.data.augment.operator import Drawn, Operator
from fastface.data.augment.philox import STREAMS, uniform
from fastface.data.plan import Slots, hash_numbers

ITEMS = 64  # numbers of one field that an operator may draw: its second place in a list starts behind them


class Draws(NamedTuple):
    """What is done to each image of a batch; a decoder applies it and draws nothing itself."""

    flip: np.ndarray  # bool [B], mirror left to right, after all else
    operators: tuple[Drawn, ...] = ()  # in the order in which they are applied

    def rows(self, start: int, stop: int) -> Draws:
        """Return the draws of rows [start, stop)."""
        return Draws(self.flip[start:stop], tuple(drawn.rows(start, stop) for drawn in self.operators))


class Augment:
    """Draw the parameters of every slot from its key alone: ranks, threads and batch sizes change nothing."""

    def __init__(
        self,
        flip: float = 0.5,
        operators: Sequence[Operator] = (),
        scales: Sequence[tuple[int, int]] = (),
        seed: int = 0,
    ) -> None:
        if not 0 <= flip <= 1:
            raise ValueError(f"augment.flip is {flip}; it is the probability of mirroring an image, from 0 to 1")
        self.flip = flip
        self.operators = tuple(operators)
        self.scales, self.seed = tuple(scales), seed

    def size(self, step: int) -> tuple[int, int] | None:
        """Return the (width, height) in px that all images of a step have in the end; None: as they are."""
        if not self.scales:
            return None
        word = uniform(np.array([hash_numbers(self.seed, step, STREAMS["scales"])], np.uint64), "scales")[0, 0]
        return self.scales[int(word * len(self.scales))]

    def draw(self, slots: Slots) -> Draws:
        """Return the draws of each row of `slots`."""
        keys = slots.keys
        if self.flip in (0, 1):  # nothing random about it; the numbers would give the same
            flip = np.full(len(keys), bool(self.flip))
        else:
            flip = uniform(keys, "flip")[0] < self.flip
        seen: Counter[str] = Counter()
        drawn = []
        for operator in self.operators:
            drawn.append(draw_operator(operator, keys, seen[operator.name]))
            seen[operator.name] += 1
        return Draws(flip, tuple(drawn))


def draw_operator(operator: Operator, keys: np.ndarray, occurrence: int = 0) -> Drawn:
    """Draw for the `occurrence`-th operator of this name in a list, counted from 0."""
    first = occurrence * ITEMS

    def numbers(field: str, item: int = 0) -> np.ndarray:
        assert item < ITEMS
        return uniform(keys, f"{operator.name}/{field}", first + item)

    words = uniform(keys, operator.name, first)
    return Drawn(operator, words[0] < operator.p, operator.draw(words[1:], numbers))
