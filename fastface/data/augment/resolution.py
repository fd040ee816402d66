"""Large faces -> faces that were small in their picture: low_resolution."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from fastface.data.augment.operator import Graph, Numbers, Operator, Parameters, between, rounded, within
from fastface.data.augment.resample import DALI, resize, resize_into


class LowResolution(Operator):
    """Make the image small and large again, as a face far from the camera is; antialiased bilinear both ways."""

    name: Literal["low_resolution"] = "low_resolution"
    side: Annotated[tuple[float, float], within(0.02, 1)] = (0.2, 1.0)
    """Share of the sides that the small image has."""

    tolerance: ClassVar[int] = 1

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw the share."""
        return {"side": between(words[0], self.side)}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give height and width of the small image."""
        sides = parameters["side"]
        return np.maximum(rounded(sides * height), 1), np.maximum(rounded(sides * width), 1)

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Resize twice; beyond the edge the outermost pixel goes on."""
        (height, width, _), (small_height, small_width) = image.shape, arguments
        return resize(resize(image, int(small_height), int(small_width), DALI), height, width, DALI)

    def apply(self, images: np.ndarray, rows: np.ndarray, arguments: tuple[np.ndarray, ...]) -> None:
        """Resize twice, image by image: weights are kept by size."""
        for row, height, width in zip(rows.tolist(), *(values.tolist() for values in arguments), strict=True):
            small = np.empty((height, width, 3), np.uint8)
            resize_into(images[row], small, DALI)
            resize_into(small, images[row], DALI)

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give the small size, height before width."""
        return {"size": np.stack(self.arguments(parameters, height, width), 1).astype(np.float32)}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Resize twice."""
        small = graph.fn.resize(images, size=feeds["size"], antialias=True)
        return graph.fn.resize(small, size=[graph.height, graph.width], antialias=True)
