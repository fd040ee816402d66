"""Boxes [n, 4] as x0 y0 x1 y1 -> overlaps, and the ones that non-maximum suppression leaves."""

from __future__ import annotations

import numpy as np


def suppress(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, *, over: str = "union", inclusive: bool = False
) -> np.ndarray:
    """Return the boxes (int64, by falling score) that no better one overlaps by more than `threshold`.

    Overlap is the intersection over the union, or over the smaller box (over="least"). `inclusive` counts the
    last pixel as inside: sides are x1 - x0 + 1, as in the papers that came from MATLAB.
    """
    assert over in ("union", "least"), over
    extra = 1.0 if inclusive else 0.0
    x0, y0, x1, y1 = boxes.T
    area = (x1 - x0 + extra) * (y1 - y0 + extra)
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        across = np.minimum(x1[best], x1[left]) - np.maximum(x0[best], x0[left]) + extra
        down = np.minimum(y1[best], y1[left]) - np.maximum(y0[best], y0[left]) + extra
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        whole = np.minimum(area[best], area[left]) if over == "least" else area[best] + area[left] - shared
        left = left[shared <= threshold * whole]
    return np.array(kept, np.int64)


def squared(boxes: np.ndarray) -> np.ndarray:
    """Widen the shorter side of each box to the longer one, about its centre."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    side = np.maximum(width, height)
    corner = boxes[:, :2] + np.stack([width, height], 1) * np.float32(0.5) - side[:, None] * np.float32(0.5)
    return np.concatenate([corner, corner + side[:, None]], axis=1)
