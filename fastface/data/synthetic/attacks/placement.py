"""Where a flat thing is held -> the map between its plane and the picture, and what a source shows there.

Lengths are in shorter sides of the picture with the origin at its middle, so a placement means the same at any size.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

DISTANCE = 2.5  # of the camera, in shorter sides: about what a phone at arm's length is to a face


@dataclass(frozen=True)
class Placement:
    """A sheet or a screen in front of the camera; angles in degrees. The default fills the picture with it exactly."""

    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0
    roll: float = 0.0
    tilt: float = 0.0
    """About the vertical axis."""
    lean: float = 0.0
    """About the horizontal axis."""
    bend: float = 0.0
    """Curvature: 1 over the radius of the cylinder the sheet lies on, at most 1.2."""
    bend_axis: float = 0.0

    @cached_property
    def homography(self) -> np.ndarray:
        """The plane to the picture without the bend, float64 [3, 3]."""
        (sr, cr), (st, ct), (sl, cl) = (
            (math.sin(math.radians(a)), math.cos(math.radians(a))) for a in (self.roll, self.tilt, self.lean)
        )
        turn = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        tilt = np.array([[ct, 0, st], [0, 1, 0], [-st, 0, ct]])
        lean = np.array([[1, 0, 0], [0, cl, -sl], [0, sl, cl]])
        columns = (lean @ tilt @ turn)[:, :2]
        seen = np.column_stack([columns, [0, 0, DISTANCE]]) * [[self.zoom * DISTANCE], [self.zoom * DISTANCE], [1]]
        return np.array([[1, 0, self.x], [0, 1, self.y], [0, 0, 1]]) @ seen

    def to_plane(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return across and down in the plane, and the angle of the bent sheet's normal, of places in the picture."""
        back = np.linalg.inv(self.homography).astype(np.float32)
        depth = 1 / (back[2, 0] * x + back[2, 1] * y + back[2, 2])
        u = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) * depth
        v = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) * depth
        if not self.bend:
            return u, v, np.zeros_like(u)
        sine, cosine = (f(math.radians(self.bend_axis)) for f in (math.sin, math.cos))
        across, along = u * cosine + v * sine, v * cosine - u * sine
        angle = np.arcsin(np.clip(across * self.bend, -0.99, 0.99))
        across = angle * (1 / self.bend)  # the arc that projects to this chord
        return across * cosine - along * sine, along * cosine + across * sine, angle

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Return where points of the plane, [N, 2], are seen: float64 [N, 2]."""
        u, v = np.asarray(points, np.float64).T
        if self.bend:
            sine, cosine = (f(math.radians(self.bend_axis)) for f in (math.sin, math.cos))
            across, along = u * cosine + v * sine, v * cosine - u * sine
            across = np.sin(across * self.bend) / self.bend
            u, v = across * cosine - along * sine, along * cosine + across * sine
        seen = self.homography @ np.stack([u, v, np.ones_like(u)])
        return (seen[:2] / seen[2]).T

    def moved(self, **changes: float) -> "Placement":
        """Return the placement with amounts added to what is named."""
        return dataclasses.replace(self, **{name: getattr(self, name) + change for name, change in changes.items()})


def grid(shape: tuple[int, int], fine: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the middles of all pixels of a picture [H, W], `fine` x `fine` to a pixel: float32 planes."""
    high, wide = shape
    side = min(shape)
    x = ((np.arange(wide * fine, dtype=np.float32) + 0.5) / fine - wide / 2) / side
    y = ((np.arange(high * fine, dtype=np.float32) + 0.5) / fine - high / 2) / side
    return np.broadcast_to(x, (high * fine, wide * fine)), np.broadcast_to(y[:, None], (high * fine, wide * fine))


def in_plane(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Turn points in px, [N, 2], of a picture [H, W, ...] into places of its plane."""
    high, wide = shape[:2]
    return (np.asarray(points, np.float64) - [wide / 2, high / 2]) / min(high, wide)


def sample(planes: np.ndarray, u: np.ndarray, v: np.ndarray, span: float = 1.0) -> np.ndarray:
    """Look a source, float32 planes [C, h, w], up at places of its plane; mirrored beyond its edges.

    Its shorter side covers `span` shorter sides of the picture: above 1 where more than a picture's worth was drawn.
    """
    num_planes, high, wide = planes.shape
    side = min(high, wide) / span
    column, right = _neighbours(u * side + (wide / 2 - 0.5), wide)
    row, down = _neighbours(v * side + (high / 2 - 0.5), high)
    flat = planes.reshape(num_planes, -1)
    place = row * wide + column
    upper = flat.take(place, axis=1)
    upper += right * (flat.take(place + 1, axis=1) - upper)
    lower = flat.take(place + wide, axis=1)
    lower += right * (flat.take(place + (wide + 1), axis=1) - lower)
    return upper + down * (lower - upper)


def _neighbours(place: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    place = np.abs(place)
    place = np.abs((length - 1) - np.abs((length - 1) - place))  # mirrored, once on either side
    first = np.minimum(place.astype(np.int32), length - 2)
    return first, np.minimum(place - first, 1)


def pooled(planes: np.ndarray, fine: int) -> np.ndarray:
    """Average `fine` x `fine` neighbours: [C, H * fine, W * fine] to [C, H, W]."""
    num_planes, high, wide = planes.shape
    return planes.reshape(num_planes, high // fine, fine, wide // fine, fine).mean(axis=(2, 4))
