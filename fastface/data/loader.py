"""Index and Plan -> Batches: this rank's micro-batches in step order, decoded ahead of their use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from fastface.data.augment import Augment, Draws
from fastface.data.batch import Batch, Buffer
from fastface.data.cache import DecodedCache, build_cache
from fastface.data.damage import BadImage, Damage
from fastface.data.decode import Decoder, build_decoder
from fastface.data.delivery import Delivery
from fastface.data.index import Index
from fastface.data.normalisation import PerColour
from fastface.data.plan import Plan, Slots
from fastface.data.shards import ShardReader

OUTPUTS = {"float32": torch.float32, "uint8": torch.uint8}
DRAWN_TOGETHER = 2048  # rows whose draws are made in one go: 3.5 us a row for 128, 0.3 us for 2,048 (2 cores, 2026-11)


class Loader(Delivery):
    """Deliver micro-batches of images, read and decoded.

    Memory is recycled: a batch is valid until the next one is asked for; clone what must outlive that.

    mean, std: one number, or one for each of red, green and blue. output: "float32", normalised by them, or "uint8",
    as decoded. max_damaged: the share of the images that may turn out bad and be replaced, see Damage. cache: see
    build_cache; `processes` of this machine hold one each.
    """

    def __init__(
        self,
        index: Index,
        plan: Plan,
        *,
        augment: Augment,
        decoder: str,
        size: tuple[int, int],
        resize: bool = False,
        micro_batch: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        threads: int = 2,
        ahead: int = 3,
        mean: PerColour = 127.5,
        std: PerColour = 127.5,
        output: str = "float32",
        check_crc: bool = False,
        max_damaged: float = 0.0,
        cache: str = "none",
        processes: int = 1,
    ) -> None:
        super().__init__(
            index, plan, micro_batch=micro_batch, rank=rank, world=world, device=torch.device(device), ahead=ahead
        )
        if not resize:
            _check_images(index, size)
        self.augment, self.size = augment, size
        self.damage = Damage(index, max_damaged)
        self.reader = ShardReader(index, check_crc=check_crc, tolerant=True)
        self.decoder: Decoder = build_decoder(
            decoder, size=size, resize=resize, threads=threads, device=self.device, mean=mean, std=std
        )
        self.cache: DecodedCache | None = build_cache(
            cache, index, size, self.decoder.finish, self.reader, processes, resize, bool(augment.operators)
        )
        dtype = OUTPUTS[output]
        self._buffers = [Buffer(dtype) for _ in range(max(ahead, self.decoder.callers) + 1)]
        self._callers = self.decoder.callers
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def _maker(self, start: int, stop: int | None) -> Callable[[int, Buffer], Batch]:
        self.reader.resume()
        jobs = _Jobs(self, start, stop)
        return lambda number, buffer: self._make(*jobs[number], buffer)

    def _end_run(self) -> None:
        if self._run is not None:
            self.reader.pause()  # else a thread that waits for a server would be waited for
        super()._end_run()

    def close(self) -> None:
        """End the iteration with its threads, and let go of decoder and shards."""
        super().close()
        self.decoder.close()
        if self.cache is not None:
            self.cache.close()
        self.reader.close()

    def _make(self, slots: Slots, draws: Draws, micro: int, buffer: Buffer) -> Batch:
        """Read and decode one micro-batch into `buffer`. ValueError names the image that is one too many bad ones."""
        self.reader.follow(self.plan, slots.step, len(self._buffers))
        records = self.damage.stand_ins(slots.records)
        out = buffer.images(len(records), self.micro_batch, self.augment.size(slots.step) or self.size, self.device)
        done = not len(records)
        while not done:
            try:
                if self.cache is not None:
                    self.cache(records, draws, out)
                else:
                    self.decoder(self.reader.views(records), draws, out)
                done = True
            except BadImage as error:
                self._note(int(records[error.row]), error.reason)
                records = self.damage.stand_ins(slots.records)
        labels = torch.from_numpy(self.index.labels_of(records))
        with torch.cuda.stream(self._stream):  # no-op on a CPU; not to queue behind training
            return Batch(out, labels.to(self.device), records, slots.step, micro)

    def _note(self, record: int, reason: str) -> None:
        try:
            self.reader.check_unchanged()
        except ValueError as changed:  # a shard replaced under us is the likelier cause
            reason = f"{reason}; {changed}"
        self.damage.add(record, reason)


def _check_images(index: Index, size: tuple[int, int]) -> None:
    if index.image_size == tuple(size):
        return
    found = "of several sizes" if index.image_size is None else "{}x{}".format(*index.image_size)
    raise ValueError(
        f"{index.path} holds images {found}, data.size asks for {size[0]}x{size[1]}; make the shards again "
        f"with `tools/make_shards.py ... --size {size[0]}x{size[1]}`, change data.size, or set data.resize"
    )


class _Job(NamedTuple):
    slots: Slots
    draws: Draws
    micro: int


class _Jobs:
    """Job number -> slots and draws of one micro-batch of this rank, drawn for many at once."""

    def __init__(self, loader: Loader, start: int, stop: int | None) -> None:
        self._loader, self._start, self._stop = loader, start, stop
        self._group = max(1, DRAWN_TOGETHER // (loader.micro_batch * loader.accumulation))  # steps
        self._made: dict[int, list[_Job]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> _Job:
        group, place = divmod(number, self._group * self._loader.accumulation)
        with self._lock:
            if group not in self._made:
                self._made[group] = self._make(group)
                for old in [other for other in self._made if other < group - 1]:  # slow threads may want the last one
                    del self._made[old]
            return self._made[group][place]

    def _make(self, group: int) -> list[_Job]:
        """Return the jobs of one group of steps, in order."""
        loader, rows = self._loader, self._loader.micro_batch
        first = self._start + group * self._group
        last = first + self._group if self._stop is None else min(first + self._group, self._stop)
        parts: list[tuple[Slots, int]] = []
        for step in range(first, last):
            slots = loader.plan[step]  # of all ranks; micro-batches are counted rank by rank
            for micro in range(loader.accumulation):
                start = (loader.rank * loader.accumulation + micro) * rows
                parts.append((slots.rows(start, start + rows), micro))
        together = Slots(
            first,
            0,
            np.concatenate([s.records for s, _ in parts]),
            np.concatenate([s.keys for s, _ in parts]),
        )
        draws = loader.augment.draw(together)
        ends = np.cumsum([len(slots.records) for slots, _ in parts]).tolist()
        return [
            _Job(slots, draws.rows(end - len(slots.records), end), micro)
            for (slots, micro), end in zip(parts, ends, strict=True)
        ]
