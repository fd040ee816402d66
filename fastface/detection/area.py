"""An image -> the means over cells of any of its rectangles, by one table of sums."""

from __future__ import annotations

import numpy as np


class AreaTable:
    """Sums over all rectangles from a corner of an image: then the mean over any cell takes four look-ups.

    All that MTCNN sees, pyramid and crops, is an image averaged over cells (as adaptive average pooling does).
    The sums are uint32 and may run over; their differences are right while a cell has less than 2^24 px.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.height, self.width = image.shape[:2]
        self.sums = np.zeros((self.height + 1, self.width + 1, 3), np.uint32)
        np.cumsum(np.cumsum(image, axis=0, dtype=np.uint32), axis=1, dtype=np.uint32, out=self.sums[1:, 1:])

    def means(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Average boxes (int [n, 4], edges within the image) over size (height, width) cells each.

        Returns float32 [n, height, width, 3], normalised as the networks want it: (mean - 127.5) / 128.
        """
        top, bottom = _cell_edges(boxes[:, 1], boxes[:, 3], size[0])
        left, right = _cell_edges(boxes[:, 0], boxes[:, 2], size[1])
        flat, across = self.sums.reshape(-1, 3), self.width + 1

        def corner(row: np.ndarray, column: np.ndarray) -> np.ndarray:
            return flat.take(row[:, :, None] * across + column[:, None, :], axis=0)  # [n, height, width, 3]

        sums = corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)
        count = (bottom - top)[:, :, None] * (right - left)[:, None, :]
        means = (sums / count[..., None]).astype(np.float32)
        return (means - np.float32(127.5)) * np.float32(1 / 128)


def _cell_edges(start: np.ndarray, end: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut start..end (int [n]) into cells that touch or overlap: first and last edge of each, int [n, cells]."""
    k, length = np.arange(cells), (end - start)[:, None]
    return start[:, None] + k * length // cells, start[:, None] - (-(k + 1) * length // cells)
