"""Labels -> batches of P identities with K images each."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers, hash_rows, permute
from fastface.data.plans.drawn import Drawn, groups_in
from fastface.data.plans.pools import TooFew, by_label, enough


class PerIdentity(Drawn):
    """Visit every identity once per epoch, batch_size / images of them in a batch, `images` neighbouring rows each.

    An epoch is ceil(identities / P) steps; where P does not divide the identities, its last step takes some
    identities a second time, others in each epoch. steps_per_epoch calls another number of steps an epoch, which
    changes no step. A batch never holds an identity twice. Each visit goes on in the
    identity's own shuffled order, so that all its images come to be used (`Pools.visit`).

    scope: "rank" keeps an identity's rows in one micro-batch, for losses that look at one; "global" in the batch only.
    too_few: what becomes of identities with fewer images: "filter" leaves them out, "repeat" repeats their images.
    """

    def __init__(
        self,
        index: Index,
        images: int,
        batch_size: int,
        seed: int,
        *,
        scope: Literal["rank", "global"] = "rank",
        too_few: TooFew = "filter",
        steps_per_epoch: int | None = None,
    ) -> None:
        self.identities = groups_in(batch_size, images, "data.plan.images")  # P
        self._pools = by_label(index)
        self._used, notes = enough(self._pools.counts, images, too_few, "identities", index.classes)
        check_identities(index, self._used, self.identities, images)
        self._round = -(-len(self._used) // self.identities)  # steps that visit every identity
        super().__init__(batch_size, steps_per_epoch or self._round, seed)
        self.notes = notes
        self.images, self.scope, self.too_few = images, scope, too_few
        self.unit = images if scope == "rank" else 1

    def records(self, steps: np.ndarray) -> np.ndarray:
        rounds, positions = np.divmod(steps, self._round)
        return self.draw(rounds, positions)

    def draw(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        visits = positions[:, None] * self.identities + np.arange(self.identities)  # [n, P]
        again, visits = np.divmod(visits, len(self._used))
        identity = self._used[permute(visits, len(self._used), hash_rows(self.seed, epochs[:, None]))]
        images = self._pools.visit(
            identity[:, :, None],
            (epochs[:, None] + again)[:, :, None],
            self.images,
            np.arange(self.images),
            hash_numbers(self.seed, STREAMS["image"]),
        )
        return images.reshape(len(positions), self.batch_size)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "per-identity",
            "images": self.images,
            "scope": self.scope,
            "too_few": self.too_few,
            "identities": len(self._used),
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


def check_identities(index: Index, used: np.ndarray, needed: int, images: int) -> None:
    """Raise ValueError where a batch holds more identities than there are."""
    if len(used) < needed:
        raise ValueError(
            f"a batch of {needed * images:,} rows is {needed:,} identities x {images} images, and {index.path} has "
            f"{len(used):,} identities to take: lower train.batch_size, raise data.plan.images, or set "
            f"data.plan.too_few to repeat"
        )
