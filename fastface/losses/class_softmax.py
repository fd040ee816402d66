"""Embeddings and class centres -> the log-sum-exp over all classes but the own, without a batch x classes copy.

Write z_ij = s * cos_ij for sample i and class j. The softmax loss of sample i with a hardened target h_i is
log(1 + exp(lse_i - s * h_i)) where lse_i = log sum over j != y_i of exp(z_ij): everything that has the size of
batch x classes is in lse. It is computed here in chunks of classes, keeping a running maximum and sum (Milakov and
Gimelshein, arXiv 1805.02867); the backward pass goes through the same chunks with p_ij = exp(z_ij - lse_i).
The exponentials are kept for it where they fit: three matrix products then, and four otherwise.

Peak memory of tensors beside the centres [C * K, D], their gradient and the optimizer's moments, in bytes: at most
kept + 12 * CHUNK_BYTES + 12 * N * D * item, where kept = N * C * (item, and 8 more with sub-centres) if that is at most
`memory_bytes`, and 0 otherwise: bounded whatever C is. Four buffers are in use at once; a CPU's allocator leaves gaps:
resident memory was measured from a third of this to a third above it (benchmarks/README.md).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rules(NamedTuple):
    """How a class is compared with a sample."""

    scale: float
    """s: of the cosines, or of the inner products, before the softmax."""
    normalised: bool = True
    """Centres are divided by their length (rows of `embedding` are unit vectors then); else plain inner products."""
    sub_centres: int = 1
    """Rows of a class (K); its cosine is the largest of theirs (sub-center ArcFace, ECCV 2020, equation 3)."""
    filter_above: float | None = None
    """Classes whose cosine to the sample exceeds this are left out, as probably the same person under another label
    (the inter-class filtering of Partial FC, CVPR 2022, section 3.3)."""
    memory_bytes: int = 512 << 20
    """What may be kept from the forward to the backward pass instead of being computed again."""


CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 64 << 20}
"""Size of the buffers in which chunks are computed. On a CPU the allocator hands out small ones again and again, and
fresh memory for large ones each time, whose first touch costs as much as the arithmetic; a GPU wants few launches."""
TINY = 1e-12
"""Least length of a centre, as torch.nn.functional.normalize has it."""


class ClassSums(NamedTuple):
    lse: Tensor
    """[N]: log of the sum over other classes; -inf where there is none."""
    top: Tensor
    """[N]: the largest cosine to another class, before filtering and hardening; no gradient."""
    target: Tensor
    """[N]: cosine to the own class, in the type of the centres whatever the product ran in; 0 where `own` is -1."""


def compare(
    embedding: Tensor,
    centres: Tensor,
    own: Tensor,
    rules: Rules,
    *,
    harder_than: Tensor | None = None,
    t: Tensor | None = None,
    product: torch.dtype | None = None,
) -> ClassSums:
    """Compare every sample with every class.

    Args:
        embedding: [N, D], unit vectors where rules.normalised, float32 or float64.
        centres: [classes * sub_centres, D], the same type; rows of a class are neighbours.
        own: int64 [N], the sample's class, or -1 where it is not among these.
        harder_than, t: [N] and scalar without gradient: cosines above harder_than become cos * (t + cos)
            (CurricularFace, CVPR 2020, equation 5).
        product: type of the two large matrix products, e.g. bfloat16; default: that of the centres.
    """
    assert embedding.dtype == centres.dtype, "compare embeddings and centres of one type"
    found = _Compare.apply(embedding, centres, own, rules, harder_than, t, product or centres.dtype)
    return ClassSums(*found)  # type: ignore[misc]


def target_cosine(embedding: Tensor, centres: Tensor, own: Tensor, rules: Rules) -> Tensor:
    """Return [N]: the cosine to the own class (the best of its sub-centres), 0 where `own` is -1."""
    return _target(embedding, centres, own, rules)[0]


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        embedding: Tensor,
        centres: Tensor,
        own: Tensor,
        rules: Rules,
        harder_than: Tensor | None,
        t: Tensor | None,
        product: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        harder = None if harder_than is None or t is None else (harder_than * rules.scale, t)
        classes = len(centres) // rules.sub_centres
        kept_bytes = len(own) * classes * (centres.element_size() + (8 if rules.sub_centres > 1 else 0))
        keep = kept_bytes <= rules.memory_bytes and any(ctx.needs_input_grad)
        x = (embedding * rules.scale).to(product)
        lse = torch.full_like(embedding[:, 0], -torch.inf)
        top = torch.full_like(lse, -torch.inf)
        kept: list[Tensor | None] = []
        for first, last in _chunks(embedding, classes, rules):
            unit, _ = _unit(centres, first, last, rules, product)
            z, highest, best = _logits(x, unit, own - first, rules, centres.dtype)
            torch.maximum(top, highest, out=top)
            slope = _leave_out_and_harden(z, rules, harder)
            most = torch.maximum(lse, highest if slope is None and rules.filter_above is None else z.amax(1))
            shift = _finite(most)
            terms = z.sub_(shift[:, None]).exp_()  # [N, c]
            lse = shift + ((lse - shift).exp() + terms.sum(1)).log()
            if keep:
                kept += [terms if slope is None else terms.mul_(slope), shift, best]
        target, chosen = _target(embedding, centres, own, rules)
        ctx.save_for_backward(embedding, centres, own, lse, target, chosen, harder_than, t, *kept)
        ctx.rules, ctx.product = rules, product
        top /= rules.scale
        ctx.mark_non_differentiable(top)
        return lse, top, target

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        on_lse, _, on_target = gradients
        embedding, centres, own, lse, target, chosen, harder_than, t, *kept = ctx.saved_tensors
        rules: Rules = ctx.rules
        harder = None if harder_than is None else (harder_than * rules.scale, t)
        whole = _finite(lse)
        scaled, x = (embedding * rules.scale).to(ctx.product), embedding.to(ctx.product)
        d_embedding = torch.zeros_like(embedding)
        d_centres = torch.empty_like(centres) if ctx.needs_input_grad[1] else None
        for number, (first, last) in enumerate(_chunks(embedding, len(centres) // rules.sub_centres, rules)):
            unit, inverse = _unit(centres, first, last, rules, ctx.product)
            if kept:
                terms, shift, best = kept[3 * number : 3 * number + 3]
                d = terms * (on_lse * (shift - whole).exp())[:, None]  # [N, c]
            else:
                z, _, best = _logits(scaled, unit, own - first, rules, centres.dtype)
                slope = _leave_out_and_harden(z, rules, harder)
                d = z.sub_(whole[:, None]).exp_().mul_(on_lse[:, None])
                if slope is not None:
                    d.mul_(slope)
            if best is not None:
                d = _to_sub_centres(d, best, rules.sub_centres)
            d = d.to(ctx.product)  # [N, c * K]
            d_embedding += d @ unit
            if d_centres is None:
                continue
            d_rows = d_centres[first * rules.sub_centres : last * rules.sub_centres]
            d_rows.copy_(d.T @ x).mul_(rules.scale)  # after the product: a float16 holds no more than 65504
            if inverse is not None:  # (g - (g . u) u) / |w|, u = w / |w|, is what a gradient g by u is by w
                rows = centres[first * rules.sub_centres : last * rules.sub_centres]
                d_rows.mul_(inverse)
                d_rows.addcmul_(rows, (d_rows * rows).sum(1, keepdim=True) * inverse**2, value=-1)
        d_embedding.mul_(rules.scale)
        _add_target(d_embedding, d_centres, on_target, embedding, centres, own, target, chosen, rules)
        return d_embedding, d_centres, None, None, None, None, None


def _chunks(embedding: Tensor, classes: int, rules: Rules) -> Iterator[tuple[int, int]]:
    """Yield the first and last class of each chunk, as few and as equal as the size of the buffers allows."""
    widest = max(embedding.shape) * rules.sub_centres * embedding.element_size()
    count = -(-classes // max(CHUNK_BYTES.get(embedding.device.type, CHUNK_BYTES["cpu"]) // widest, 1))
    for number in range(count):
        yield classes * number // count, classes * (number + 1) // count


def _unit(centres: Tensor, first: int, last: int, rules: Rules, product: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return a chunk's rows [c * K, D], of length one where normalised, and 1 / their lengths [c * K, 1] then."""
    rows = centres[first * rules.sub_centres : last * rules.sub_centres]
    if not rules.normalised:
        return rows.to(product), None
    inverse = 1 / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(TINY)
    return (rows * inverse).to(product), inverse


def _logits(
    x: Tensor, unit: Tensor, own: Tensor, rules: Rules, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return z [N, c] in `dtype` with -inf at the own class, the largest [N], and the best sub-centres int64 [N, c].

    own: [N], counted from the first class here; may lie outside.
    """
    z, best = (x @ unit.T).to(dtype), None
    if rules.sub_centres > 1:
        z, best = z.view(len(x), -1, rules.sub_centres).max(2)
    column = own.clamp(0, z.shape[1] - 1)[:, None]
    z.scatter_(1, column, z.gather(1, column).masked_fill_(column == own[:, None], -torch.inf))
    return z, z.amax(1), best


def _leave_out_and_harden(z: Tensor, rules: Rules, harder: tuple[Tensor, Tensor] | None) -> Tensor | None:
    """Filter and harden z [N, c] in place; return the derivative of hardening [N, c], None where there is none."""
    if rules.filter_above is not None:
        z.masked_fill_(z > rules.scale * rules.filter_above, -torch.inf)
    if harder is None:
        return None
    hard, cosine = z > harder[0][:, None], z / rules.scale
    slope = torch.where(hard, harder[1] + 2 * cosine, 1.0)
    z.mul_(torch.where(hard, harder[1] + cosine, 1.0))
    return slope


def _finite(lse: Tensor) -> Tensor:
    """Put 0 for -inf, the log of an empty sum: exp(-inf - 0) is the 0 that exp(-inf + inf) should be."""
    return lse.masked_fill(torch.isneginf(lse), 0.0)


def _to_sub_centres(d: Tensor, best: Tensor, sub_centres: int) -> Tensor:
    """Give each class's gradient [N, c] to the sub-centre that was the best: [N, c * K]."""
    spread = d.new_zeros((*d.shape, sub_centres))
    return spread.scatter_(2, best[:, :, None], d[:, :, None]).flatten(1)


def _target(embedding: Tensor, centres: Tensor, own: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """Return the cosine to the own class [N] and the row it was found at [N]."""
    count = rules.sub_centres
    rows = own.clamp_min(0)[:, None] * count + torch.arange(count, device=own.device)  # [N, K]
    if len(centres) == 0:  # no class here was sampled
        return torch.zeros_like(embedding[:, 0]), torch.zeros_like(own)
    centre = centres[rows]  # [N, K, D]
    cosine = torch.einsum("nd,nkd->nk", embedding, centre)
    if rules.normalised:
        cosine = cosine / torch.linalg.vector_norm(centre, dim=2).clamp_min(TINY)
    best = cosine.max(1)
    chosen = rows.gather(1, best.indices[:, None])[:, 0]
    return torch.where(own >= 0, best.values, torch.zeros_like(best.values)), chosen


def _add_target(
    d_embedding: Tensor,
    d_centres: Tensor | None,
    on_target: Tensor,
    embedding: Tensor,
    centres: Tensor,
    own: Tensor,
    target: Tensor,
    chosen: Tensor,
    rules: Rules,
) -> None:
    """Add the gradient that comes through the own class's cosine, in place."""
    if len(centres) == 0:
        return
    weight = torch.where(own >= 0, on_target, 0.0)[:, None]
    centre = centres[chosen]  # [N, D]
    d_centre = weight * embedding
    if rules.normalised:
        length = torch.linalg.vector_norm(centre, dim=1, keepdim=True).clamp_min(TINY)
        centre = centre / length
        d_centre = weight * (embedding - target[:, None] * centre) / length
    d_embedding += weight * centre
    if d_centres is not None:
        d_centres.index_add_(0, chosen, d_centre)
