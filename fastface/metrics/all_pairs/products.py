"""Unit embeddings -> scores of a tile by one matrix product, with a bound of how far they are from the definition.

The definition: s = the dot product of unit embeddings in float64, rounded to float32. Let a, b be the true unit
vectors, a', b' what the product is given, D their length, u = 2^-24.

float32: a' is a, rounded, so |a' - a| <= u, and so for b: together 2 u. A dot product of D terms, summed in whatever
order, with fused multiplication or without, is off by at most D u / (1 - D u) times sum |a'_i b'_i| <= 1 (Higham,
Accuracy and Stability of Numerical Algorithms, 2nd edition, 3.1). Rounding s costs u once more, and all float64 errors
and products of errors less than another u: (D + 4) u / (1 - (D + 4) u), which is 3.1e-5 at D = 512.

half: r is the largest |a' - a| of all rows, measured; |a'b' - ab| <= |a'||b' - b| + |a' - a||b| <= 2 r + r^2. Products
of halves are exact in float32. Units that sum them may truncate where IEEE rounds (Fasi et al. 2021, Numerical behavior
of NVIDIA tensor cores), so a sum is allowed 4 D u. Where the result comes in bfloat16, it is off by 2^-8 of itself.

Measured errors are far smaller (float32 at 512: 4e-7); but only what is proven makes counts exact.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastface.metrics.all_pairs.keys import BIN_ERROR

UNIT = 2.0**-24
PRECISIONS = ("float32", "half")


class Product(NamedTuple):
    """How tiles are multiplied. The error of a score is at most absolute + relative * |score|."""

    kind: torch.dtype
    absolute: float
    relative: float

    def error(self, score: float = 1.0) -> float:
        """Bound the distance of a rough score from a score."""
        return self.absolute + self.relative * min(abs(score), 1.0)

    def __call__(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """Multiply a [m, D] by the transpose of b [n, D] into `out`, float32 [m, n], and return that."""
        if self.kind == torch.float32:
            return torch.mm(a, b.T, out=out)
        if a.device.type == "cuda":
            return torch.mm(a, b.T, out_dtype=torch.float32, out=out)
        return out.copy_(torch.mm(a, b.T))


def half_of(device: torch.device) -> torch.dtype:
    """Return the 16-bit type that a device multiplies fastest with float32 sums."""
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def product(kind: torch.dtype, dimension: int, residual: float = 0.0) -> Product:
    """Choose the bound; `residual` is the largest distance of a row in `kind` from the unit vector it stands for."""
    if kind == torch.float32:
        many = (dimension + 4) * UNIT
        absolute, relative = many / (1 - many), 0.0
    else:
        absolute = 2 * residual + residual**2 + 4 * (dimension + 4) * UNIT
        relative = 2.0**-8 * 1.02 if kind == torch.bfloat16 else 0.0  # 2 %: it is the rough score's, not the score's
    absolute += BIN_ERROR
    if absolute + relative > 0.2:
        raise ValueError(f"Embeddings of {dimension:,} numbers are too long to be compared in {kind}.")
    return Product(kind, absolute, relative)
