"""Identities that look alike -> batches in which they meet: seeds with their neighbours, K images of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers, hash_rows, permute
from fastface.data.plans.drawn import Drawn, groups_in, in_epochs
from fastface.data.plans.neighbours import read_neighbours
from fastface.data.plans.per_identity import check_identities
from fastface.data.plans.pools import TooFew, by_label, enough
from fastface.data.plans.shares import Shares


class Mined(Drawn):
    """Groups of 1 + `neighbours` identities, a seed and others drawn from its list, `images` rows of each.

    Every identity is a seed once per epoch, or as often as its weight in the file says; an epoch is
    ceil(identities / seeds in a batch) steps. No identity comes twice in a batch: where a list is short, or names
    one that is there already or has too few images, an identity drawn at random takes the place.

    scope: "rank" keeps a group's rows in one micro-batch, "global" in the batch only; too_few: as in PerIdentity.
    """

    def __init__(
        self,
        index: Index,
        file: Path,
        images: int,
        neighbours: int,
        batch_size: int,
        seed: int,
        *,
        scope: Literal["rank", "global"] = "rank",
        too_few: TooFew = "filter",
    ) -> None:
        group = images * (1 + neighbours)
        self.seeds = groups_in(batch_size, group, "data.plan.images * (1 + data.plan.neighbours)")
        self.identities = batch_size // images
        self._mined = read_neighbours(file, index)
        if not 1 <= neighbours <= self._mined.ids.shape[1]:
            raise ValueError(
                f"data.plan.neighbours is {neighbours}, {file} lists 1 to {self._mined.ids.shape[1]} for each identity"
            )
        self._pools = by_label(index)
        self._used, notes = enough(self._pools.counts, images, too_few, "identities", index.classes)
        check_identities(index, self._used, self.identities, images)
        super().__init__(batch_size, -(-len(self._used) // self.seeds), seed)
        self._usable = np.zeros(index.num_classes, bool)
        self._usable[self._used] = True
        weights = np.ones(len(self._used)) if self._mined.weights is None else self._mined.weights[self._used]
        if not weights.any():
            raise ValueError(f"{file} gives no weight to any identity with enough images; mine again")
        self._shares = Shares(weights, self.seeds, self.steps_per_epoch, seed)
        self.notes, self.images, self.neighbours = notes, images, neighbours
        self.scope, self.too_few = scope, too_few
        self.unit = group if scope == "rank" else 1

    def draw(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return in_epochs(self._epoch, epochs, positions)

    def _epoch(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        steps = hash_rows(self.seed, STREAMS["mined"], epoch, positions)  # a key for each, uint64 [n]
        seeds = self._used[self._shares.at(epoch, positions)[0]]  # [n, S]
        others = self._drawn_neighbours(seeds, steps)  # [n, S, neighbours], -1 for none
        people = np.concatenate([seeds, others.reshape(len(seeds), -1)], axis=1)  # [n, P], seeds first: they stay
        people = self._completed(people, steps)
        others = people[:, self.seeds :].reshape(others.shape)
        people = np.concatenate([people[:, : self.seeds, None], others], axis=2)  # [n, S, 1 + neighbours]
        count = self._pools.counts_of(people)[..., None]
        keys = hash_rows(steps[:, None, None], STREAMS["image"], people)[..., None]
        image = permute(np.arange(self.images) % count, count, keys)
        return self._pools.order[self._pools.start[people][..., None] + image].astype(np.int64).reshape(len(seeds), -1)

    def _drawn_neighbours(self, seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Draw neighbours of seeds (int64 [n, S]) without repetition: int64 [n, S, neighbours], -1 for none."""
        lists = self._mined.ids[seeds]  # [n, S, width]
        length = (lists >= 0).sum(2, keepdims=True)
        place = np.arange(self.neighbours)
        there = np.maximum(length, 1)
        keys = hash_rows(steps[:, None], STREAMS["neighbour"], seeds)[..., None]
        chosen = permute(np.minimum(place, there - 1), there, keys)
        return np.where(place < length, np.take_along_axis(lists, chosen, 2), -1).astype(np.int64)

    def _completed(self, people: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Put random identities in the place of those that cannot be used or came before: int64 [n, P] to the same."""
        size, places = len(self._used), self.identities
        start = (steps % np.uint64(size)).astype(np.int64)[:, None]  # 2 P in a row: P of them are not in the batch
        turn = (start + np.arange(min(2 * places, size))) % size
        spare = self._used[permute(turn, size, hash_numbers(self.seed, STREAMS["spare"]))]
        both = np.concatenate([people, spare], axis=1)
        usable = (both >= 0) & self._usable[both] & _first_of_its_kind(both)
        rank = np.cumsum(~usable[:, :places], axis=1) - 1
        order = places + np.argsort(~usable[:, places:], axis=1, kind="stable")
        filled = np.take_along_axis(both, np.take_along_axis(order, np.maximum(rank, 0), 1), 1)
        return np.where(usable[:, :places], people, filled)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "mined",
            "file_sha256": self._mined.sha256,
            "images": self.images,
            "neighbours": self.neighbours,
            "scope": self.scope,
            "too_few": self.too_few,
            "identities": len(self._used),
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


def _first_of_its_kind(values: np.ndarray) -> np.ndarray:
    """Say of each value whether it is the first of its row that has it: int64 [n, m] to bool [n, m]."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, 1)
    first = np.ones(values.shape, bool)
    np.put_along_axis(first, order[:, 1:], ranked[:, 1:] != ranked[:, :-1], 1)
    return first
