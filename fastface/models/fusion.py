"""Embeddings that several models made of an image, side by side -> one of them all, of length 1.

Each model's part is scaled to length 1 and weighted; concatenated so, the cosine of two images is the weighted mean of
the models' cosines, with the squares of the weights:

    cos([w_m a_m], [w_m b_m]) = sum of w_m^2 cos(a_m, b_m) / sum of w_m^2

"mlp" puts a perceptron on top (1536 -> 512 -> 256 -> 512 for three models of 512 values), "linear" a linear map, "skip"
adds the two, the perceptron's last layer starting at zero: it starts as the concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = Literal["mlp", "skip", "linear"]
Quality = Literal["none", "norm", "gate"]
Pooling = Literal["mean", "norm", "attention"]
START_SEED = 5  # of the random directions of `start_map`


class Fusion(nn.Module):
    """Fuse embeddings.

    Args:
        sizes: values of each model's embedding; a row has them side by side, as their models gave them.
        embedding_size: D of what comes out; None: the sum of the sizes.
        hidden, batch_norm, dropout: of the perceptron: linear, BatchNorm where asked for, ReLU, dropout.
        learn_scales: the models' weights learn.
        quality: weights for each image too, from 1: "norm", (length / its geometric mean over the training set) to a
            learned power, from 0; "gate", 2 sigmoid(linear map of all), from 0.
        set_size: `forward` takes sets of so many neighbouring rows and gives one embedding of each.
        pooling: of a set's unit embeddings: their mean; weighted by exp(power . log lengths), powers learned from 0; or
            by softmax(query . embedding), the query learned from 0. All start as the mean.
        start: the linear map [D, sum of sizes] to start from; None: the identity, or zeros to be loaded into.
        log_norms: mean and standard deviation of the logarithm of the lengths over the training set, [2, models].
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        network: Network = "mlp",
        embedding_size: int | None = 512,
        hidden: Sequence[int] = (512, 256),
        batch_norm: bool = False,
        dropout: float = 0.0,
        learn_scales: bool = False,
        quality: Quality = "none",
        set_size: int = 1,
        pooling: Pooling = "mean",
        start: Tensor | None = None,
        log_norms: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.sizes, self.network, self.quality, self.pooling = tuple(sizes), network, quality, pooling
        total, models = sum(sizes), len(sizes)
        self.embedding_size = embedding_size or total
        self.set_size = set_size
        self.scale = nn.Parameter(torch.ones(models), requires_grad=learn_scales)
        # No buffers: those are averaged over the processes after each step, which could move their last bits.
        start_norms = torch.tensor([[0.0], [1.0]]).repeat(1, models) if log_norms is None else log_norms.float()
        self.log_norms = nn.Parameter(start_norms, requires_grad=False)
        self.power = nn.Parameter(torch.zeros(models)) if quality == "norm" else None
        self.gate = _zero(nn.Linear(total + models, models)) if quality == "gate" else None
        self.map = None
        if network != "mlp":
            self.map = nn.Linear(total, self.embedding_size, bias=False)
            if start is None:
                nn.init.eye_(self.map.weight) if self.embedding_size == total else nn.init.zeros_(self.map.weight)
            else:
                self.map.weight.data.copy_(start)
        self.perceptron = None
        if network != "linear":
            self.perceptron = _perceptron(total, hidden, self.embedding_size, batch_norm, dropout)
            if network == "skip":
                last = self.perceptron[-1]
                assert isinstance(last, nn.Linear)
                _zero(last)
        self.set_power = nn.Parameter(torch.zeros(models)) if pooling == "norm" else None
        self.query = nn.Parameter(torch.zeros(self.embedding_size)) if pooling == "attention" else None

    def forward(self, rows: Tensor) -> Tensor:
        """Return the embeddings of sets of rows [B, sum of sizes]: unit, [B / set_size, D]; float32 whatever comes."""
        fused = self.fuse(rows)
        return fused if self.set_size == 1 else self.pool(fused, rows, self.set_size)

    def fuse(self, rows: Tensor) -> Tensor:
        """Fuse rows [B, sum of sizes], one by one: unit, [B, D]."""
        blocks = self.blocks(rows)
        out = blocks.new_zeros(()) if self.map is None else self.map(blocks)
        if self.perceptron is not None:
            # Times sqrt(D), an element of a unit vector is of the order of 1, and so are what the layers see.
            parts = [part * part.shape[1] ** 0.5 for part in blocks.split(self.sizes, 1)]
            out = out + self.perceptron(torch.cat(parts, 1))
        return F.normalize(out, dim=1)

    def blocks(self, rows: Tensor) -> Tensor:
        """Return the weighted unit embeddings of the models, side by side: [B, sum of sizes]."""
        parts = [F.normalize(part, dim=1) for part in rows.split(self.sizes, 1)]
        weights = self.scale[None]  # [B or 1, models]
        if self.power is not None:
            weights = weights * (self.power * self.lengths(rows)).exp()
        if self.gate is not None:
            spread = [part * part.shape[1] ** 0.5 for part in parts]
            weights = weights * 2 * self.gate(torch.cat([*spread, self.lengths(rows)], 1)).sigmoid()
        return torch.cat([part * weights[:, m : m + 1] for m, part in enumerate(parts)], 1)

    def lengths(self, rows: Tensor) -> Tensor:
        """Return the logarithms of the lengths of the models' embeddings, in standard deviations: [B, models]."""
        norms = [torch.linalg.vector_norm(part, dim=1) for part in rows.split(self.sizes, 1)]
        mean, deviation = self.log_norms
        return (torch.stack(norms, 1).clamp_min(1e-12).log() - mean) / deviation

    def pool(self, fused: Tensor, rows: Tensor, size: int) -> Tensor:
        """Return the embeddings of sets of `size` neighbouring rows that are fused: unit, [B / size, D]."""
        sets = fused.unflatten(0, (-1, size))  # [sets, size, D]
        logits = self.set_logits(fused, rows).unflatten(0, (-1, size))
        return F.normalize((sets * logits.softmax(1)[..., None]).sum(1), dim=1)

    def set_logits(self, fused: Tensor, rows: Tensor) -> Tensor:
        """Return the logarithm of the weight of each row within its set, up to a constant: [B]."""
        if self.query is not None:
            return fused @ self.query
        if self.set_power is not None:
            return self.lengths(rows) @ self.set_power
        return fused.new_zeros(len(fused))

    def deployed(self) -> Deployed:
        """Return what ships."""
        return Deployed(self)

    def describe(self) -> str:
        """Say what it is, in a line."""
        layers = []
        if self.map is not None:
            layers.append(f"linear {self.map.in_features} -> {self.map.out_features}")
        if self.perceptron is not None:
            linear = [layer for layer in self.perceptron if isinstance(layer, nn.Linear)]
            widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
            layers.append(f"perceptron {' -> '.join(map(str, widths))}")
        weights = "" if self.quality == "none" else f", weights of images by {self.quality}"
        sets = "" if self.set_size == 1 else f", sets of {self.set_size} pooled by {self.pooling}"
        return (
            f"fusion of {' + '.join(map(str, self.sizes))}: {' + '.join(layers)}{weights}{sets}, "
            f"{sum(p.numel() for p in self.parameters() if p.requires_grad):,} parameters"
        )


class Deployed(nn.Module):
    """What ships of a Fusion: rows [B, sum of sizes] -> unit embeddings [B, D].

    Where the images of a set weigh unlike, also the logarithm of their weights [B].
    """

    def __init__(self, backbone: Fusion) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, rows: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        embedding = self.backbone.fuse(rows)
        if self.backbone.pooling == "mean":
            return embedding
        return embedding, self.backbone.set_logits(embedding, rows)


def start_map(kind: str, embedding_size: int, moment: Tensor) -> Tensor:
    """Return the linear map [D, total] that keeps the most of the concatenation, "pca", or random directions of it.

    moment: the mean of x x^T over the concatenated training rows [total, total], float64. Its largest eigenvectors keep
    the most of the inner products (no mean is subtracted: cosines are taken about 0), each with the sign that makes its
    largest entry positive. Directions are orthonormal, so that distances only shrink.
    """
    total = len(moment)
    if embedding_size == total:
        return torch.eye(total)
    if embedding_size > total:
        raise ValueError(
            f"task.embedding_size {embedding_size} is more than the {total} values of the models together: set it to "
            f"{total} or less, or take network mlp"
        )
    if kind == "pca":
        found = torch.linalg.eigh(moment).eigenvectors[:, -embedding_size:].flip(1).T  # the largest first
        largest = found.gather(1, found.abs().argmax(1, keepdim=True))
        return (found * largest.sign()).float()
    generator = torch.Generator().manual_seed(START_SEED)
    random = torch.randn(total, embedding_size, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(random)[0].T.float()


def _zero(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _perceptron(inputs: int, hidden: Sequence[int], outputs: int, batch_norm: bool, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        # The mean that BatchNorm subtracts takes any bias away.
        layers += [nn.Linear(inputs, width, bias=not batch_norm), *([nn.BatchNorm1d(width)] if batch_norm else [])]
        layers += [nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
