"""Identity + Shot -> what stands around the head: background, shoulders, cloth, neck and ears."""

import functools
import math

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.colours import tint
from fastface.data.synthetic.draws import BACKGROUND, generator, uniform
from fastface.data.synthetic.paint import blend, cover, limit, noise, plane_window, ramp, toned
from fastface.data.synthetic.pose import Frame, Pose
from fastface.data.synthetic.shot import Shot


def background(shot: Shot, num_pixels: int) -> np.ndarray:
    """Draw the place behind the head, out of focus: float32 planes [3, n, n] in [0, 1]."""
    return backdrop(generator(shot.seed, shot.identity, shot.image, BACKGROUND), num_pixels)


def backdrop(rng: np.random.Generator, num_pixels: int) -> np.ndarray:
    """Draw any place out of focus: float32 planes [3, n, n] in [0, 1]."""
    half = (num_pixels + 1) // 2  # drawn at half resolution, nobody sees it behind the blur
    level, colourful = uniform(rng, 0.05, 0.95), uniform(rng, 0.0, 0.75) ** 2
    base = level * (1 - colourful * rng.random(3))
    planes = np.empty((3, half, half), np.float32)
    planes[:] = base.astype(np.float32)[:, None, None]
    contrast = uniform(rng, 0.05, 0.30)
    for cells, weight in ((3, 1.0), (6, 0.7), (14, 0.4)):
        grid = (rng.standard_normal((3, cells, cells)) * (contrast * weight)).astype(np.float32)
        grid = 0.22 * grid + 0.78 * grid.mean(axis=0)  # mostly light and dark, less colour
        spread = _spread(half, cells)
        planes += spread @ grid @ spread.T
    _shapes(planes, rng, base)
    limit(planes)
    full = np.empty((3, 2 * half, 2 * half), np.float32)
    full.reshape(3, half, 2, half, 2)[:] = planes[:, :, None, :, None]
    return np.ascontiguousarray(full[:, :num_pixels, :num_pixels])


@functools.lru_cache(maxsize=16)
def _spread(num_pixels: int, cells: int) -> np.ndarray:
    place = (np.arange(num_pixels) + 0.5) / num_pixels * (cells - 1)
    weight = np.exp(-(((place[:, None] - np.arange(cells)) / 0.6) ** 2))
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def _shapes(planes: np.ndarray, rng: np.random.Generator, base: np.ndarray) -> None:
    num_pixels = planes.shape[1]
    axis = (np.arange(num_pixels, dtype=np.float32) + 0.5) / num_pixels
    focus = uniform(rng, 0.015, 0.12)
    for _ in range(int(rng.integers(0, 6))):
        x, y, wide, high, share, level, angle = rng.random(7).tolist()
        colour = tuple((level * (share * base + (1 - share) * rng.random(3))).tolist())
        lean = (0.4 * (angle - 0.5)) * (axis[:, None] - 0.5)
        across = 0.04 + 0.28 * wide - np.abs(axis - x + lean)
        inside = np.minimum(across, 0.05 + 0.6 * high - np.abs(axis - y)[:, None])
        blend(planes, cover(inside, focus), colour)
    if rng.random() < 0.3:  # blinds, bricks, shelves
        angle, waves = uniform(rng, 0, math.pi), uniform(rng, 3, 14) * 2 * math.pi
        stripes = np.sin(waves * (math.cos(angle) * axis + math.sin(angle) * axis[:, None]))
        planes *= 1 + uniform(rng, 0.05, 0.3) * cover(stripes, 0.8)


def paint_body(planes: np.ndarray, shot: Shot, frame: Frame) -> None:
    """Draw shoulders and cloth, in the colours before light."""
    rows = slice(int(np.searchsorted(frame.body_y[:, 0], 1.05)), None)
    x, y = np.abs(frame.body_x[rows]), frame.body_y[rows]
    shoulders = y - 1.36 + 0.24 * ramp(x, 0.15, 0.62) - 0.22 * x * x - 0.5 * ramp(x, 0.8, 1.6)
    tone = 0.92 + 0.16 * noise("cloud", x, y, 50, shot.image) - 0.2 * ramp(x, 0.4, 1.2)
    blend(planes[:, rows], cover(shoulders, 2 * frame.px), toned(shot.cloth, tone))


def paint_neck(planes: np.ndarray, identity: Identity, pose: Pose, frame: Frame) -> None:
    """Draw the neck, shaded by the chin, down to the collar."""
    rows = slice(int(np.searchsorted(frame.body_y[:, 0], 0.45)), None)
    x, y = frame.body_x[rows] + (0.10 * pose.sin_yaw + 0.5 * pose.sin_roll), frame.body_y[rows]
    wide = (0.42 + 0.12 * identity.masculine) * identity.head_width / 0.69
    inside = wide + 0.16 * ramp(y, 0.95, 1.4) - np.abs(x)
    tone = 0.58 + 0.42 * ramp(y, 0.85, 1.35)
    tone *= 1 - 0.3 * (x * (1 / wide)) ** 2
    blend(planes[:, rows], cover(inside, 2 * frame.px), toned(tint(identity.skin, 0.95, 0.90, 0.88), tone))


def paint_ears(planes: np.ndarray, identity: Identity, pose: Pose, frame: Frame) -> None:
    """Draw the two ears; the one the head turns away hides behind it."""
    who = identity
    for side in (-1, 1):
        turned = side * pose.sin_yaw
        high, wide = 0.20 * who.ear_size, (0.075 + who.ear_out) * (1 + 0.7 * max(-turned, 0))
        at = _ear_place(who, pose, side)
        part = plane_window(pose, frame, at, 1.2 * high)
        dx, dy = beside(pose, frame, part, at)
        k = np.sqrt((dx * (1 / wide)) ** 2 + ((dy + 0.3 * dx * side) * (1 / high)) ** 2)
        tone = 0.66 + 0.3 * ramp(k, 0.3, 0.8)
        blend(
            planes[:, part[0], part[1]],
            cover((1 - k) * wide, 2 * frame.px),
            toned(tint(who.skin, 1, 0.9, 0.88), tone),
        )


def beside(
    pose: Pose, frame: Frame, part: tuple[slice, slice], at: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return across and down of a window's pixels from an image-plane point, along the rolled head's axes."""
    centre = pose.place(*at)
    dx = frame.body_x[part] - (centre[0] - pose.centre[0]) / pose.scale
    dy = frame.body_y[part] - (centre[1] - pose.centre[1]) / pose.scale
    return dx * pose.cos_roll + dy * pose.sin_roll, dy * pose.cos_roll - dx * pose.sin_roll


def _ear_place(identity: Identity, pose: Pose, side: int) -> tuple[float, float]:
    # The ears sit at the widest part, a little behind the middle of the head, and so move against the face.
    behind = -0.06 * identity.head_width
    across = side * identity.head_width * (1.01 + 0.3 * identity.ear_out) * pose.cos_yaw + behind * pose.sin_yaw
    depth = behind * pose.cos_yaw - side * identity.head_width * pose.sin_yaw
    return across, 0.14 * pose.cos_pitch - depth * pose.sin_pitch
