"""Parts of an image -> one colour: crop_pad, erase and cutout, which leave all other pixels as they are."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fastface.data.augment.operator import Graph, Numbers, Operator, Parameters, between, between_logs, rounded, within
from fastface.data.compiled import Kernel, kernel


@kernel("void(uint8[:,:,:,::1], int64[::1], int64[:,:,::1], uint8[:,::1])")
def fill_rectangles(images: np.ndarray, rows: np.ndarray, rectangles: np.ndarray, colours: np.ndarray) -> None:
    """Paint rectangles, int64 [n, R, 4] as y, x, height, width px, in colours, uint8 [n, 3]."""
    for i in range(len(rows)):
        image = images[rows[i]]
        for k in range(rectangles.shape[1]):
            y, x, height, width = rectangles[i, k]
            for down in range(y, y + height):
                for across in range(x, x + width):
                    for c in range(3):
                        image[down, across, c] = colours[i, c]


class Cover(Operator):
    """Operators whose arguments are rectangles and a colour."""

    kernel: ClassVar[Kernel | None] = fill_rectangles

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Paint rectangles, int64 [R, 4] as y, x, height, width px, in one colour, uint8 [3]."""
        rectangles, colour = arguments
        image = image.copy()
        for y, x, height, width in rectangles:
            image[y : y + height, x : x + width] = colour
        return image

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give corners and sides as fn.erase takes them: y, x, y, x, ..."""
        rectangles, colours = self.arguments(parameters, height, width)
        rows = len(rectangles)
        return {
            "anchor": rectangles[:, :, :2].reshape(rows, -1).astype(np.float32),
            "shape": rectangles[:, :, 2:].reshape(rows, -1).astype(np.float32),
            "colour": colours.astype(np.float32),
        }

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Erase."""
        anchor, shape = feeds["anchor"], feeds["shape"]
        return graph.fn.erase(images, anchor=anchor, shape=shape, fill_value=feeds["colour"], axis_names="HW")


def placed(
    area: np.ndarray, ratio: np.ndarray, across: np.ndarray, down: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, ...]:
    """Place a rectangle of a share of the image's area, and this width / height, inside: y, x, height, width px."""
    tall = np.clip(rounded(np.sqrt(area * height * width / ratio)), 1, height)
    wide = np.clip(rounded(np.sqrt(area * height * width * ratio)), 1, width)
    y, x = (down * (height - tall + 1)).astype(np.int64), (across * (width - wide + 1)).astype(np.int64)
    return y, x, tall, wide


class CropPad(Cover):
    """Keep a part where it is and blacken the rest, as AdaFace trains for faces that are cut off."""

    name: Literal["crop_pad"] = "crop_pad"
    area: Annotated[tuple[float, float], within(0.01, 1)] = (0.2, 1.0)
    """Share of the image that is kept."""
    ratio: Annotated[tuple[float, float], within(0.1, 10)] = (0.75, 1.3333)
    """Width / height of what is kept."""

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw area, ratio, and the place as a share of the room there is."""
        across, down, *_ = numbers("place")
        area, ratio = between(words[0], self.area), between_logs(words[1], self.ratio)
        return {"area": area, "ratio": ratio, "across": across, "down": down}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give the four strips around what is kept, and black."""
        y, x, tall, wide = placed(**parameters, height=height, width=width)
        zero, full = np.zeros_like(y), np.full_like(y, width)
        above, below = (zero, zero, y, full), (y + tall, zero, height - y - tall, full)
        left, right = (y, zero, tall, x), (y, x + wide, tall, width - x - wide)
        strips = np.stack([np.stack(strip, 1) for strip in (above, below, left, right)], 1)
        return strips, np.zeros((len(y), 3), np.uint8)


class Erase(Cover):
    """Cover one rectangle with a colour (random erasing): sunglasses, masks, hands, what is in the way."""

    name: Literal["erase"] = "erase"
    area: Annotated[tuple[float, float], within(0.001, 1)] = (0.02, 0.2)
    """Share of the image that is covered."""
    ratio: Annotated[tuple[float, float], within(0.1, 10)] = (0.3, 3.3)
    """Width / height of what is covered."""

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw area, ratio, place, and a colour."""
        across, down, *_ = numbers("place")
        area, ratio = between(words[0], self.area), between_logs(words[1], self.ratio)
        colour = (numbers("colour")[:3].T * 256).astype(np.uint8)
        return {"area": area, "ratio": ratio, "across": across, "down": down, "colour": colour}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give the rectangle and its colour."""
        places = {name: values for name, values in parameters.items() if name != "colour"}
        rectangle = np.stack(placed(**places, height=height, width=width), 1)
        return np.ascontiguousarray(rectangle[:, None]), np.ascontiguousarray(parameters["colour"])


class Cutout(Cover):
    """Cover a few black squares that may reach over the edge."""

    name: Literal["cutout"] = "cutout"
    holes: int = Field(default=3, ge=1, le=64)
    """How many."""
    side: Annotated[tuple[float, float], within(0.01, 1)] = (0.05, 0.2)
    """Their side, as a share of the image's shorter side."""

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw centre and side of every hole: float64 [B, holes] each."""
        across, down, side, _ = np.stack([numbers("hole", item) for item in range(self.holes)], 2)
        return {"across": across, "down": down, "side": between(side, self.side)}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give the squares, cut at the edge, and black."""
        side = np.maximum(rounded(parameters["side"] * min(height, width)), 1)
        y0 = (parameters["down"] * height).astype(np.int64) - side // 2
        x0 = (parameters["across"] * width).astype(np.int64) - side // 2
        y1, x1 = np.minimum(y0 + side, height), np.minimum(x0 + side, width)
        y0, x0 = np.maximum(y0, 0), np.maximum(x0, 0)
        return np.stack([y0, x0, y1 - y0, x1 - x0], 2), np.zeros((len(side), 3), np.uint8)
