"""Embeddings and identities of a whole step -> what the losses that compare rows share.

All of them take the embeddings of the global batch [N, D], gathered with their gradient over processes and
micro-batches, so that a loss does not depend on how a step is spread. They know nothing of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Squared lengths below this count as zero, where a root has no derivative. float32 resolves the squared distance of
# unit vectors to 1e-7 only, so that this floor acts on rows that are the same to the last bit.
SQUARED_FLOOR = 1e-12


class Compared(NamedTuple):
    """What a loss of this family returns."""

    loss: Tensor  # scalar, float32 (float64 for float64 embeddings), with gradient
    terms: dict[str, Tensor]  # scalars to look at, detached, on the loss's device: reading one waits for it


def as_rows(embedding: Tensor, labels: Tensor) -> Tensor:
    """Check a batch and return the embeddings [N, D] in float32, or float64 where they are; half precision is raised.

    labels: integers [N]. ValueError for another shape or type.
    """
    if embedding.ndim != 2 or not len(embedding):
        raise ValueError(f"embeddings have the shape {tuple(embedding.shape)}; they must be [N, D] with N >= 1")
    if not embedding.is_floating_point():
        raise ValueError(f"embeddings are {embedding.dtype}; they must be floating point numbers")
    if labels.shape != embedding.shape[:1]:
        raise ValueError(f"labels have the shape {tuple(labels.shape)}; one for each of {len(embedding)} embeddings")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels are {labels.dtype}; an identity is an integer")
    return embedding if embedding.dtype == torch.float64 else embedding.float()


def unit(rows: Tensor) -> Tensor:
    """Scale rows [N, D] to length 1; a row of zeros stays one, with gradient 1e6 and not 1e12 times what comes in."""
    return F.normalize(rows, dim=1, eps=SQUARED_FLOOR**0.5)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep matrix products from half precision and TF32, whose 1e-3 is as large as the distances between twins."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


class _Products(torch.autograd.Function):
    """All dot products of rows; its own Function, since the products of the backward pass need the same care."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(rows)
        with full_precision(rows.device):
            return rows @ rows.T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (rows,) = ctx.saved_tensors
        with full_precision(rows.device):
            return (gradient + gradient.T) @ rows


def dot_products(rows: Tensor) -> Tensor:
    """Return the dot products [N, N] of rows [N, D], the cosines if they are unit vectors."""
    products = _Products.apply(rows)
    assert isinstance(products, Tensor)
    return products


def squared_distances(rows: Tensor) -> Tensor:
    """Return |x_i - x_j|^2 [N, N] of rows [N, D]; near 0 they are as exact as the lengths, 1e-7 for unit vectors."""
    products = dot_products(rows)
    # Lengths from the same product: its rounding cancels for rows that are equal.
    squares = products.diagonal()
    return squares[:, None] + squares[None, :] - 2 * products


def root(squared: Tensor) -> Tensor:
    """Turn squared distances into distances; at a distance of 0 the gradient is 0 (and the value 1e-6), not NaN."""
    return squared.clamp_min(SQUARED_FLOOR).sqrt()


def same_identity(labels: Tensor, device: torch.device) -> Tensor:
    """Return bool [N, N], True where two rows show one identity, the diagonal included."""
    labels = labels.to(device)
    return labels[:, None] == labels[None, :]


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Average `values` where `chosen` (bool of the same shape) is True; exactly 0, without gradient, where it never is.

    Both steps have the shape of `values`, so that no count has to come to the host.
    """
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp_min(1)


def check_keep_hardest(keep: float) -> None:
    """Refuse a share that keeps nothing, or more than there is."""
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"keep_hardest is {keep}; it must be in (0, 1], 0.7 is usual")


def mean_of_hardest(losses: Tensor, keep: float) -> Tensor:
    """Return the mean of the largest losses of [..., N], a share `keep` of each row of N, at least one."""
    check_keep_hardest(keep)
    if keep == 1.0:
        return losses.mean()
    return losses.topk(max(round(keep * losses.shape[-1]), 1), dim=-1).values.mean()


def share(part: Tensor, whole: Tensor | int, dtype: torch.dtype) -> Tensor:
    """Divide counts; 0 of nothing is 0."""
    return part.to(dtype) / (max(whole, 1) if isinstance(whole, int) else whole.clamp_min(1))


@torch.no_grad()
def nothing(rows: Tensor) -> Tensor:
    """Return 0, or NaN where a row is not finite: comparisons with NaN are false, so that mining would hide it."""
    return (rows * 0).sum()


@torch.no_grad()
def mean_cosine(rows: Tensor) -> Tensor:
    """Average the cosine over all pairs of different rows: near 0 for spread faces, towards 1 where all collapse.

    From the sum s of the N unit vectors, (|s|^2 - N) / (N^2 - N), in N * D operations; 0 for a single row.
    """
    vectors = unit(rows)
    number = len(vectors)
    return (vectors.sum(0).square().sum() - vectors.square().sum()) / max(number * number - number, 1)


@torch.no_grad()
def cosine_terms(cosine: Tensor, genuine: Tensor, impostor: Tensor) -> dict[str, Tensor]:
    """Average cosines over the genuine and over the impostor pairs (bool masks); 0 where there is none."""
    return {"cosine_positive": mean_where(cosine, genuine), "cosine_negative": mean_where(cosine, impostor)}
