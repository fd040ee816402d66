"""Boxes and landmarks of a source image -> where they lie in the image that a shard keeps.

All coordinates are px from the left and the top edge of the upright image: the first pixel covers 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NUM_LANDMARKS = 5  # left eye, right eye, nose, left and right corner of the mouth, as seen in the image
UNMOVED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

BOX_REASONS = {
    "box-empty": "x0 < x1 and y0 < y1 do not hold",
    "box-outside": "no part of the box is in the stored image",
}


class Faces(NamedTuple):
    """Every face of every image: rows start[i] to start[i + 1] belong to image i, which may have none."""

    start: np.ndarray  # int64 [N + 1]
    boxes: np.ndarray  # float32 [M, 4] x0 y0 x1 y1
    attributes: dict[str, np.ndarray]  # [M] each

    def take(self, keep: np.ndarray) -> Faces:
        """Return the faces of some images (int64 [n]), in that order."""
        counts = np.diff(self.start)[keep]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.start[keep] - start[:-1], counts) + np.arange(start[-1])
        return Faces(start, self.boxes[rows], {name: values[rows] for name, values in self.attributes.items()})


def cut_matrix(part: Sequence[float], width: float, height: float) -> tuple[float, ...]:
    """Return (a, b, c, d, e, f) of x' = a x + b y + c, y' = d x + e y + f, which takes `part` to width x height."""
    x0, y0, x1, y1 = part
    across, down = width / (x1 - x0), height / (y1 - y0)
    return (across, 0.0, -x0 * across, 0.0, down, -y0 * down)


def move_points(points: np.ndarray, matrix: Sequence[float] | np.ndarray) -> np.ndarray:
    """Map points [..., 2] by such a matrix; float64 within, float32 out."""
    affine = np.array(matrix, np.float64).reshape(2, 3)
    return (np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]).astype(np.float32)


def move_boxes(boxes: np.ndarray, matrix: Sequence[float] | np.ndarray) -> np.ndarray:
    """Map boxes [..., 4]: the upright rectangle around the four moved corners."""
    corners = move_points(boxes[..., [0, 1, 2, 1, 0, 3, 2, 3]].reshape(*boxes.shape[:-1], 4, 2), matrix)
    return np.concatenate([corners.min(axis=-2), corners.max(axis=-2)], axis=-1)


class PlacedBoxes(NamedTuple):
    """The boxes of one image, in the stored image."""

    boxes: np.ndarray  # float32 [k, 4], inside the image
    kept: np.ndarray  # bool [given]: k of them are True
    reasons: list[str]  # of those that are not kept, in their order
    clipped: int  # of the k, how many reached over an edge


def place_boxes(boxes: np.ndarray, matrix: Sequence[float] | np.ndarray, width: int, height: int) -> PlacedBoxes:
    """Map the boxes (float32 [given, 4]) of one image; those that are no part of the stored image are left out."""
    full = np.isfinite(boxes).all(axis=1) & (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    moved = move_boxes(np.where(full[:, None], boxes, 0), matrix)
    inside = np.clip(moved, 0, [width, height, width, height]).astype(np.float32)
    kept = full & (inside[:, 0] < inside[:, 2]) & (inside[:, 1] < inside[:, 3])
    reasons = ["box-outside" if whole else "box-empty" for whole in full[~kept]]
    return PlacedBoxes(inside[kept], kept, reasons, int((inside != moved)[kept].any(axis=1).sum()))
