"""Small folders of live and spoof pictures from several sources, drawn with numpy, that tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from tests.data.tiny import picture


def draw(seed: int, attack: str, side: int = 24) -> np.ndarray:
    """Draw a picture, uint8 [side, side, 3]: prints have stripes down, replays stripes across."""
    image = picture(seed, side, side).astype(np.int64)
    stripes = np.where(np.arange(side) // 2 % 2, 60, -60)
    if attack == "print":
        image += stripes[:, None]
    if attack == "replay":
        image += stripes[:, None, None]
    return np.clip(image, 0, 255).astype(np.uint8)


def write_sources(
    folder: Path,
    sources: Sequence[str] = ("A", "B", "C"),
    subjects: int = 4,
    images: int = 2,
    side: int = 24,
    known: bool = True,
) -> Path:
    """Write SOURCE/real and SOURCE/fake; every subject has `images` live, printed and replayed pictures."""
    for s, source in enumerate(sources):
        for subject in range(subjects):
            for number in range(images):
                for k, attack in enumerate(("none", "print", "replay")):
                    place = folder / source / ("real" if attack == "none" else "fake")
                    place.mkdir(parents=True, exist_ok=True)
                    kind = "" if attack == "none" else f"{attack}_"
                    who = f"client{subject:03d}" if known else f"x{chr(97 + subject)}"
                    image = draw(10_000 * s + 100 * subject + 10 * number + k, attack, side + s)
                    Image.fromarray(image).save(place / f"{kind}{who}_{number}.png")
    return folder


def attack_set(folder: Path, size: int | None = None, **options: Any) -> Index:
    """Convert such a folder and open it."""
    raw = write_sources(folder / "raw", **options)
    spec = ImageSpec(size=None if size is None else (size, size), lossless=True)
    convert(Options("liveness", raw, folder / "set", spec, shard_size=11, workers=1))
    return Index.open(folder / "set")
