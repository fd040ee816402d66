"""A face in an image -> the picture that a network sees of it: where it is cut, and the one way it is resampled.

A map is a float64 [2, 3] matrix from px of the image to px of the picture. All coordinates are px from the left
and the top edge: the first pixel covers 0 to 1. (Detectors and the published template count from the centre of
the first pixel, as OpenCV does: half a pixel is added where they come in.)
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

# Where the ArcFace networks expect eyes, nose and mouth corners in 112x112, the viewer's left one first: the
# mean shape of 96x112 pictures in SphereFace (Liu et al. 2017), moved right by 8 px in InsightFace.
TEMPLATE_112 = 0.5 + np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
ALIGNMENTS = {
    "crop": "the box, enlarged by the margin and to the target's aspect",
    "pad": "the box, enlarged by the margin; its aspect is kept, and black fills the rest",
    "five-point": "turned, scaled and moved so that eyes, nose and mouth come to lie on the ArcFace template",
}
MARGIN = 0.25  # of the box's sides, both ends together: of 160 px the box has 128, as in facenet's recipe


def template(size: tuple[int, int]) -> np.ndarray:
    """Return the five points [5, 2] for pictures of size (width, height) px.

    It is that of 112x112 scaled by height / 112 and centred across: for 96x112 that is the one it came from,
    160x160 shows what 112x112 shows.
    """
    width, height = size
    scale = height / 112
    return TEMPLATE_112 * scale + [(width - 112 * scale) / 2, 0]


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the map that turns, scales and moves landmarks [n, 2] nearest to `targets` in squared distance.

    This is Umeyama 1991 (doi 10.1109/34.88573) in the plane and without reflections, where one complex number
    holds turn and scale: the one that least squares gives. ValueError where the points are one point.
    """
    if not np.isfinite(points).all() or np.ptp(points, axis=0).max() < 1e-3:
        raise ValueError(f"landmarks {points.tolist()} do not span a face")
    here, there = (each.astype(np.float64) @ [1, 1j] for each in (points, targets))
    spread = np.abs(here - here.mean()) ** 2
    turn = np.vdot(here - here.mean(), there - there.mean()) / spread.sum()
    move = there.mean() - turn * here.mean()
    return np.array([[turn.real, -turn.imag, move.real], [turn.imag, turn.real, move.imag]])


def enlarged(box: np.ndarray, margin: float, aspect: float | None = None) -> np.ndarray:
    """Enlarge a box [4] about its centre: each side by `margin` of itself, then one to the aspect (width / height)."""
    centre, sides = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * (1 + margin)
    if aspect is not None:
        sides = np.array([max(sides[0], sides[1] * aspect), max(sides[1], sides[0] / aspect)])
    return np.concatenate([centre - sides / 2, centre + sides / 2])


def fitted(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the map that puts a box [4] as large as it fits, aspect kept, into the middle of (width, height)."""
    sides = box[2:] - box[:2]
    scale = min(size[0] / sides[0], size[1] / sides[1])
    move = np.array(size) / 2 - scale * (box[:2] + box[2:]) / 2
    return np.array([[scale, 0, move[0]], [0, scale, move[1]]])


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample uint8 [H, W, 3] by a similarity map to (width, height); black outside the image.

    Enlarging is bilinear interpolation. Shrinking weighs the pixels by a triangle as wide as two pixels of the
    result, as Pillow's BILINEAR resize does, at any angle: the image is interpolated (bicubic) at a whole
    multiple of the result, where nothing shrinks, and that is resized. From eightfold shrinking on, whole
    blocks of pixels are averaged before, a quarter of the triangle's half width at most. Where it interpolates,
    Pillow cuts fractions off: the result is half a grey level dark.
    """
    picture, matrix = Image.fromarray(image), np.array(matrix)
    shrinking = 1 / math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if (block := int(shrinking / 4)) > 1:
        picture, shrinking = picture.reduce(block), shrinking / block
        matrix[:, :2] *= block
    times = max(math.ceil(shrinking - 1e-9), 1)
    back = np.linalg.inv(np.vstack([matrix * times, [0, 0, 1]]))[:2]
    fine = (size[0] * times, size[1] * times)
    how = Image.Resampling.BILINEAR if times == 1 else Image.Resampling.BICUBIC
    picture = picture.transform(fine, Image.Transform.AFFINE, tuple(back.ravel()), how)
    return np.asarray(picture if times == 1 else picture.resize(size, Image.Resampling.BILINEAR))


def shrunk(image: np.ndarray, longest_px: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Shrink an image [H, W, 3] whose longer side is above `longest_px`; return it and the map back to the original."""
    height, width = image.shape[:2]
    scale = 1.0 if longest_px is None else min(longest_px / max(width, height), 1.0)
    if scale < 1:
        size = max(int(width * scale), 1), max(int(height * scale), 1)
        box = (0, 0, min(size[0] / scale, width), min(size[1] / scale, height))  # so that both axes share the scale
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))
    return image, np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
