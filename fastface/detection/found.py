"""What a detector says of one image: boxes, scores, landmarks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastface.data.geometry import move_boxes, move_points


class Found(NamedTuple):
    """The faces of one image, by falling score; pixels of the image as given, not clipped to it."""

    boxes: np.ndarray  # float32 [n, 4]: x0 y0 x1 y1
    scores: np.ndarray  # float32 [n], 0 to 1
    landmarks: np.ndarray
    """float32 [n, 5, 2]: x y of eye, eye, nose, corner and corner of the mouth, the viewer's left one first, counted
    from the centre of the first pixel, as in OpenCV; NaN where a detector has none."""

    @classmethod
    def of(cls, boxes: np.ndarray, scores: np.ndarray, landmarks: np.ndarray | None = None) -> Found:
        """Order by falling score, equal ones as they come."""
        order = np.argsort(-scores, kind="stable")
        points = np.full((len(boxes), 5, 2), np.nan) if landmarks is None else landmarks
        return cls(*(np.ascontiguousarray(each[order], np.float32) for each in (boxes, scores, points)))

    def moved(self, matrix: np.ndarray) -> Found:
        """Return the faces in another image, to which a map (fastface.data.geometry) leads."""
        return Found.of(move_boxes(self.boxes, matrix), self.scores, move_points(self.landmarks + 0.5, matrix) - 0.5)
