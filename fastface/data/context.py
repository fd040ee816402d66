"""A face box and a scale -> the part of an image that a liveness network sees: the face and what surrounds it.

The edge of a print or of a screen, a hand that holds it: much of what tells an attack lies around the face.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from PIL import Image

_TEXT = re.compile(r"context-(\d+(?:\.\d+)?)(-stretched)?")


class Context(NamedTuple):
    """How much of the surroundings is cut out, and in which shape; as text it is what meta.json and cards remember."""

    scale: float  # sides of the part, in sides of the box
    stretched: bool = False  # the part has the box's shape and is stretched to the target; else it has the target's

    def __str__(self) -> str:
        return f"context-{self.scale:g}" + ("-stretched" if self.stretched else "")

    @classmethod
    def parse(cls, text: float | str | None) -> Context | None:
        """Read the `crop` of a card or of a meta.json; None where it is no context crop."""
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        return None if found is None else cls(float(found[1]), found[2] is not None)


def context_box(size: tuple[int, int], box: np.ndarray, context: Context, aspect: float = 1.0) -> np.ndarray:
    """Return the part (int64 [4], left top right bottom px, the right and bottom edge outside) around a box [4].

    size: (width, height) of the image. The box grows about its centre to `aspect` (width / height of the target;
    not where the context is stretched), then to `scale` times that. Where this is wider or higher than the image the
    scale shrinks until it fits, and where it reaches over an edge it moves inside: so does MiniFASNet's CropImage
    (github.com/minivision-ai/Silent-Face-Anti-Spoofing, src/generate_patches.py), whose part has the box's shape and
    is stretched to 80x80: `stretched` gives the very pixels that its public weights were trained on. Every pixel is
    one of the image: padding would tell a network how near the face was to the edge, which faces close to a camera
    and held pictures differ in. The price: near an edge the face is not in the middle, and of a face that fills the
    image less surroundings are seen.

    Raises ValueError where the box has no area.
    """
    sides = np.array(box[2:] - box[:2], np.float64)
    centre = sides / 2 + box[:2]
    if not (np.isfinite(box).all() and (sides > 0).all()):
        raise ValueError(f"the box {box.tolist()} of the face must have x0 < x1 and y0 < y1")
    if not context.stretched:
        sides = np.array([max(sides[0], sides[1] * aspect), max(sides[1], sides[0] / aspect)])
    last = np.array(size) - 1.0  # the last pixel, as CropImage counts
    sides = sides * min(context.scale, *(last / sides))
    near, far = centre - sides / 2, centre + sides / 2
    near, far = np.maximum(near, 0), far - np.minimum(near, 0)
    near, far = near - np.maximum(far - last, 0), np.minimum(far, last)
    if context.stretched:  # cut off step by step as CropImage does, whose roundings decide at whole pixels
        return np.concatenate([near.astype(np.int64), far.astype(np.int64) + 1])
    first = (near + 1e-9).astype(np.int64)
    end = first + (sides + 1e-9).astype(np.int64) + 1
    return np.concatenate([first, np.minimum(end, size)])


def cut_context(
    image: np.ndarray, box: np.ndarray, context: Context, size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a face with its surroundings out of uint8 [H, W, 3]; return the picture and which part it shows (int64 [4]).

    size: (width, height) of the picture; None keeps the pixels as they are, in a square (or in the box's shape).
    Pixels are resampled by Pillow's BILINEAR, which averages where it shrinks. Raises ValueError as context_box does.
    """
    part = context_box(image.shape[1::-1], box, context, 1.0 if size is None else size[0] / size[1])
    left, top, right, bottom = part.tolist()
    picture = np.ascontiguousarray(image[top:bottom, left:right])
    if size is not None and size != (right - left, bottom - top):
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    return picture, part
