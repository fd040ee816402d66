"""Pixels -> what JPEG leaves of them: libjpeg's whole-number arithmetic without its bytes, or libjpeg itself.

Huffman coding loses nothing, so it is left out: colours, halved chroma, DCT, quantisation, and all of it back.
Sources: ITU-T T.81 (tables K.1 and K.2), JFIF 1.02; the DCT is Loeffler, Ligtenberg and Moschytz, "Practical fast
1-D DCT algorithms with 11 multiplications", 1989, with 13 bits to a constant, as libjpeg's slow one has it.
"""

from __future__ import annotations

import io
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from fastface.data.augment.operator import Graph, Numbers, Operator, Parameters, within
from fastface.data.compiled import Kernel, kernel

# T.81, K.1 and K.2, row by row: what a coefficient is divided by at quality 50
LUMINANCE = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
CHROMINANCE = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
BASE = np.array([table.split() for table in (LUMINANCE, CHROMINANCE)], np.int64).reshape(2, 8, 8)


def quantisers(quality: np.ndarray) -> np.ndarray:
    """Return libjpeg's tables for qualities 1 to 100, int64 [n]: int64 [n, 2, 8, 8] for luma and chroma."""
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None, None]
    return np.clip((BASE * scale + 50) // 100, 1, 255)


@kernel("void(uint8[:,:,:,::1], int64[::1], int64[:,:,:,::1])")
def lose_like_jpeg(images: np.ndarray, rows: np.ndarray, tables: np.ndarray) -> None:
    """Do to images what encoding with `tables`, int64 [n, 2, 8, 8], and decoding does: 4:2:0, accurate DCT."""
    _, height, width, _ = images.shape
    low_height, low_width = (height + 1) // 2, (width + 1) // 2  # of chroma
    wide = (width + 15) // 16 * 16
    tall = (height + 15) // 16 * 16
    luma, chroma = np.empty((tall, wide), np.int32), np.empty((2, tall, wide), np.int32)
    halved = np.empty((2, tall // 2, wide // 2), np.int32)
    work, steps = np.empty((2, 8, wide), np.int32), np.empty((8, wide), np.int32)
    near, far = np.empty((2, low_width), np.int32), np.empty((2, 2 * low_width), np.int32)

    def turn(source: np.ndarray, target: np.ndarray, length: int) -> None:
        for r in range(8):
            for b in range(0, length, 8):
                for k in range(8):
                    target[k, b + r] = source[r, b + k]

    def forward(d: np.ndarray, length: int, bits: int, plain_bits: int) -> None:
        shift, plain, half = np.int32(bits), np.int32(plain_bits), np.int32(1 << (bits - 1))
        plain_half, up = np.int32((1 << plain_bits) >> 1), np.int32(2 if plain_bits == 0 else 0)
        for x in range(length):
            t0, t7, t1, t6 = d[0, x] + d[7, x], d[0, x] - d[7, x], d[1, x] + d[6, x], d[1, x] - d[6, x]
            t2, t5, t3, t4 = d[2, x] + d[5, x], d[2, x] - d[5, x], d[3, x] + d[4, x], d[3, x] - d[4, x]
            t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
            d[0, x] = (((t10 + t11) << up) + plain_half) >> plain
            d[4, x] = (((t10 - t11) << up) + plain_half) >> plain
            z1 = (t12 + t13) * np.int32(4433) + half
            d[2, x], d[6, x] = (z1 + t13 * np.int32(6270)) >> shift, (z1 - t12 * np.int32(15137)) >> shift
            z1, z2, z3, z4 = t4 + t7, t5 + t6, t4 + t6, t5 + t7
            z5 = (z3 + z4) * np.int32(9633) + half
            z1, z2 = z1 * np.int32(-7373), z2 * np.int32(-20995)
            z3, z4 = z3 * np.int32(-16069) + z5, z4 * np.int32(-3196) + z5
            d[7, x], d[5, x] = (t4 * np.int32(2446) + z1 + z3) >> shift, (t5 * np.int32(16819) + z2 + z4) >> shift
            d[3, x], d[1, x] = (t6 * np.int32(25172) + z2 + z3) >> shift, (t7 * np.int32(12299) + z1 + z4) >> shift

    def backward(d: np.ndarray, length: int, bits: int) -> None:
        shift, half = np.int32(bits), np.int32(1 << (bits - 1))
        for x in range(length):
            z1 = (d[2, x] + d[6, x]) * np.int32(4433)
            t2, t3 = z1 - d[6, x] * np.int32(15137), z1 + d[2, x] * np.int32(6270)
            t0, t1 = ((d[0, x] + d[4, x]) << np.int32(13)) + half, ((d[0, x] - d[4, x]) << np.int32(13)) + half
            t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
            t0, t1, t2, t3 = d[7, x], d[5, x], d[3, x], d[1, x]
            z1, z2, z3, z4 = t0 + t3, t1 + t2, t0 + t2, t1 + t3
            z5 = (z3 + z4) * np.int32(9633)
            z1, z2 = z1 * np.int32(-7373), z2 * np.int32(-20995)
            z3, z4 = z3 * np.int32(-16069) + z5, z4 * np.int32(-3196) + z5
            t0, t1 = t0 * np.int32(2446) + z1 + z3, t1 * np.int32(16819) + z2 + z4
            t2, t3 = t2 * np.int32(25172) + z2 + z3, t3 * np.int32(12299) + z1 + z4
            d[0, x], d[7, x] = (t10 + t3) >> shift, (t10 - t3) >> shift
            d[1, x], d[6, x] = (t11 + t2) >> shift, (t11 - t2) >> shift
            d[2, x], d[5, x] = (t12 + t1) >> shift, (t12 - t1) >> shift
            d[3, x], d[4, x] = (t13 + t0) >> shift, (t13 - t0) >> shift

    def lose(plane: np.ndarray, down: int, across: int, table: np.ndarray) -> None:
        for r in range(8):
            for x in range(across):
                steps[r, x] = table[r, x & 7]
        for y in range(0, down, 8):
            for r in range(8):
                for x in range(across):
                    work[0, r, x] = plane[y + r, x] - np.int32(128)
            for axis in range(2):  # along the rows, two bits larger; then the columns; all eight times too large
                turn(work[axis], work[1 - axis], across)
                forward(work[1 - axis], across, 11 + 4 * axis, 2 * axis)
            for r in range(8):
                for x in range(across):
                    value, step = work[0, r, x], steps[r, x]
                    size = np.int32(np.float32(abs(value) + 4 * step) / np.float32(8 * step)) * step
                    work[0, r, x] = size if value >= 0 else -size
            for axis in range(2):
                backward(work[axis], across, 11 + 7 * axis)
                turn(work[axis], work[1 - axis], across)
            for r in range(8):
                for x in range(across):
                    plane[y + r, x] = min(max(work[0, r, x] + np.int32(128), np.int32(0)), np.int32(255))

    for i in range(len(rows)):
        image = images[rows[i]]
        for y in range(tall):
            line = image[min(y, height - 1)]
            for x in range(width):
                r, g, b = np.int32(line[x, 0]), np.int32(line[x, 1]), np.int32(line[x, 2])
                luma[y, x] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
                chroma[0, y, x] = (-11059 * r - 21709 * g + 32768 * b + 8421375) >> 16
                chroma[1, y, x] = (32768 * r - 27439 * g - 5329 * b + 8421375) >> 16
            for x in range(width, wide):
                luma[y, x] = luma[y, width - 1]
                chroma[0, y, x], chroma[1, y, x] = chroma[0, y, width - 1], chroma[1, y, width - 1]
        for c in range(2):
            for y in range(tall // 2):
                above = 2 * min(y, low_height - 1)
                for x in range(wide // 2):
                    total = chroma[c, above, 2 * x] + chroma[c, above, 2 * x + 1]
                    total += chroma[c, above + 1, 2 * x] + chroma[c, above + 1, 2 * x + 1]
                    halved[c, y, x] = (total + 1 + (x & 1)) >> 2
        for p in range(3):
            plane = luma if p == 2 else halved[p]
            down, across = (height, width) if p == 2 else (low_height, low_width)
            lose(plane, (down + 7) // 8 * 8, (across + 7) // 8 * 8, tables[i, 0 if p == 2 else 1])
        for y in range(height):
            mine, other = y // 2, min(max(y // 2 + (1 if y & 1 else -1), 0), low_height - 1)
            for c in range(2):
                if low_width <= 2:  # libjpeg interpolates only what is wider
                    for x in range(low_width):
                        far[c, 2 * x], far[c, 2 * x + 1] = halved[c, mine, x], halved[c, mine, x]
                    continue
                for x in range(low_width):
                    near[c, x] = 3 * halved[c, mine, x] + halved[c, other, x]
                far[c, 0] = (4 * near[c, 0] + 8) >> 4
                for x in range(1, low_width):
                    far[c, 2 * x - 1] = (3 * near[c, x - 1] + near[c, x] + 7) >> 4
                    far[c, 2 * x] = (3 * near[c, x] + near[c, x - 1] + 8) >> 4
                far[c, 2 * low_width - 1] = (4 * near[c, low_width - 1] + 7) >> 4
            for x in range(width):
                grey, blue, red = luma[y, x], far[0, x] - 128, far[1, x] - 128
                image[y, x, 0] = min(max(grey + ((91881 * red + 32768) >> 16), 0), 255)
                image[y, x, 1] = min(max(grey + ((-22554 * blue - 46802 * red + 32768) >> 16), 0), 255)
                image[y, x, 2] = min(max(grey + ((116130 * blue + 32768) >> 16), 0), 255)


class Jpeg(Operator):
    """Compress and decompress, with chroma at half the resolution (4:2:0), as libjpeg and Pillow do."""

    name: Literal["jpeg"] = "jpeg"
    quality: Annotated[tuple[float, float], within(1, 100)] = (30.0, 95.0)
    """libjpeg's quality, whole numbers, both ends included."""

    kernel: ClassVar[Kernel | None] = lose_like_jpeg

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Draw a whole number."""
        low, high = (round(limit) for limit in self.quality)
        return {"quality": low + (words[0] * (high - low + 1)).astype(np.int64)}

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Give the quality."""
        return (parameters["quality"],)

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Let Pillow encode and decode."""
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(arguments[0]), subsampling="4:2:0")
        return np.asarray(Image.open(file))

    def apply(self, images: np.ndarray, rows: np.ndarray, arguments: tuple[np.ndarray, ...]) -> None:
        """Tell the kernel what to divide by."""
        if lose_like_jpeg.function is None:
            super().apply(images, rows, arguments)
        else:
            lose_like_jpeg.function(images, rows, quantisers(arguments[0]))

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Give the quality."""
        return {"quality": parameters["quality"].astype(np.int32)}

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Distort."""
        return graph.fn.jpeg_compression_distortion(images, **feeds)
