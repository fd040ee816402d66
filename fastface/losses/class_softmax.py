"""Embeddings and class centres -> the log-sum-exp over all classes but the own, without a batch x classes copy.

Write z_ij = s * cos_ij for sample i and class j. The softmax loss of sample i with a hardened target h_i is
log(1 + exp(lse_i - s * h_i)) where lse_i = log sum over j != y_i of exp(z_ij): everything that has the size of
batch x classes is in lse. It is computed here in chunks of classes, keeping a running maximum and sum (Milakov and
Gimelshein, arXiv 1805.02867), and again in the backward pass, chunk by chunk, where p_ij = exp(z_ij - lse_i).
A chunk that holds all classes is kept instead: three matrix products then, and four otherwise.

Peak memory beside the centres [R, D], their gradient [R, D] and the optimizer's: about 4 buffers of `memory_bytes`
(two float32 ones, one in the type of the product, one of indices with sub-centres), whatever R is.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rules(NamedTuple):
    """How a class is compared with a sample."""

    scale: float
    """s: of the cosines before the softmax."""
    normalised: bool = True
    """Centres are divided by their length (rows of `embedding` are unit vectors then); else plain inner products."""
    sub_centres: int = 1
    """Rows of a class (K); its cosine is the largest of theirs (sub-center ArcFace, ECCV 2020, equation 3)."""
    filter_above: float | None = None
    """Classes whose cosine to the sample exceeds this are left out, as probably the same person under another label
    (the inter-class filtering of Partial FC, CVPR 2022, section 3.3)."""
    memory_bytes: int = 512 << 20
    """Bound on one buffer of [N, chunk] values."""


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
        chunks = list(_chunks(len(embedding), centres, rules))
        x = embedding.to(product)
        lse = torch.full_like(embedding[:, 0], -torch.inf)
        top = torch.full_like(lse, -torch.inf)
        kept: list[Tensor] = []
        for first, last in chunks:
            rows, lengths = _rows(centres, first, last, rules)
            cosine, best = _cosines(x, rows, lengths, rules, centres.dtype)  # [N, c]
            if len(chunks) == 1:
                kept = [cosine.clone(), *([best] if best is not None else [])]
            _leave_out_own(cosine, own - first)
            torch.maximum(top, cosine.amax(1), out=top)
            z = _logits(cosine, rules, harder_than, t)
            most = torch.maximum(lse, z.amax(1))
            shift = torch.where(torch.isneginf(most), torch.zeros_like(most), most)
            lse = shift + ((lse - shift).exp() + z.sub_(shift[:, None]).exp_().sum(1)).log()
        target, chosen = _target(embedding, centres, own, rules)
        ctx.save_for_backward(embedding, centres, own, lse, target, chosen, harder_than, t, *kept)
        ctx.rules, ctx.product, ctx.chunks = rules, product, chunks
        ctx.mark_non_differentiable(top)
        return lse, top, target

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        on_lse, _, on_target = gradients
        embedding, centres, own, lse, target, chosen, harder_than, t, *kept = ctx.saved_tensors
        rules: Rules = ctx.rules
        x = embedding.to(ctx.product)
        d_embedding = torch.zeros_like(embedding)
        d_centres = torch.empty_like(centres)
        # exp(z - inf) = 0: a sample without other classes has no gradient from them.
        empty = torch.where(torch.isneginf(lse), torch.full_like(lse, torch.inf), lse)
        for first, last in ctx.chunks:
            rows, lengths = _rows(centres, first, last, rules)
            if kept:
                cosine, best = kept[0], kept[1] if len(kept) > 1 else None
            else:
                cosine, best = _cosines(x, rows, lengths, rules, centres.dtype)
            _leave_out_own(cosine, own - first)
            slope = None if harder_than is None else _slope(cosine, harder_than, t)
            d_cosine = _logits(cosine, rules, harder_than, t).sub_(empty[:, None]).exp_()  # p, [N, c]
            d_cosine.mul_(on_lse[:, None] * _scale(rules))
            if slope is not None:
                d_cosine.mul_(slope)
            d = d_cosine if best is None else _to_sub_centres(d_cosine, best, rules.sub_centres)
            d = d.to(ctx.product)  # [N, c * K]
            part = slice(first * rules.sub_centres, last * rules.sub_centres)
            weighted = (rows if lengths is None else rows / lengths[:, None]).to(ctx.product)
            d_embedding += (d @ weighted).to(embedding.dtype)
            d_centres[part] = _through_length((d.T @ x).to(centres.dtype), centres[part], lengths)
        _add_target(d_embedding, d_centres, on_target, embedding, centres, own, target, chosen, rules)
        return d_embedding, d_centres, None, None, None, None, None


def _chunks(samples: int, centres: Tensor, rules: Rules) -> Any:
    """Yield the first and last class of each chunk, as few and as equal as the bound allows."""
    classes = len(centres) // rules.sub_centres
    most = max(rules.memory_bytes // (centres.element_size() * max(samples, 1) * rules.sub_centres), 1)
    count = -(-classes // most)
    for number in range(count):
        yield classes * number // count, classes * (number + 1) // count


def _rows(centres: Tensor, first: int, last: int, rules: Rules) -> tuple[Tensor, Tensor | None]:
    """Return a chunk's rows, and their lengths where they are to be divided by them."""
    rows = centres[first * rules.sub_centres : last * rules.sub_centres]
    return rows, torch.linalg.vector_norm(rows, dim=1).clamp_min(TINY) if rules.normalised else None


TINY = 1e-12
"""Least length of a centre, as torch.nn.functional.normalize has it."""


def _cosines(
    x: Tensor, rows: Tensor, lengths: Tensor | None, rules: Rules, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Return the cosines [N, classes] in `dtype` and, with sub-centres, which of them was the best [N, classes]."""
    cosine = (x @ rows.to(x.dtype).T).to(dtype)
    if lengths is not None:
        cosine.mul_(1 / lengths)
    if rules.sub_centres == 1:
        return cosine, None
    best = cosine.view(len(x), -1, rules.sub_centres).max(2)
    return best.values, best.indices


def _leave_out_own(cosine: Tensor, own: Tensor) -> None:
    """Set the own class's column to -inf, in place; `own` counts from the first class here and may lie outside."""
    inside = (own >= 0) & (own < cosine.shape[1])
    column = own.clamp(0, cosine.shape[1] - 1)[:, None]
    present = cosine.gather(1, column)
    cosine.scatter_(1, column, torch.where(inside[:, None], torch.full_like(present, -torch.inf), present))


def _logits(cosine: Tensor, rules: Rules, harder_than: Tensor | None, t: Tensor | None) -> Tensor:
    """Turn cosines into s * cosines, in place; what is left out is -inf."""
    if rules.filter_above is not None:
        cosine.masked_fill_(cosine > rules.filter_above, -torch.inf)
    if harder_than is not None:
        assert t is not None
        hard = cosine > harder_than[:, None]
        cosine.mul_(torch.where(hard, t + cosine, torch.ones_like(cosine)))
    return cosine.mul_(_scale(rules))


def _slope(cosine: Tensor, harder_than: Tensor, t: Tensor) -> Tensor:
    """Differentiate cos * (t + cos) where the class is hard; 1 elsewhere."""
    return torch.where(cosine > harder_than[:, None], t + 2 * cosine, torch.ones_like(cosine))


def _scale(rules: Rules) -> float:
    return rules.scale if rules.normalised else 1.0


def _to_sub_centres(d_cosine: Tensor, best: Tensor, sub_centres: int) -> Tensor:
    """Give each class's gradient [N, classes] to the sub-centre that was the best: [N, classes * K]."""
    spread = d_cosine.new_zeros((*d_cosine.shape, sub_centres))
    return spread.scatter_(2, best[:, :, None], d_cosine[:, :, None]).flatten(1)


def _through_length(d_unit: Tensor, rows: Tensor, lengths: Tensor | None) -> Tensor:
    """Turn a gradient by unit rows into one by the rows themselves: (g - (g . w) w) / |w|, w of length one."""
    if lengths is None:
        return d_unit
    inverse = 1 / lengths
    along = (d_unit * rows).sum(1) * inverse**3
    return d_unit.mul_(inverse[:, None]).sub_(rows * along[:, None])


def _target(embedding: Tensor, centres: Tensor, own: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """Return the cosine to the own class [N] and the row it was found at [N]."""
    count = rules.sub_centres
    rows = own.clamp_min(0)[:, None] * count + torch.arange(count, device=own.device)  # [N, K]
    centre = centres[rows]  # [N, K, D]
    cosine = torch.einsum("nd,nkd->nk", embedding, centre)
    if rules.normalised:
        cosine = cosine / torch.linalg.vector_norm(centre, dim=2).clamp_min(TINY)
    best = cosine.max(1)
    chosen = rows.gather(1, best.indices[:, None])[:, 0]
    return torch.where(own >= 0, best.values, torch.zeros_like(best.values)), chosen


def _add_target(
    d_embedding: Tensor,
    d_centres: Tensor,
    on_target: Tensor,
    embedding: Tensor,
    centres: Tensor,
    own: Tensor,
    target: Tensor,
    chosen: Tensor,
    rules: Rules,
) -> None:
    """Add the gradient that comes through the own class's cosine, in place."""
    weight = torch.where(own >= 0, on_target, torch.zeros_like(on_target))[:, None]
    centre = centres[chosen]  # [N, D]
    if not rules.normalised:
        d_embedding += weight * centre
        d_centres.index_add_(0, chosen, weight * embedding)
        return
    length = torch.linalg.vector_norm(centre, dim=1, keepdim=True).clamp_min(TINY)
    unit = centre / length
    d_embedding += weight * unit
    d_centres.index_add_(0, chosen, weight * (embedding - target[:, None] * unit) / length)
