"""Embeddings and a plan -> batches of their rows."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fastface.data.batch import Batch, Buffer
from fastface.data.damage import Damage
from fastface.data.delivery import Delivery
from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.plan import Plan


class EmbeddingLoader(Delivery):
    """Deliver micro-batches of embeddings, as their model gave them: Batch.embeddings is float32 [B, sum of sizes].

    Rows are read from the mapped files by one thread, ahead of their use; each batch has memory of its own.
    """

    def __init__(
        self,
        index: EmbeddingIndex,
        plan: Plan,
        *,
        micro_batch: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        ahead: int = 3,
    ) -> None:
        super().__init__(
            index, plan, micro_batch=micro_batch, rank=rank, world=world, device=torch.device(device), ahead=ahead
        )
        self.rows = index
        self.damage = Damage(index)  # rows that failed are no records, so nothing is ever added
        self._buffers = [Buffer() for _ in range(ahead + 1)]  # empty: they only count what is ahead

    def _maker(self, start: int, stop: int | None) -> Callable[[int, Buffer], Batch]:
        def make(number: int, _: Buffer) -> Batch:
            step, micro = divmod(number, self.accumulation)
            first = (self.rank * self.accumulation + micro) * self.micro_batch
            slots = self.plan[start + step].rows(first, first + self.micro_batch)
            rows = torch.from_numpy(self.rows.read(slots.records)).to(self.device)
            labels = torch.from_numpy(self.rows.labels_of(slots.records)).to(self.device)
            return Batch(rows, labels, slots.records, slots.step, micro)

        return make
