"""Identities that look alike -> batches in which they meet: seeds with their neighbours, K images of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers, hash_rows, permute
from fastface.data.plans.drawn import Drawn, groups_in, in_epochs
from fastface.data.plans.neighbours import Neighbours, nobody, read_neighbours
from fastface.data.plans.per_identity import check_identities
from fastface.data.plans.pools import TooFew, by_label, enough
from fastface.data.plans.shares import Shares


class Refreshing(NamedTuple):
    """How a run mines anew; see fastface/plan_settings.py."""

    steps: int
    source: Literal["head", "embeddings"]
    source_images: int | None
    listed: int
    cap: float


class Mined(Drawn):
    """Groups of 1 + `neighbours` identities, a seed and others drawn from its list, `images` rows of each.

    Every identity is a seed once per epoch, or as often as its weight in the file says; an epoch is
    ceil(identities / seeds in a batch) steps. Those of a list that have too few images are passed over. No identity
    comes twice in a batch: where a list is short, or names one that is there already, an identity drawn at random
    takes the place.

    file: None for lists that `use` brings later. scope: "rank" keeps a group's rows in one micro-batch, "global" in the
    batch only; too_few: as in PerIdentity. pairs: rows 2i and 2i + 1 are of one identity in every second group, and of
    a seed and its neighbour in the others; images are 2 and neighbours 1 then.
    """

    def __init__(
        self,
        index: Index,
        file: Path | None,
        images: int,
        neighbours: int,
        batch_size: int,
        seed: int,
        *,
        scope: Literal["rank", "global"] = "rank",
        too_few: TooFew = "filter",
        pairs: bool = False,
        refreshing: Refreshing | None = None,
    ) -> None:
        group = images * (1 + neighbours)
        self.seeds = groups_in(batch_size, group, "data.plan.images * (1 + data.plan.neighbours)")
        self.identities = batch_size // images
        mined = nobody(index.num_classes) if file is None else read_neighbours(file, index)
        if file is not None and not 1 <= neighbours <= mined.ids.shape[1]:
            raise ValueError(
                f"data.plan.neighbours is {neighbours}, {file} lists 1 to {mined.ids.shape[1]} for each identity"
            )
        self._pools = by_label(index)
        self._used, notes = enough(self._pools.counts, images, too_few, "identities", index.classes)
        check_identities(index, self._used, self.identities, images)
        super().__init__(batch_size, -(-len(self._used) // self.seeds), seed)
        self._usable = np.zeros(index.num_classes, bool)
        self._usable[self._used] = True
        weights = np.ones(len(self._used)) if mined.weights is None else mined.weights[self._used]
        if not weights.any():
            raise ValueError(f"{file} gives no weight to any identity with enough images; mine again")
        self._shares = Shares(weights, self.seeds, self.steps_per_epoch, seed)
        self.notes, self.images, self.neighbours = notes, images, neighbours
        self.scope, self.too_few = scope, too_few
        self.pairs, self.refreshing = pairs, refreshing
        self.unit = group if scope == "rank" else 2 if pairs else 1
        self._file_sha256 = mined.sha256
        self.use(mined)

    @property
    def used(self) -> np.ndarray:
        """The identities with enough images, int64, ascending."""
        return self._used

    def use(self, mined: Neighbours) -> None:
        """Take other lists from here on, weights aside. Not while somebody asks for steps: they would be of both."""
        keep = (mined.ids >= 0) & self._usable[mined.ids]
        if (keep[:, :-1] >= keep[:, 1:]).all():  # those of use come first as it is
            self._lists, self._listed = mined.ids, keep.sum(axis=1)
        else:
            order = np.argsort(~keep, axis=1, kind="stable")
            self._lists, self._listed = np.take_along_axis(mined.ids, order, 1), keep.sum(axis=1)
        self._block = -1, np.empty((0, 0), np.int64)  # drawn from the lists before

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
        records = self._pools.order[self._pools.start[people][..., None] + image].astype(np.int64)  # [n, S, 1 + N, K]
        if self.pairs:  # in every second group the first images of both, then their second ones
            turned = (positions[:, None] + np.arange(self.seeds)) % 2 == 1
            records = np.where(turned[..., None, None], records.swapaxes(2, 3), records)
        return records.reshape(len(seeds), -1)

    def _drawn_neighbours(self, seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Draw neighbours of seeds (int64 [n, S]) without repetition: int64 [n, S, neighbours], -1 for none."""
        lists, length = self._lists[seeds], self._listed[seeds][..., None]  # [n, S, width]
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
        more: dict[str, Any] = {} if self.refreshing is None else {"refreshing": self.refreshing._asdict()}
        if self.pairs:
            more["pairs"] = True
        return {
            "name": "mined",
            "file_sha256": self._file_sha256,
            "images": self.images,
            "neighbours": self.neighbours,
            "scope": self.scope,
            "too_few": self.too_few,
            "identities": len(self._used),
            "batch_size": self.batch_size,
            "seed": self.seed,
            **more,
        }


def _first_of_its_kind(values: np.ndarray) -> np.ndarray:
    """Say of each value whether it is the first of its row that has it: int64 [n, m] to bool [n, m]."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, 1)
    first = np.ones(values.shape, bool)
    np.put_along_axis(first, order[:, 1:], ranked[:, 1:] != ranked[:, :-1], 1)
    return first
