"""Images -> face boxes with OpenCV's SSD on ResNet-10 (res10_300x300_ssd), from the user's two Caffe files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fastface.detection.found import Found

SIDE = 300  # px: every image is squeezed to this square, whatever its aspect, as the network was trained
MEAN_BGR = (104.0, 177.0, 123.0)  # from the file that describes it, opencv/samples/dnn/models.yml
LEAST = 0.3  # smallest score reported


class Ssd:
    """The network; its own last layer suppresses overlaps. It has no landmarks."""

    def __init__(self, prototxt: Path, caffemodel: Path) -> None:
        try:
            import cv2  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ValueError(
                'detector ssd needs OpenCV: pip install "opencv-python-headless<5" (or use mtcnn or yunet)'
            ) from None
        if not hasattr(cv2.dnn, "readNetFromCaffe"):
            raise ValueError(f"OpenCV {cv2.__version__} reads no Caffe files: pip install 'opencv-python-headless<5'")
        cv2.setNumThreads(1)  # conversion has a process per core
        try:
            self.net = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
        except cv2.error as error:
            raise ValueError(f"{prototxt} and {caffemodel} are no Caffe network: {error}") from None

    def detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        """Find face boxes in uint8 RGB images [H, W, 3] of any sizes; landmarks are NaN."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Found:
        height, width = image.shape[:2]
        square = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        pixels = square[:, :, ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)
        self.net.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        rows = self.net.forward().reshape(-1, 7)  # image, class, score, then the box in sides of the image
        rows = rows[rows[:, 2] >= LEAST]
        return Found.of(rows[:, 3:] * np.array([width, height, width, height], np.float32), rows[:, 2])
