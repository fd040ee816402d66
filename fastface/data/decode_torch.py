"""Encoded bytes -> images by libjpeg-turbo in the calling threads: the decoder that runs everywhere."""

from __future__ import annotations

import io
from collections import deque

import numpy as np
import simplejpeg
from PIL import Image
from torch import Tensor

from fastface.data.augment import Draws, HostWork
from fastface.data.augment.resample import centred, resize_into
from fastface.data.batch import Finisher
from fastface.data.damage import BadImage

# Images decoded before they are turned into planes. Fewer stay nearer in the cache but pass the GIL more often: 0.68 of
# the decode-only rate with 4, 0.71 with 16, 0.78 with 32 (112 x 112, CRC on, two threads on 2 cores, 2026-11-22).
CHUNK = 32


class TorchDecoder:
    """Decode in the calling threads with simplejpeg, which holds no GIL while it works; PNG by Pillow."""

    def __init__(self, size: tuple[int, int], resize: bool, threads: int, finish: Finisher) -> None:
        self.size = size  # (width, height) px
        self.decode = decode_resized if resize else decode_into
        self.callers = threads
        self.finish = finish
        self._free: deque[np.ndarray] = deque()  # words no call is using; append and pop are atomic

    def __call__(self, blobs: list[np.ndarray], draws: Draws, out: Tensor) -> None:
        """Fill `out`, [B, 3, H, W]. Raises BadImage."""
        try:
            words = self._free.pop()
        except IndexError:
            words = unaligned_words(CHUNK, self.size)
        images = words.view(np.uint8).reshape(*words.shape, 4)
        work = HostWork(draws, self.size[1], self.size[0]) if draws.operators else None
        straight = work is None and out.shape[2:] == words.shape[1:]
        pixels = None if straight else np.empty((*words.shape, 3), np.uint8)
        with self.finish.target(out) as planes:
            for first in range(0, len(blobs), CHUNK):
                part = blobs[first : first + CHUNK]
                for row, (blob, image) in enumerate(zip(part, images, strict=False), first):
                    self.decode(blob, image, row)
                rows = slice(first, first + len(part))
                if pixels is None:
                    self.finish.words(words[: len(part)], draws.flip[rows], planes[rows])
                    continue
                self.finish.kernels.pixels_of_words(words[: len(part)], pixels[: len(part)])
                if work is not None:
                    work.apply(pixels[: len(part)], first)
                self.finish.pixels(pixels[: len(part)], draws.flip[rows], planes[rows])
        self._free.append(words)

    def close(self) -> None:
        """Let go of the buffers."""
        self._free.clear()


def unaligned_words(count: int, size: tuple[int, int]) -> np.ndarray:
    """Return uint32 [count, H, W] whose address is 4 modulo 32.

    libjpeg-turbo writes rows that begin at a multiple of 32 past the cache, and whoever reads the pixels next waits for
    the memory: 112 x 112 px take 78 or 121 us, anywhere else 71 (2 cores, 2026-11-24).
    """
    memory = np.empty(4 * count * size[0] * size[1] + 32, np.uint8)
    start = (4 - memory.ctypes.data) % 32
    return memory[start : start + 4 * count * size[0] * size[1]].view(np.uint32).reshape(count, size[1], size[0])


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


def decode_resized(blob: np.ndarray, image: np.ndarray, row: int = 0) -> None:
    """Decode an image of any size, cut its centre to the aspect of `image` and resize, as `decode_into`."""
    try:
        decoded = simplejpeg.decode_jpeg(blob)
    except ValueError as error:
        try:
            with Image.open(io.BytesIO(bytes(blob)), formats=["PNG"]) as file:
                decoded = np.array(file.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as other:  # Pillow's names for damage
            raise BadImage(row, f"it does not decode as JPEG ({error}) or PNG ({other})") from None
    resized = np.empty((*image.shape[:2], 3), np.uint8)
    resize_into(decoded, resized, part=centred(decoded, *image.shape[:2]))
    image[..., :3] = resized


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
