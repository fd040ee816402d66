"""Where pixels are -> where they go: affine and random_resized_crop, in which points follow."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from fastface.data.augment.cover import placed
from fastface.data.augment.operator import Graph, Numbers, Operator, Parameters, between, between_logs, rounded, within
from fastface.data.compiled import kernel

PLACE_BITS = 24  # of the fraction of a matrix entry: 2^-24 * 1,024 px is far less than a level
WEIGHT_BITS = 11  # of the fraction of a place: 22 bits of weight and 8 of value fit into 32


@kernel("void(uint8[:,:,:,::1], int64[::1], int64[:,:,::1], boolean)")
def warp(images: np.ndarray, rows: np.ndarray, matrices: np.ndarray, clamped: bool) -> None:
    """Take each pixel from where a matrix, int64 [n, 2, 3] in units of 2^-24, says; see `warp_reference`."""
    _, height, width, _ = images.shape
    source = np.empty((height, width, 3), np.uint8)
    half, shift, one = np.int32(1 << 21), np.int32(22), np.int32(2048)
    for i in range(len(rows)):
        image, m = images[rows[i]], matrices[i]
        for y in range(height):
            for x in range(width):
                for c in range(3):
                    source[y, x, c] = image[y, x, c]
        for y in range(height):
            at_x = m[0, 2] + m[0, 1] * y + (1 << 12)
            at_y = m[1, 2] + m[1, 1] * y + (1 << 12)
            for x in range(width):
                px, py = at_x >> 13, at_y >> 13  # in units of 2^-11
                at_x += m[0, 0]
                at_y += m[1, 0]
                left, top = px >> 11, py >> 11
                fx, fy = np.int32(px & 2047), np.int32(py & 2047)
                w00, w01, w10, w11 = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
                if 0 <= left < width - 1 and 0 <= top < height - 1:
                    for c in range(3):
                        total = w00 * np.int32(source[top, left, c]) + w01 * np.int32(source[top, left + 1, c])
                        total += w10 * np.int32(source[top + 1, left, c]) + w11 * np.int32(source[top + 1, left + 1, c])
                        image[y, x, c] = (total + half) >> shift
                else:
                    if not clamped:  # what is outside is black: it weighs nothing
                        if left < 0 or left >= width:
                            w00, w10 = np.int32(0), np.int32(0)
                        if left < -1 or left >= width - 1:
                            w01, w11 = np.int32(0), np.int32(0)
                        if top < 0 or top >= height:
                            w00, w01 = np.int32(0), np.int32(0)
                        if top < -1 or top >= height - 1:
                            w10, w11 = np.int32(0), np.int32(0)
                    x0, x1 = min(max(left, 0), width - 1), min(max(left + 1, 0), width - 1)
                    y0, y1 = min(max(top, 0), height - 1), min(max(top + 1, 0), height - 1)
                    for c in range(3):
                        total = w00 * np.int32(source[y0, x0, c]) + w01 * np.int32(source[y0, x1, c])
                        total += w10 * np.int32(source[y1, x0, c]) + w11 * np.int32(source[y1, x1, c])
                        image[y, x, c] = (total + half) >> shift


def warp_reference(image: np.ndarray, matrix: np.ndarray, clamped: bool) -> np.ndarray:
    """Take each pixel (x, y) from matrix @ (x, y, 1), in units of 2^-24 px, bilinearly.

    Outside the image is black, or with `clamped` the nearest pixel.
    """
    height, width, _ = image.shape
    y, x = np.mgrid[:height, :width]
    places = (np.stack([x, y, np.ones_like(x)], 2) @ matrix.T + (1 << 12)) >> PLACE_BITS - WEIGHT_BITS
    whole, fraction = places >> WEIGHT_BITS, places & (1 << WEIGHT_BITS) - 1
    total = np.zeros(image.shape, np.int64)
    for down in (0, 1):
        for across in (0, 1):
            column, row = whole[..., 0] + across, whole[..., 1] + down
            values = image[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(np.int64)
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) | clamped
            weight_x = fraction[..., 0] if across else (1 << WEIGHT_BITS) - fraction[..., 0]
            weight_y = fraction[..., 1] if down else (1 << WEIGHT_BITS) - fraction[..., 1]
            total += values * (weight_x * weight_y * inside)[..., None]
    return ((total + (1 << 2 * WEIGHT_BITS - 1)) >> 2 * WEIGHT_BITS).astype(np.uint8)


class Geometry(Operator):
    """Operators that move pixels by a matrix; `matrices` says where points go, the inverse where pixels come from."""

    clamped: ClassVar[bool] = False
    tolerance: ClassVar[int] = 1

    def backward(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        """Return float64 [B, 2, 3] px: where a point of the new image was in the old one."""
        forward = self.matrices(parameters, height, width)
        assert forward is not None
        linear = np.linalg.inv(forward[:, :, :2])
        return np.concatenate([linear, -linear @ forward[:, :, 2:]], 2)

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give the matrix from pixel numbers to pixel numbers, whose centres lie half a pixel in."""
        matrix = self.backward(parameters, height, width)
        matrix[:, :, 2] += matrix[:, :, :2].sum(2) * 0.5 - 0.5
        return (rounded(matrix * (1 << PLACE_BITS)),)

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Warp."""
        return warp_reference(image, arguments[0], self.clamped)

    def apply(self, images: np.ndarray, rows: np.ndarray, arguments: tuple[np.ndarray, ...]) -> None:
        """Tell the kernel what is outside."""
        if warp.function is None:
            super().apply(images, rows, arguments)
        else:
            warp.function(images, rows, *arguments, self.clamped)


class Affine(Geometry):
    """Turn, scale and shift about the centre in one resampling; what comes from outside is black."""

    name: Literal["affine"] = "affine"
    angle_degrees: Annotated[tuple[float, float], within(-180, 180)] = (-10.0, 10.0)
    """Turn, clockwise as the image is looked at."""
    scale: Annotated[tuple[float, float], within(0.2, 5)] = (0.9, 1.1)
    """Above 1 magnifies; drawn by its logarithm."""
    shift: Annotated[tuple[float, float], within(-1, 1)] = (-0.05, 0.05)
    """Right and down, as a share of the sides."""
    aspect: Annotated[tuple[float, float], within(0.2, 5)] = (1.0, 1.0)
    """Width against height: above 1 stretches across, and squeezes down."""

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw turn, scales across and down, and shifts."""
        across, down, *_ = numbers("shift")
        scale, aspect = between_logs(words[1], self.scale), np.sqrt(between_logs(words[2], self.aspect))
        return {
            "angle": between(words[0], self.angle_degrees),
            "scale_x": scale * aspect,
            "scale_y": scale / aspect,
            "shift_x": between(across, self.shift),
            "shift_y": between(down, self.shift),
        }

    def matrices(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        """Return where points go, about the centre."""
        angle, scale_x, scale_y = np.deg2rad(parameters["angle"]), parameters["scale_x"], parameters["scale_y"]
        cos, sin = np.cos(angle), np.sin(angle)
        linear = np.stack(
            [np.stack([cos * scale_x, -sin * scale_y], 1), np.stack([sin * scale_x, cos * scale_y], 1)], 1
        )
        centre = np.array([width / 2, height / 2])
        shift = np.stack([parameters["shift_x"] * width, parameters["shift_y"] * height], 1)
        return np.concatenate([linear, (centre + shift - linear @ centre)[:, :, None]], 2)

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give the matrix from new places to old ones."""
        return {"matrix": self.backward(parameters, height, width).astype(np.float32)}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Warp."""
        return graph.fn.warp_affine(images, matrix=feeds["matrix"], fill_value=0)


class RandomResizedCrop(Geometry):
    """Enlarge a part to the whole image; a part of another shape is stretched."""

    name: Literal["random_resized_crop"] = "random_resized_crop"
    area: Annotated[tuple[float, float], within(0.01, 1)] = (0.8, 1.0)
    """Share of the image that the part has."""
    ratio: Annotated[tuple[float, float], within(0.1, 10)] = (0.9, 1.1111)
    """Width / height of the part."""

    clamped: ClassVar[bool] = True

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw area, ratio, and the place as a share of the room there is."""
        across, down, *_ = numbers("place")
        area, ratio = between(words[0], self.area), between_logs(words[1], self.ratio)
        return {"area": area, "ratio": ratio, "across": across, "down": down}

    def matrices(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        """Return where points go: out of the part, of whole pixels."""
        y, x, tall, wide = placed(**parameters, height=height, width=width)
        result = np.zeros((len(y), 2, 3))
        result[:, 0, 0], result[:, 1, 1] = width / wide, height / tall
        result[:, 0, 2], result[:, 1, 2] = -x * width / wide, -y * height / tall
        return result

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give two corners, y before x."""
        y, x, tall, wide = placed(**parameters, height=height, width=width)
        start, stop = np.stack([y, x], 1), np.stack([y + tall, x + wide], 1)
        return {"start": start.astype(np.float32), "stop": stop.astype(np.float32)}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Resize the part: enlarging, linear interpolation is what the warp does."""
        size = [graph.height, graph.width]
        return graph.fn.resize(images, size=size, roi_start=feeds["start"], roi_end=feeds["stop"], antialias=False)
