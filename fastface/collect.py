"""Rows of each process -> rows of all processes, with gradients that agree with one process doing it all.

Every process computes the same loss of the same gathered rows, and DistributedDataParallel averages the network's
gradients over the processes. So that the average is the gradient of that one loss, what flows back to a process's own
rows is multiplied by the number of processes here. Two ways back exist, and which is right depends on what comes after:

    gather        every process does the same with the rows: its own slice of the gradient is the whole gradient;
    gather_parts  every process does something else with them (its shard of the classes): gradients are summed.
"""

from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

from fastface.dist import gather_into, rank, reduce_, world


def gather(rows: Tensor) -> Tensor:
    """Return the rows [B, ...] of all processes [world * B, ...], in rank order; all must bring equally many."""
    return rows if world() == 1 else _Gather.apply(rows, False)  # type: ignore[return-value]


def gather_parts(rows: Tensor) -> Tensor:
    """The same for rows that every process compares with other classes: their gradients are summed over processes."""
    return rows if world() == 1 else _Gather.apply(rows, True)  # type: ignore[return-value]


def sum_parts(value: Tensor) -> Tensor:
    """Sum over processes what each has computed a part of; each part's gradient is that of the sum."""
    return value if world() == 1 else _Sum.apply(value)  # type: ignore[return-value]


def log_sum_exp_parts(value: Tensor) -> Tensor:
    """Combine [N] log-sums of exponentials, one for each process's part, into that of the whole [N]."""
    return value if world() == 1 else _LogSumExp.apply(value)  # type: ignore[return-value]


def largest(value: Tensor) -> Tensor:
    """Return the largest of all processes' values, element by element, without gradient."""
    value = value.detach()
    if world() > 1:
        value = value.clone()
        reduce_(value, td.ReduceOp.MAX)
    return value


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, parts: bool) -> Tensor:
        ctx.parts, ctx.count = parts, len(rows)
        out = rows.new_empty((world() * len(rows), *rows.shape[1:]))
        gather_into(out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        if ctx.parts:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            reduce_(gradient)
        own = gradient[rank() * ctx.count : (rank() + 1) * ctx.count]
        return own * world(), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        reduce_(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        top = value.clone()
        reduce_(top, td.ReduceOp.MAX)
        finite = torch.where(torch.isneginf(top), torch.zeros_like(top), top)  # no class anywhere: the sum is empty
        total = (value - finite).exp()
        reduce_(total)
        whole = finite + total.log()
        ctx.save_for_backward(value, whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        value, whole = ctx.saved_tensors
        share = torch.where(torch.isneginf(value), torch.zeros_like(value), (value - whole).exp())
        return gradients[0] * share
