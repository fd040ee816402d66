"""A small shard set drawn with numpy, for tests that need real JPEGs but nobody's face."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from fastface.conversion.convert import Options, convert
from fastface.data.images import ImageSpec
from fastface.data.index import Index

WIDTH, HEIGHT = 24, 16  # not square, so that a swap of the two shows


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Draw smooth colours with some noise, uint8 [H, W, 3]; mirrored it is another picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(rng.uniform(1, 9) * x + rng.uniform(1, 9) * y + rng.uniform(0, 6)) for _ in range(3)]
    return np.clip(127 + 90 * np.stack(waves, 2) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def encode(image: np.ndarray, kind: str = "420") -> bytes:
    """Encode as JPEG with this chroma subsampling, as a grey JPEG ("gray"), or as PNG ("png")."""
    if kind == "png":
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return file.getvalue()
    if kind == "gray":
        return simplejpeg.encode_jpeg(np.ascontiguousarray(image[..., :1]), 95, "GRAY", "GRAY")
    return simplejpeg.encode_jpeg(image, 95, colorsubsampling=kind)


def make_shards(folder: Path, people: int = 5, images: int = 8, lossless: bool = False) -> Index:
    """Draw people * images pictures (JPEGs of several kinds, some grey), convert them, open the index."""
    kinds = ["420", "444", "422", "gray"]
    for person in range(people):
        place = folder / "raw" / f"person {person}"
        place.mkdir(parents=True)
        for number in range(images):
            image = picture(100 * person + number)
            kind = "png" if lossless else kinds[(person + number) % 4]
            name = f"{number:03d}.{'png' if lossless else 'jpg'}"
            (place / name).write_bytes(encode(image, kind))
    spec = ImageSpec(lossless=lossless)
    convert(Options("folder", folder / "raw", folder / "shards", spec, shard_size=13, workers=1))
    return Index.open(folder / "shards")
