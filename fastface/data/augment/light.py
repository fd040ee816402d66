"""Each pixel by itself -> another colour: colour, gamma and grey."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fastface.data.augment.operator import Graph, Numbers, Operator, Parameters, between, between_logs, rounded, within
from fastface.data.compiled import Kernel, kernel

BITS = 16  # of the fraction of a whole-number factor
# NTSC's YIQ to three digits (FCC, 1953), as DALI's color_twist has it. Rows two and three do not quite add up to
# 0: without saturation, the channels of a bright pixel differ by a level.
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


@kernel("void(uint8[:,:,:,::1], int64[::1], int64[:,:,::1])")
def mix_channels(images: np.ndarray, rows: np.ndarray, mixes: np.ndarray) -> None:
    """Multiply pixels with whole-number matrices, int64 [n, 3, 4] in units of 2^-16; the last column is added."""
    shift, least, most = np.int32(16), np.int32(0), np.int32(255)
    for i in range(len(rows)):
        pixels = images[rows[i]].reshape(-1, 3)
        mix = mixes[i].astype(np.int32)  # 255 * 3 * 2^18 and an offset of 2^26 fit
        a0, a1, a2, a3 = mix[0, 0], mix[0, 1], mix[0, 2], mix[0, 3] + np.int32(1 << 15)
        b0, b1, b2, b3 = mix[1, 0], mix[1, 1], mix[1, 2], mix[1, 3] + np.int32(1 << 15)
        c0, c1, c2, c3 = mix[2, 0], mix[2, 1], mix[2, 2], mix[2, 3] + np.int32(1 << 15)
        for j in range(len(pixels)):
            r, g, b = np.int32(pixels[j, 0]), np.int32(pixels[j, 1]), np.int32(pixels[j, 2])
            pixels[j, 0] = min(max((a0 * r + a1 * g + a2 * b + a3) >> shift, least), most)
            pixels[j, 1] = min(max((b0 * r + b1 * g + b2 * b + b3) >> shift, least), most)
            pixels[j, 2] = min(max((c0 * r + c1 * g + c2 * b + c3) >> shift, least), most)


class Colour(Operator):
    """Change hue, saturation, contrast and brightness, in this order, as one matrix (DALI's color_twist)."""

    name: Literal["colour"] = "colour"
    brightness: Annotated[tuple[float, float], within(0.1, 2)] = (0.7, 1.3)
    """Factor of all values."""
    contrast: Annotated[tuple[float, float], within(0.1, 2)] = (0.7, 1.3)
    """Factor of the distance to mid-grey, 128."""
    saturation: Annotated[tuple[float, float], within(0, 2)] = (0.7, 1.3)
    """Factor of the colour, I and Q of YIQ; 0 is grey."""
    hue_degrees: Annotated[tuple[float, float], within(-180, 180)] = (-10.0, 10.0)
    """Turn of the colour in the plane of I and Q."""

    kernel: ClassVar[Kernel | None] = mix_channels
    tolerance: ClassVar[int] = 1

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw the four."""
        brightness, contrast, saturation, hue = numbers("factors")
        return {
            "brightness": between(brightness, self.brightness),
            "contrast": between(contrast, self.contrast),
            "saturation": between(saturation, self.saturation),
            "hue": between(hue, self.hue_degrees),
        }

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give the matrix and offset in units of 2^-16: int64 [B, 3, 4]."""
        angle, saturation = np.deg2rad(parameters["hue"]), parameters["saturation"]
        turn = np.zeros((len(angle), 3, 3))
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle) * saturation
        turn[:, 1, 2] = np.sin(angle) * saturation
        turn[:, 2, 1] = -turn[:, 1, 2]
        factor = parameters["brightness"] * parameters["contrast"]
        matrix = FROM_YIQ @ turn @ TO_YIQ * factor[:, None, None]
        offset = (128 - 128 * parameters["contrast"]) * parameters["brightness"]
        mixes = np.concatenate([matrix, np.broadcast_to(offset[:, None, None], (len(offset), 3, 1))], 2)
        return (rounded(mixes * (1 << BITS)),)

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Multiply and add in whole numbers, round, clip."""
        (mix,) = arguments
        values = image.astype(np.int64) @ mix[:, :3].T + mix[:, 3]
        return np.clip((values + (1 << BITS - 1)) >> BITS, 0, 255).astype(np.uint8)

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give the four factors."""
        return {name: values.astype(np.float32) for name, values in parameters.items()}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Twist."""
        return graph.fn.color_twist(images, **feeds)


@kernel("void(uint8[:,:,:,::1], int64[::1], uint8[:,::1])")
def look_up(images: np.ndarray, rows: np.ndarray, tables: np.ndarray) -> None:
    """Replace values by a table, uint8 [n, 256], of each image."""
    for i in range(len(rows)):
        values = images[rows[i]].reshape(-1)
        for j in range(len(values)):
            values[j] = tables[i, values[j]]


class Gamma(Operator):
    """Raise values to a power: darker shadows above 1, brighter ones below."""

    name: Literal["gamma"] = "gamma"
    gamma: Annotated[tuple[float, float], within(0.1, 10)] = (0.6, 1.6667)
    """The power, drawn by its logarithm: a half is as likely as a double."""

    kernel: ClassVar[Kernel | None] = look_up
    tolerance: ClassVar[int] = 1

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw the power."""
        return {"gamma": between_logs(words[0], self.gamma)}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give a table of all 256 values: uint8 [B, 256]."""
        levels = np.arange(256) / 255
        return (rounded(255 * levels ** parameters["gamma"][:, None]).astype(np.uint8),)

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Look up."""
        return arguments[0][image]

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give the power."""
        return {"gamma": parameters["gamma"].astype(np.float32)}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Compute each pixel; DALI's tables are the same for all images."""
        shares = graph.math.pow(images * np.float32(1 / 255), feeds["gamma"])
        return graph.fn.cast(shares * np.float32(255), dtype=graph.types.UINT8)


@kernel("void(uint8[:,:,:,::1], int64[::1])")
def luma(images: np.ndarray, rows: np.ndarray) -> None:
    """Give all three channels Y of ITU-R BT.601 in units of 2^-16, as Pillow's convert("L") has it."""
    for i in range(len(rows)):
        pixels = images[rows[i]].reshape(-1, 3)
        for j in range(len(pixels)):
            r, g, b = np.int32(pixels[j, 0]), np.int32(pixels[j, 1]), np.int32(pixels[j, 2])
            grey = np.uint8((r * 19595 + g * 38470 + b * 7471 + 32768) >> 16)
            pixels[j, 0], pixels[j, 1], pixels[j, 2] = grey, grey, grey


class Grey(Operator):
    """Take the colour away, in all three channels."""

    name: Literal["grey"] = "grey"
    p: float = Field(default=0.1, ge=0, le=1)
    """Probability that an image gets it."""

    kernel: ClassVar[Kernel | None] = luma
    tolerance: ClassVar[int] = 1

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Nothing more to draw."""
        return {}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Nothing more to know."""
        return ()

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Weigh red, green and blue."""
        grey = (image.astype(np.int64) @ np.array([19595, 38470, 7471]) + 32768) >> 16
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Nothing to feed."""
        return {}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Convert there and back."""
        convert, types = graph.fn.color_space_conversion, graph.types
        grey = convert(images, image_type=types.RGB, output_type=types.GRAY)
        return convert(grey, image_type=types.GRAY, output_type=types.RGB)
