"""Two embeddings -> the log-odds that they show one person, the same to the bit in either order.

logit = sum over models of scale * cosine + bias + head(|a - b|, a * b), a and b being unit embeddings. Without
a head this is logistic regression on the score (on several, where several models embedded the images), with a linear
head logistic regression on the pair, with hidden layers a perceptron. The head's last layer starts at zero, so that
training starts from the cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = Literal["cosine", "elements"]
PairsOfRows = Literal["neighbours", "all"]


class Matcher(nn.Module):
    """Compare embeddings.

    Args:
        sizes: D of each model's embedding; a row has them side by side, and each is scaled to length 1 on its own.
        features: "cosine", or "elements": |a - b| and a * b beside it.
        hidden: sizes of the perceptron's layers, with ReLU in between; none: a linear layer.
        scale, bias: of the cosines at first.
        mean: subtracted from rows before they are scaled, [sum of sizes]; None: nothing.
        pairs: what `forward` compares of a batch: rows 2i and 2i + 1 ("neighbours"), or every two rows ("all").
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        features: Features = "elements",
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        scale: float = 16.0,
        bias: float = -4.0,
        mean: Tensor | None = None,
        pairs: PairsOfRows = "neighbours",
    ) -> None:
        super().__init__()
        if hidden and features == "cosine":
            raise ValueError("task.hidden is for task.features elements: a cosine alone leaves nothing to combine")
        self.sizes, self.features = tuple(sizes), features
        self.pairs: PairsOfRows = pairs
        self.scale = nn.Parameter(torch.full((len(sizes),), scale / len(sizes)))
        self.bias = nn.Parameter(torch.tensor(bias))
        start = torch.zeros(sum(sizes)) if mean is None else mean.float()
        # No buffer: those are averaged over the processes after each step, which could move its last bits.
        self.mean = nn.Parameter(start, requires_grad=False)
        self.head = _perceptron(2 * sum(sizes), hidden, dropout) if features == "elements" else None

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the logits [P] of embeddings [P, sum of sizes] as their models gave them."""
        a, b = self._unit(first), self._unit(second)
        cosines = torch.stack([(x * y).sum(1) for x, y in zip(a, b, strict=True)], 1)  # [P, models]
        logit = (cosines * self.scale).sum(1) + self.bias
        if self.head is not None:
            # Times sqrt(D), an element of a unit vector is of the order of 1, and so are what the layers see.
            a, b = (torch.cat([part * part.shape[1] ** 0.5 for part in parts], 1) for parts in (a, b))
            logit = logit + self.head(torch.cat([(a - b).abs(), a * b], 1)).squeeze(1).to(logit.dtype)
        return logit

    def forward(self, rows: Tensor) -> Tensor:
        """Return the logits of a batch's pairs, in the order of `pairs_of`."""
        first, second = pairs_of(len(rows), self.pairs, rows.device)
        return self.compare(rows[first], rows[second])

    def _unit(self, rows: Tensor) -> list[Tensor]:
        return [F.normalize(part, dim=1) for part in (rows - self.mean).split(self.sizes, 1)]

    def describe(self) -> str:
        """Say what it is, in a line."""
        layers = "" if self.head is None else f" -> {' -> '.join(map(str, self._widths()))}"
        kind = "logistic regression" if self.head is None or len(self.head) == 1 else "perceptron"
        return (
            f"matcher: {kind} on {self.features}, embeddings of {' + '.join(map(str, self.sizes))}{layers}, "
            f"{sum(p.numel() for p in self.parameters() if p.requires_grad):,} parameters"
        )

    def _widths(self) -> list[int]:
        assert self.head is not None
        linear = [layer for layer in self.head if isinstance(layer, nn.Linear)]
        return [linear[0].in_features, *(layer.out_features for layer in linear)]


def pairs_of(rows: int, pairs: PairsOfRows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which rows of a batch are compared: places of the first and of the second of each pair, int64 [P]."""
    if pairs == "neighbours":
        places = torch.arange(rows, device=device)
        return places[0::2], places[1::2]
    first, second = torch.triu_indices(rows, rows, 1, device=device)
    return first, second


class Comparator(nn.Module):
    """What ships of a Matcher: embeddings [P, D] and [P, D] -> logits [P]."""

    def __init__(self, backbone: Matcher) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.backbone.compare(first, second)


def _perceptron(inputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    last = nn.Linear(inputs, 1, bias=False)  # the bias is the matcher's
    nn.init.zeros_(last.weight)
    return nn.Sequential(*layers, last)
