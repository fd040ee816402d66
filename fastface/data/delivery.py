"""A plan -> this rank's micro-batches in step order, made ahead of their use: what all loaders have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Self

import torch

from fastface.data.batch import Batch, Buffer
from fastface.data.damage import Damage
from fastface.data.index import Index
from fastface.data.plan import Plan
from fastface.data.prefetch import Prefetch


class Timings:
    """What the consumer got and how long it waited, since the last `reset`."""

    first_batch_s: float | None = None  # from constructing the loader to its first batch; not reset

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start counting anew: call it after each line of the log."""
        self.wait_s = 0.0  # seconds the consumer stood still for want of a batch
        self.images = 0
        self.batches = 0
        self.since = time.perf_counter()

    @property
    def images_per_s(self) -> float:
        """Images handed over per second of wall time."""
        return self.images / max(time.perf_counter() - self.since, 1e-9)

    @property
    def wait_share(self) -> float:
        """Share of wall time spent waiting for data, 0 to 1."""
        return min(1.0, self.wait_s / max(time.perf_counter() - self.since, 1e-9))


class Delivery:
    """Deliver micro-batches of one rank, the same whatever the number of threads, from any step at once.

    The global batch of a step is cut into world * accumulation micro-batches; a rank has `accumulation` neighbours of
    them. `ahead` micro-batches are prepared while one is in use. A subclass says how one is made, in `_maker`, sets
    `_buffers` and `_callers`, how many threads make them, and `damage`.
    """

    damage: Damage
    _buffers: list[Buffer]
    _callers = 1

    def __init__(
        self, index: Index, plan: Plan, *, micro_batch: int, rank: int, world: int, device: torch.device, ahead: int
    ) -> None:
        self._constructed = time.perf_counter()
        self.accumulation = accumulation(plan.batch_size, micro_batch, world)
        if micro_batch % plan.unit:
            raise ValueError(
                f"train.micro_batch {micro_batch} would part rows that belong together: take a multiple of {plan.unit}"
            )
        if not 0 <= rank < world or ahead < 1:
            raise ValueError(
                f"rank {rank} of {world} with {ahead} batches ahead: ranks count from 0, ahead is at least 1"
            )
        self.index, self.plan, self.device = index, plan, device
        self.rank, self.world, self.micro_batch, self.ahead = rank, world, micro_batch, ahead
        self.timings = Timings()
        self._run: Prefetch | None = None

    def _maker(self, start: int, stop: int | None) -> Callable[[int, Buffer], Batch]:
        """Return what makes job number 0, 1, ... of steps start..stop-1, called in threads."""
        raise NotImplementedError

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yield the micro-batches of steps start..stop-1 (None: no end) in order, `accumulation` per step.

        A new call ends the iteration before it. A failure in a thread is raised here, when its batch is due.
        """
        if start < 0 or (stop is not None and stop < start):
            raise ValueError(f"steps {start} to {stop}: steps count from 0 and do not run backwards")
        self._end_run()
        make = self._maker(start, stop)
        count = None if stop is None else (stop - start) * self.accumulation
        run = self._run = Prefetch(make, self._buffers, self._callers, count)
        return self._deliver(run)

    def _deliver(self, run: Prefetch) -> Iterator[Batch]:
        timings = self.timings
        try:
            while True:
                asked = time.perf_counter()
                batch = run.next()
                now = time.perf_counter()
                if batch is None:
                    return
                if not len(batch.records):  # the short last step of a Sequential plan may leave nothing for a rank
                    continue
                if timings.first_batch_s is None:
                    timings.first_batch_s = now - self._constructed
                if batch.labels.is_cuda:  # their memory is of another stream, and the consumer's will use it
                    batch.labels.record_stream(torch.cuda.current_stream(self.device))
                timings.wait_s += now - asked
                timings.batches += 1
                timings.images += len(batch.records)
                yield batch
        finally:
            if run is self._run:
                self._end_run()

    def _end_run(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None

    def close(self) -> None:
        """End the iteration with its threads."""
        self._end_run()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def accumulation(batch_size: int, micro_batch: int, world: int) -> int:
    """Return how many micro-batches a rank has per step; ValueError where they do not fill the batch."""
    count, remainder = divmod(batch_size, micro_batch * world) if micro_batch > 0 and world > 0 else (0, 1)
    if remainder or not count:
        raise ValueError(
            f"train.batch_size {batch_size} is not a multiple of train.micro_batch {micro_batch} * {world} "
            f"processes; change one of the three (each process takes batch_size / micro_batch / processes "
            f"micro-batches a step)"
        )
    return count
