"""Labels -> pairs of images in neighbouring rows, a fixed share of them of one identity."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_rows, permute
from fastface.data.plans.drawn import Drawn, groups_in
from fastface.data.plans.pools import by_label
from fastface.data.plans.shares import Schedule

GENUINE, IMPOSTOR = 0, 1


class Pairs(Drawn):
    """Rows 2i and 2i + 1 are a pair; whether it is genuine follows from their labels.

    A batch has floor or ceil of `genuine` * its pairs genuine ones, drawn uniformly over the pairs of distinct images
    of one identity; impostors are drawn uniformly over the pairs of identities, with an image of each. Neither
    repeats before all have come, epochs notwithstanding: an epoch is `pairs_per_epoch` pairs in whole batches, by
    default as many rows as there are records.
    """

    unit = 2

    def __init__(
        self, index: Index, genuine: float, batch_size: int, seed: int, *, pairs_per_epoch: int | None = None
    ) -> None:
        num_pairs = groups_in(batch_size, 2, "the rows of a pair")
        if not 0 <= genuine <= 1:
            raise ValueError(f"data.plan.genuine is {genuine}; it is the share of genuine pairs, from 0 to 1")
        self._pools = by_label(index)
        counts = self._pools.counts
        self._genuine_ends = np.cumsum(counts * (counts - 1) // 2)  # int64 [C]: genuine pairs up to each identity
        self._people = np.flatnonzero(counts)
        self.num = int(self._genuine_ends[-1]), len(self._people) * (len(self._people) - 1) // 2
        lacks = ["has no identity with two images", "has only one identity"]
        for kind, share in [(GENUINE, genuine), (IMPOSTOR, 1 - genuine)]:
            if share and not self.num[kind]:
                raise ValueError(f"{index.path} {lacks[kind]}: pairs with data.plan.genuine {genuine} cannot be drawn")
        per_epoch = pairs_per_epoch or -(-index.num_samples // 2)
        super().__init__(batch_size, -(-per_epoch // num_pairs), seed)
        self.genuine = genuine
        self._schedule = Schedule([genuine, 1 - genuine], num_pairs)

    def records(self, steps: np.ndarray) -> np.ndarray:
        kind, number = self._schedule.at(steps)
        pairs = np.empty((*kind.shape, 2), np.int64)  # [n, B / 2, 2]
        for which, draw in [(GENUINE, self._genuine), (IMPOSTOR, self._impostors)]:
            mine = kind == which
            if mine.any():
                pairs[mine] = draw(number[mine])
        return pairs.reshape(len(steps), self.batch_size)

    def _rank(self, kind: int, number: np.ndarray) -> np.ndarray:
        cycle, position = np.divmod(number, self.num[kind])
        return permute(position, self.num[kind], hash_rows(self.seed, STREAMS["pair"], kind, cycle))

    def _genuine(self, number: np.ndarray) -> np.ndarray:
        """Return genuine pairs `number` (int64 [n]) of the run: int64 [n, 2]."""
        rank = self._rank(GENUINE, number)
        identity = np.searchsorted(self._genuine_ends, rank, "right")
        count = self._pools.counts_of(identity)
        pair = unordered_pair(rank - self._genuine_ends[identity] + count * (count - 1) // 2)
        turned = hash_rows(self.seed, STREAMS["turn"], number) & np.uint64(1) > 0
        pair[turned] = pair[turned, ::-1]
        return self._pools.order[self._pools.start[identity][:, None] + pair].astype(np.int64)

    def _impostors(self, number: np.ndarray) -> np.ndarray:
        """Return impostor pairs `number` (int64 [n]) of the run: int64 [n, 2]."""
        pair = unordered_pair(self._rank(IMPOSTOR, number))
        draws = np.stack([hash_rows(self.seed, STREAMS[side], number) for side in ("first", "second")], axis=1)
        turned = draws[:, 0] >> np.uint64(63) > 0
        pair[turned] = pair[turned, ::-1]
        identity = self._people[pair]
        image = (draws >> np.uint64(1)).astype(np.int64) % self._pools.counts_of(identity)
        return self._pools.order[self._pools.start[identity] + image].astype(np.int64)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "pairs",
            "genuine": self.genuine,
            "genuine_pairs": self.num[GENUINE],
            "identities": len(self._people),
            "steps_per_epoch": self.steps_per_epoch,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


def unordered_pair(rank: np.ndarray) -> np.ndarray:
    """Return pair number `rank` of (0, 1), (0, 2), (1, 2), (0, 3), ...: int64 [n] to int64 [n, 2], smaller first."""
    larger = ((1 + np.sqrt(1 + 8 * rank.astype(np.float64))) / 2).astype(np.int64)
    larger -= larger * (larger - 1) // 2 > rank  # the root may be rounded past the next integer
    larger += larger * (larger + 1) // 2 <= rank
    return np.stack([rank - larger * (larger - 1) // 2, larger], axis=-1)
