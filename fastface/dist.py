"""Every collective the project uses, and the request to stop that all processes answer at the same step."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as td
from torch import Tensor, nn

T = TypeVar("T")
GRACE_S = 2.0
"""A Ctrl-C reaches launcher and child, and then once more as the launcher's death: within this time it is one."""


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, where it did, for collectives of CPU values; leave them at the end."""
    joined = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not td.is_initialized()
    if joined:
        td.init_process_group("gloo")
    try:
        yield
    finally:
        if joined:
            td.destroy_process_group()


def rank() -> int:
    return td.get_rank() if td.is_initialized() else 0


def world() -> int:
    return td.get_world_size() if td.is_initialized() else 1


def is_main() -> bool:
    return rank() == 0


def barrier() -> None:
    if world() > 1:
        td.barrier()


def share(value: T) -> T:
    """Return rank 0's small picklable value on every rank."""
    if world() == 1:
        return value
    box = [value]
    td.broadcast_object_list(box, src=0)
    return box[0]


_alone = False  # of all threads: on a GPU the backward pass runs in torch's own


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Do without the other ranks for a while: `reduce_` and `gather_into` leave or repeat what this rank has.

    Shapes, memory and arithmetic are those of the real thing, and nothing waits for another rank: for work that may
    fail on one rank, whose values do not count (see fastface.rehearsal).
    """
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def is_alone() -> bool:
    return _alone or world() == 1


def reduce_(tensor: Tensor, operation: td.ReduceOp.RedOpType = td.ReduceOp.SUM) -> None:
    """Reduce a tensor over the ranks, in place."""
    if not is_alone():
        td.all_reduce(tensor, operation)


def gather_into(out: Tensor, rows: Tensor) -> None:
    """Fill `out` [world * n, ...] with the `rows` [n, ...] of all ranks, in rank order."""
    if is_alone():
        out.view(world(), *rows.shape).copy_(rows)
    else:
        td.all_gather_into_tensor(out, rows.contiguous())


def mean(tensor: Tensor) -> Tensor:
    """Average a tensor over the ranks."""
    if world() > 1:
        tensor = tensor.clone()
        td.all_reduce(tensor)
        tensor /= world()
    return tensor


def average(tensors: list[Tensor]) -> None:
    """Average tensors over the ranks, in place, by one all-reduce of all of them together: for small ones."""
    if world() == 1 or not tensors:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    td.all_reduce(flat)
    flat /= world()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def average_buffers(module: nn.Module) -> None:
    """Average floating-point buffers (BatchNorm's running statistics) over the ranks, in place.

    Done after every step: then a checkpoint holds what every rank holds, whenever it is taken. iresnet100 has 0.1 MB of
    them beside 260 MB of gradients.
    """
    average([b for b in module.buffers() if b.is_floating_point()])


def gather_rows(rows: np.ndarray) -> list[np.ndarray]:
    """Return every rank's array (same dtype and trailing shape, any number of rows), in rank order."""
    if world() == 1:
        return [rows]
    device = torch.device("cuda", torch.cuda.current_device()) if td.get_backend() == "nccl" else torch.device("cpu")
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world())]
    td.all_gather(counts, torch.tensor([len(rows)], dtype=torch.int64, device=device))
    most = max(int(c) for c in counts)
    padded = torch.zeros((most, *rows.shape[1:]), dtype=torch.from_numpy(rows[:0]).dtype, device=device)
    padded[: len(rows)] = torch.from_numpy(rows).to(device)
    parts = [torch.empty_like(padded) for _ in range(world())]
    td.all_gather(parts, padded)
    return [part[: int(count)].cpu().numpy() for part, count in zip(parts, counts, strict=True)]


def total(tensor: Tensor) -> Tensor:
    """Sum a tensor over the ranks."""
    if world() > 1:
        tensor = tensor.clone()
        td.all_reduce(tensor)
    return tensor


def smallest(tensor: Tensor) -> Tensor:
    """Return the smallest of all ranks' values, element by element."""
    if world() > 1:
        tensor = tensor.clone()
        td.all_reduce(tensor, td.ReduceOp.MIN)
    return tensor


SENT_BYTES = 64 << 20
"""Rows travel to rank 0 in pieces of this size, so that no rank needs room for another's shard twice."""


def whole_rows(rows: Tensor) -> Tensor:
    """Return on rank 0, in host memory, the rows of all ranks in rank order; on the others an empty tensor."""
    if world() == 1:
        return rows.detach()
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world())]
    td.all_gather(counts, torch.tensor([len(rows)], dtype=torch.int64, device=rows.device))
    piece = max(SENT_BYTES // max(rows.shape[1:].numel() * rows.element_size(), 1), 1)
    if not is_main():
        for start in range(0, len(rows), piece):
            td.send(rows[start : start + piece].contiguous(), 0)
        return rows[:0].cpu()
    lengths = [int(count) for count in counts]
    out = torch.empty((sum(lengths), *rows.shape[1:]), dtype=rows.dtype)
    out[: lengths[0]] = rows
    first = lengths[0]
    for source in range(1, world()):
        for start in range(0, lengths[source], piece):
            part = rows.new_empty((min(piece, lengths[source] - start), *rows.shape[1:]))
            td.recv(part, source)
            out[first + start : first + start + len(part)] = part
        first += lengths[source]
    return out


class StopRequest:
    """SIGTERM, Ctrl-C or the death of the launcher, turned into one agreed last step.

    `accelerate launch` on one process does not pass SIGTERM on to its child, and dies of it; the kernel is
    therefore asked (prctl, Linux) to signal this process when its parent ends. Ranks agree through a small
    all-reduce that is started at one step and read at the next, so it costs no waiting.
    """

    def __init__(self) -> None:
        self.signal: int = 0
        self._since = 0.0
        self._parent = os.getppid()
        self._pending: tuple[Tensor, td.Work] | None = None
        # CPU tensors, whatever the training backend is: reading the flag then never waits for a GPU.
        self._group = td.new_group(backend="gloo") if world() > 1 else None
        self._before = {n: signal.signal(n, self._remember) for n in (signal.SIGTERM, signal.SIGINT)}
        _signal_on_parents_death(signal.SIGTERM)

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _signal_on_parents_death(0)
        if self._pending is not None:
            self._pending[1].wait()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            self.signal, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since > GRACE_S:  # a second Ctrl-C means it
            sys.exit(128 + number)

    def agreed(self) -> bool:
        """Say whether to stop after this step; the same answer on every rank. Call once a step."""
        if not self.signal and os.getppid() != self._parent:
            self.signal = int(signal.SIGTERM)
        if self._group is None:
            return bool(self.signal)
        seen = False
        if self._pending is not None:
            flag, work = self._pending
            work.wait()
            seen = bool(flag.item())
        flag = torch.tensor([self.signal], dtype=torch.int32)
        self._pending = flag, td.all_reduce(flag, td.ReduceOp.MAX, group=self._group, async_op=True)  # pyright: ignore
        return seen


def _signal_on_parents_death(number: int) -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # <linux/prctl.h>
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(number))
