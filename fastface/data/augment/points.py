"""Draws and the points of an image -> the same points where augmentation put them.

Coordinates are px from the image's corner: pixel number n reaches from n to n + 1, its centre is at n + 0.5.
"""

from __future__ import annotations

import numpy as np

from fastface.data.augment.draw import Draws

LEFT_RIGHT = ((0, 1), (3, 4))  # of five landmarks: eyes and mouth corners change names in a mirror, the nose does not


def transform_points(
    draws: Draws,
    row: int,
    points: np.ndarray,
    size: tuple[int, int],
    left_right: tuple[tuple[int, int], ...] = (),
) -> np.ndarray:
    """Move points, [..., 2] as x, y, of an image of `size` (width, height) px, as `row` of the draws moved it.

    left_right: indices along the last axis but one whose points change places where the image is mirrored, such
    as LEFT_RIGHT. Points may end outside the image. float64, a copy.
    """
    width, height = size
    points = np.array(points, np.float64)
    for operator, chosen, parameters in draws.operators:
        if chosen[row]:
            own = {name: values[row : row + 1] for name, values in parameters.items()}
            matrices = operator.matrices(own, height, width)
            if matrices is not None:
                points = points @ matrices[0, :, :2].T + matrices[0, :, 2]
    if draws.flip[row]:
        points[..., 0] = width - points[..., 0]
        for left, right in left_right:
            points[..., [left, right], :] = points[..., [right, left], :]
    return points


def transform_boxes(draws: Draws, row: int, boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Move boxes, [N, 4] as x0, y0, x1, y1, and say how much of each is left in the image.

    A turned box becomes the upright one around it, cut at the image's edges: float64 [N, 4]. The share of its
    area that the cut left is float64 [N]: 0 is outside. Drop what has too little, by a rule of your own.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # [N, 4, 2]
    moved = transform_points(draws, row, corners, size)
    whole = np.concatenate([moved.min(1), moved.max(1)], 1)
    cut = np.clip(whole, 0, [*size, *size])
    return cut, _area(cut) / np.maximum(_area(whole), 1e-12)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
