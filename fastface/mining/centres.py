"""Embeddings of images -> the centre of each identity: the direction of the mean of its unit embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fastface.metrics.scores import unit, usable

BLOCK = 16_384  # rows at a time: 64 MB of 512 values in float64


def class_centres(blocks: Iterable[tuple[np.ndarray, np.ndarray]], first: int, last: int, width: int) -> np.ndarray:
    """Return unit centres of the identities [first, last), float32 [last - first, width]; NaN where there is none.

    blocks: rows [n, width] and their labels [n], ascending over all blocks, so that an identity is done when the next
    one begins. Rows without direction, and those of other identities, do not count. Sums are float64, in the order of
    the rows.
    """
    centres = np.full((last - first, width), np.nan, np.float32)
    open_label, open_sum = -1, np.zeros(width)  # the identity that the next block may go on with
    for rows, labels in blocks:
        counts = usable(rows) & (labels >= first) & (labels < last)
        if not counts.any():
            continue
        kept = labels[counts]
        starts = np.flatnonzero(np.diff(kept, prepend=-1))
        sums, which = np.add.reduceat(unit(rows[counts]), starts, axis=0), kept[starts]
        if which[0] == open_label:
            sums[0] += open_sum
        elif open_label >= 0:
            centres[open_label - first] = unit(open_sum[None])[0]
        centres[which[:-1] - first] = unit(sums[:-1])
        open_label, open_sum = int(which[-1]), sums[-1]
    if open_label >= 0:
        centres[open_label - first] = unit(open_sum[None])[0]
    return centres


def in_class_order(rows: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give all rows [N, D] with their labels, identity by identity, BLOCK at a time: `blocks` of `class_centres`."""
    order = np.argsort(labels, kind="stable")
    for start in range(0, len(order), BLOCK):
        part = order[start : start + BLOCK]
        yield np.asarray(rows[part]), labels[part]
