"""A shard set of live faces and two attacks that can be told apart, for the tests of liveness."""

from pathlib import Path

import numpy as np
from PIL import Image

from fastface.conversion.convert import convert
from fastface.conversion.options import Options

PX = 32


def write_attacks(folder: Path, people: int = 4, images: int = 3, px: int = PX) -> Path:
    """Write train/ and val/ of other people: each picture as it is, as a screen shows it, and as it is printed."""
    for person in range(people + people // 2):
        split = "train" if person < people else "val"
        for number in range(images):
            rng = np.random.default_rng([person, number])
            small = Image.fromarray(rng.integers(60, 196, (4, 4, 3)).astype(np.uint8))
            face = np.asarray(small.resize((px, px), Image.Resampling.BICUBIC)).astype(float)
            down, across = np.mgrid[:px, :px]
            pictures = {
                "live": face,
                "spoof/replay": face + 25 * np.sin(2.2 * across)[..., None],
                "spoof/print": 0.6 * face + 60 + 30 * ((down + across) % 4 == 0)[..., None],
            }
            for where, picture in pictures.items():
                file = folder / "raw" / split / where / f"client{person:03d}_{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file)
    convert(Options("liveness", folder / "raw", folder / "set", shard_size=8, workers=1))
    return folder / "set"
