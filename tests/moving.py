"""Tiny clips for tests: squares that move or stand still, of which a single frame tells nothing."""

from pathlib import Path

import numpy as np
from PIL import Image

from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.images import ImageSpec


def write_frames(folder: Path, clip: int, *, moves: bool, frames: int = 8, side: int = 32, seed: int = 0) -> Path:
    """Write a folder of frames: a square 8 px wide on a ground of the clip's own colours, at an own place."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, clip])
    ground, square = rng.integers(40, 100, 3), rng.integers(150, 220, 3)
    y, x = rng.integers(0, side - 8, 2)
    step = int(rng.choice([-1, 1]) * rng.integers(2, 4)) if moves else 0
    for number in range(frames):
        picture = np.empty((side, side, 3), np.int64)
        picture[:] = ground
        picture[y : y + 8, np.arange(x, x + 8) % side] = square
        picture += rng.integers(-3, 4, picture.shape)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number:03d}.png")
        x += step
    return folder


def write_clips(folder: Path, clips: int = 12, *, frames: int = 8, first: int = 0, fps: float = 10.0) -> Path:
    """Make a shard set of `clips` clips of each of live, which move, and spoof, which do not; ten frames a second."""
    for number in range(first, first + clips):
        write_frames(folder / "raw" / "live" / f"{number:03d}", number, moves=True, frames=frames)
        write_frames(folder / "raw" / "spoof" / f"{number:03d}", number, moves=False, frames=frames)
    convert(
        Options(
            "video", folder / "raw", folder / "set", shard_size=64, workers=1, fps=fps, spec=ImageSpec(lossless=True)
        )
    )
    return folder / "set"
