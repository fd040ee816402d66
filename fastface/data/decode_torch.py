"""Encoded bytes -> images by libjpeg-turbo in the calling threads: the decoder that runs everywhere."""

from __future__ import annotations

import io
from collections import deque

import numpy as np
import simplejpeg
from PIL import Image
from torch import Tensor

from fastface.data.augment import Draws
from fastface.data.batch import Finisher
from fastface.data.damage import BadImage

# Images decoded before they are turned into planes. Fewer stay nearer in the cache but pass the GIL more often: 0.68 of
# the decode-only rate with 4, 0.71 with 16, 0.78 with 32 (112 x 112, CRC on, two threads on 2 cores, 2026-11-22).
CHUNK = 32


class TorchDecoder:
    """Decode in the calling threads with simplejpeg, which holds no GIL while it works; PNG by Pillow."""

    def __init__(self, size: tuple[int, int], threads: int, finish: Finisher) -> None:
        self.size = size  # (width, height) px
        self.callers = threads
        self.finish = finish
        self._free: deque[np.ndarray] = deque()  # words no call is using; append and pop are atomic

    def __call__(self, blobs: list[np.ndarray], draws: Draws, out: Tensor) -> None:
        """Fill `out`, [B, 3, H, W]. Raises BadImage."""
        try:
            words = self._free.pop()
        except IndexError:
            words = np.empty((CHUNK, self.size[1], self.size[0]), np.uint32)
        images = words.view(np.uint8).reshape(*words.shape, 4)
        with self.finish.target(out) as planes:
            for first in range(0, len(blobs), CHUNK):
                part = blobs[first : first + CHUNK]
                for row, (blob, image) in enumerate(zip(part, images, strict=False), first):
                    decode_into(blob, image, row)
                rows = slice(first, first + len(part))
                self.finish.words(words[: len(part)], draws.flip[rows], planes[rows])
        self._free.append(words)

    def close(self) -> None:
        """Let go of the buffers."""
        self._free.clear()


def decode_into(blob: np.ndarray, image: np.ndarray, row: int = 0) -> None:
    """Decode a JPEG or PNG, uint8 [bytes], into `image`, uint8 [H, W, 4]: RGB and a byte without meaning.

    Raises BadImage.
    """
    try:
        decoded = simplejpeg.decode_jpeg(blob, "RGBX", buffer=image)
    except ValueError as error:
        decoded = _decode_other(blob, image, row, str(error))
    if decoded.shape != image.shape:
        raise BadImage(row, _wrong_size(decoded.shape[1], decoded.shape[0], image))


def _decode_other(blob: np.ndarray, image: np.ndarray, row: int, reason: str) -> np.ndarray:
    """Take what simplejpeg refused: a PNG, a JPEG too large for the buffer, or a damaged file."""
    data = bytes(blob)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as file:
            width, height = file.size
            if (height, width) != image.shape[:2]:
                raise BadImage(row, _wrong_size(width, height, image))
            if file.format == "PNG":
                image[..., :3] = np.asarray(file.convert("RGB"))
                return image
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's names for damage
        if isinstance(error, BadImage):
            raise
        raise BadImage(row, f"it does not decode as JPEG ({reason}) or PNG ({error})") from None
    raise BadImage(row, f"it does not decode: {reason}")


def _wrong_size(width: int, height: int, image: np.ndarray) -> str:
    return f"it has {width}x{height} pixels, not {image.shape[1]}x{image.shape[0]}"
