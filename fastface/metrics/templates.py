"""Embeddings of images -> one of each template, and the figures of template pairs (IJB-A, IJB-B, IJB-C, YTF).

Frames of one medium (a video) are averaged, media are summed, and the sum is scaled to length 1, so that a video of
a thousand frames weighs as one still.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from fastface.metrics.curve import check_scores, curve, tar_at
from fastface.metrics.dependence import persons_of_pairs
from fastface.metrics.folds import linked
from fastface.metrics.operating import TARGETS, curve_figures
from fastface.metrics.scores import CHUNK, pair_scores, unit, usable
from fastface.metrics.template_files import TemplatePairs, Templates
from fastface.metrics.verification import Verification, pair_counts, verification

NEAREST_RULE = "insightface IJB: the point of the thinned ROC whose FPR is nearest to the target, above it or below"


def pool(rows: np.ndarray, templates: Templates, *, keep_norm: bool = True) -> np.ndarray:
    """Return the unit embedding of each template, float32 [T, D]; NaN where none of its images has one.

    rows [n, D] embed the images of the templates, in their order. Each is multiplied by its detector score where
    there are scores; with keep_norm False it is scaled to length 1 before. Images that failed are left out.
    """
    good = usable(rows)
    order = np.lexsort((templates.media, templates.template))
    order = order[good[order]]
    template, media = templates.template[order], templates.media[order]
    pooled = np.full((len(templates.ids), rows.shape[1]), np.nan, np.float32)
    starts = np.flatnonzero(np.append(True, template[1:] != template[:-1])) if len(order) else np.empty(0, np.int64)
    ends = np.append(starts[1:], len(order))
    block = 0
    while block < len(starts):  # whole templates, about CHUNK images at a time
        until = max(block + 1, int(np.searchsorted(ends, starts[block] + CHUNK, side="right")))
        part = slice(int(starts[block]), int(ends[until - 1]))
        images = rows[order[part]].astype(np.float64)
        images = images if keep_norm else unit(images)
        if templates.score is not None:
            images *= templates.score[order[part], None]
        new = template[part][1:] != template[part][:-1]
        frames = np.flatnonzero(np.append(True, new | (media[part][1:] != media[part][:-1])))
        means = np.add.reduceat(images, frames, axis=0) / np.diff(np.append(frames, len(images)))[:, None]
        owner = template[part][frames]
        first = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
        pooled[owner[first]] = unit(np.add.reduceat(means, first, axis=0))
        block = until
    return pooled


def template_figures(
    rows: np.ndarray,
    templates: Templates,
    pairs: TemplatePairs,
    *,
    keep_norm: bool = True,
    compat: str | None = None,
    targets: Sequence[float] = TARGETS,
) -> tuple[Verification, np.ndarray]:
    """Return the figures of template pairs with their details, and the scores, float32 [P].

    Pairs with folds (YTF, IJB-A) also get the accuracy over folds, and the TAR of each fold at a threshold of its own
    with mean and standard deviation over folds. compat "ijb-insightface" adds that project's TAR beside the exact
    one. Who is who comes from the subjects, or else from genuine pairs: templates linked by them are one person.
    """
    if compat not in (None, "ijb-insightface"):
        raise ValueError(f"Unknown compat {compat!r}; known for templates: 'ijb-insightface'.")
    scores = pair_scores(pool(rows, templates, keep_norm=keep_norm), pairs.first, pairs.second)
    known = templates.subject
    if known is None:
        known = linked(pairs.first[pairs.same], pairs.second[pairs.same], len(templates.ids))
    persons, unknown = persons_of_pairs(known[pairs.first], known[pairs.second], pairs.same)
    if pairs.fold is not None:
        metrics, details = verification(scores, pairs.same, pairs.fold, targets=targets, persons=persons)
        details["tar_by_fold"] = tar_by_fold(scores, pairs.same, pairs.fold, targets)
    else:
        metrics, details = curve_figures(scores, pairs.same, targets, persons=persons)
        details = {**pair_counts(*check_scores(scores, pairs.same)), **details}
    if compat:
        details["compat_templates"] = nearest_points(scores, pairs.same, targets)
    details["templates"] = {
        "number": len(templates.ids),
        "images": len(templates.names),
        "images_left_out": int((~usable(rows)).sum()),
        "norm_kept": keep_norm,
        "detector_scores": templates.score is not None,
        "persons_from": "subjects" if templates.subject is not None else "genuine pairs",
    }
    details["persons"] = {"known": not unknown, "why_not": unknown or None}
    return Verification(metrics, details), scores


def nearest_points(scores: np.ndarray, same: np.ndarray, targets: Sequence[float]) -> dict[str, Any]:
    """Return TAR at FAR as insightface's IJB scripts read it, with the FPR they stand at and the exact TAR.

    scikit-learn's roc_curve leaves out points on a straight line, so the nearest FPR may be far from the target. Of
    equally near points the one of higher FPR is taken (eval_ijbc.py turns the curve round and takes the first).
    """
    scores, same = check_scores(scores, same)
    lowest = scores[np.isfinite(scores)].min()
    finite = np.where(np.isfinite(scores), scores, np.nextafter(lowest, scores.dtype.type(-np.inf)))
    fpr, tpr, _ = roc_curve(same, finite)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    points, found = curve(scores, same), []
    for target in targets:
        k = int(np.argmin(np.abs(fpr - target)))
        exact = tar_at(points, target)
        found.append(
            {
                "target_fmr": target,
                "fpr": float(fpr[k]),
                "tar": float(tpr[k]),
                "exact_tar": exact,
                "difference": float(tpr[k]) - exact,
            }
        )
    return {"rule": NEAREST_RULE, "points": found}


def tar_by_fold(scores: np.ndarray, same: np.ndarray, folds: np.ndarray, targets: Sequence[float]) -> dict[str, Any]:
    """Return the TAR of each fold at its own threshold, with mean and standard deviation (ddof 0), as IJB-A reports.

    A fold that lacks a kind of pair raises ValueError.
    """
    curves = [curve(scores[folds == k], same[folds == k]) for k in range(int(folds.max()) + 1)]
    found = []
    for target in targets:
        tars = [tar_at(points, target) for points in curves]
        found.append({"target_fmr": target, "mean": float(np.mean(tars)), "std": float(np.std(tars)), "folds": tars})
    return {"rule": "each fold at its own threshold; mean and standard deviation over folds", "points": found}


def format_templates(details: dict[str, Any]) -> str:
    """Return, for the terminal, what the details of template pairs hold beside the usual table."""
    facts = details["templates"]
    norm = "kept" if facts["norm_kept"] else "removed before pooling"
    weight = "weighted by detector scores" if facts["detector_scores"] else "all images weigh alike"
    lines = [
        f"{facts['number']:,} templates of {facts['images']:,} images: frames of a medium averaged, media summed; "
        f"norms {norm}, {weight}; persons known by {facts['persons_from']}"
    ]
    if facts["images_left_out"]:
        lines.append(f"{facts['images_left_out']:,} images failed and are left out of their templates")
    if "compat_templates" in details:
        lines += ["", f"{details['compat_templates']['rule']}:"]
        for point in details["compat_templates"]["points"]:
            lines.append(
                f"  FAR {point['target_fmr']:.0e}: TAR {point['tar']:.4f} (at FPR {point['fpr']:.3g}), "
                f"exact {point['exact_tar']:.4f}, difference {point['difference']:+.4f}"
            )
    if "tar_by_fold" in details:
        lines += ["", f"TAR, {details['tar_by_fold']['rule']}:"]
        for point in details["tar_by_fold"]["points"]:
            lines.append(f"  FAR {point['target_fmr']:.0e}: {point['mean']:.4f} +- {point['std']:.4f}")
    return "\n".join(lines)
