"""Natural-looking images for tests of augmentation: real ones where the machine has them, else drawn."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import simplejpeg

from fastface.data.augment import Draws
from fastface.data.augment.draw import draw_operator
from fastface.data.augment.operator import Operator
from fastface.data.augment.presets import OPERATORS
from fastface.data.plan import slot_keys

# What the YAML calls by other numbers than p: extremes of the ranges, and what defaults leave out.
VARIANTS = {
    "crop_pad": [{"area": (0.01, 0.1)}],
    "random_resized_crop": [{"area": (0.1, 1.0), "ratio": (0.3, 3.0)}],
    "affine": [{"angle_degrees": (-180.0, 180.0), "scale": (0.3, 3.0), "shift": (-0.5, 0.5), "aspect": (0.5, 2.0)}],
    "low_resolution": [{"side": (0.02, 1.0)}],
    "gaussian_blur": [{"sigma_px": (0.05, 8.0)}],
    "motion_blur": [{"length_px": (1.0, 20.0)}],
    "jpeg": [{"quality": (1.0, 100.0)}],
    "colour": [
        {"brightness": (0.1, 2.0), "contrast": (0.1, 2.0), "saturation": (0.0, 2.0), "hue_degrees": (-180.0, 180.0)}
    ],
    "gamma": [{"gamma": (0.1, 10.0)}],
    "noise": [{"sigma": (0.0, 60.0)}],
    "erase": [{"area": (0.001, 1.0), "ratio": (0.1, 10.0)}],
    "cutout": [{"holes": 7, "side": (0.01, 1.0)}],
}


def every_operator(p: float) -> list[Operator]:
    """Build every operator with its defaults and with its variants."""
    return [kind(p=p, **options) for name, kind in OPERATORS.items() for options in [{}, *VARIANTS.get(name, [])]]  # type: ignore[call-arg]


def photographs(count: int, height: int, width: int) -> np.ndarray:
    """Give uint8 [count, height, width, 3]: faces of LFW where FASTFACE_TEST_DATA has them, else drawn scenes."""
    folder = os.environ.get("FASTFACE_TEST_DATA")
    if folder and height <= 112 and width <= 112:
        with tarfile.open(Path(folder) / "lfw112" / "images.tar") as archive:
            images = []
            for member in archive:
                if member.name.endswith(".jpg"):
                    file = archive.extractfile(member)
                    assert file
                    images.append(simplejpeg.decode_jpeg(file.read())[:height, :width])
                if len(images) == count:
                    return np.ascontiguousarray(np.stack(images))
    return np.stack([scene(seed, height, width) for seed in range(count)])


def scene(seed: int, height: int, width: int) -> np.ndarray:
    """Draw light, edges, texture and a dark and a bright corner: what photographs have, and what is hard."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = np.stack([np.sin(rng.uniform(1, 6) * x + rng.uniform(1, 6) * y + rng.uniform(0, 6)) for _ in range(3)], 2)
    image = 120 + 60 * image
    for _ in range(6):
        inside = ((x - rng.uniform()) / rng.uniform(0.05, 0.4)) ** 2 + (
            (y - rng.uniform()) / rng.uniform(0.05, 0.4)
        ) ** 2
        image[inside < 1] = 0.4 * image[inside < 1] + rng.uniform(0, 150, 3)
    image += rng.normal(0, 4, image.shape) + 140 * (x * y)[..., None] - 90 * ((1 - x) * (1 - y))[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def draws_of(*operators: Operator, rows: int, seed: int = 0) -> Draws:
    """Draw for `rows` rows; a third of them is mirrored."""
    keys = slot_keys(seed, 1, rows)
    return Draws(np.arange(rows) % 3 == 1, tuple(draw_operator(operator, keys) for operator in operators))
