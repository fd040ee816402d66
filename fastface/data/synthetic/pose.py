"""Identity + Shot -> Pose: where each point of the head lands in the picture, and what each pixel shows.

The head is a stack of circles: at height y its surface is x = R sin(t), z = R cos(t) + C, where R(y) is the
outline's half width and C(y) pushes the chin forward. Turning by yaw a gives x' = R sin(t + a) + C sin(a),
which can be undone in closed form for every pixel, so a turned head foreshortens its far side as a real one
does. Pitch p slides the surface up or down by sin(p) times a smooth depth that vanishes at the outline: y =
y' + sin(p) Z(x', y'). That stays one-to-one up to 25 degrees, where an exact rotation of the circles would
fold at the chin.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.shot import Shot

TABLE_LOW, TABLE_HIGH, TABLE_SIZE = -1.6, 1.6, 8192  # steps of 0.0004: no bands in the shading


@dataclass(frozen=True)
class Frame:
    """What each pixel of a square grid shows; float32 planes [n, n], lengths in head units."""

    x: np.ndarray
    """Across the head as seen from its front."""
    y: np.ndarray
    """Down the head, crown -1, chin +1."""
    turn: np.ndarray
    """1 - cos(t): 0 at the middle of the face, 1 at the ears, 2 at the back."""
    depth: np.ndarray
    """Towards the camera, after the head's rotation."""
    inside: np.ndarray
    """Distance to the head's outline, positive inside."""
    body_x: np.ndarray
    body_y: np.ndarray
    """The same grid without the head's rotation, for what hangs on the body."""
    px: float
    """Side of a pixel."""


class Pose:
    """The map between head coordinates and the picture, which spans [0, size] on both axes."""

    def __init__(self, identity: Identity, shot: Shot, size_px: int) -> None:
        self.identity, self.size_px = identity, size_px
        self.sin_yaw, self.cos_yaw = _sin_cos(shot.yaw)
        self.sin_pitch, self.cos_pitch = _sin_cos(shot.pitch)
        self.sin_roll, self.cos_roll = _sin_cos(shot.roll)
        self.scale = shot.scale * size_px
        self.centre = (shot.x * size_px, shot.y * size_px)
        self.radius, self.forward, self.polar = _tables(identity)

    def project(self, x: float, y: float, lift: float = 0.0, steps: int = 3) -> tuple[float, float]:
        """Return the place in px of the head's surface at (x, y), raised by `lift` towards its front.

        One step is right to 0.015 head units and enough to place a window, three to 1e-8.
        """
        row = min(max(int((y - TABLE_LOW) * (TABLE_SIZE / (TABLE_HIGH - TABLE_LOW))), 0), TABLE_SIZE - 1)
        front = math.sqrt(max(float(self.radius[row]) ** 2 - x**2, 0.0)) + float(self.forward[row]) + lift
        across = x * self.cos_yaw + front * self.sin_yaw
        return self.place(across, self.lower(across, y, steps) - lift * self.cos_yaw * self.sin_pitch)

    def lower(self, across: float, y: float, steps: int = 3) -> float:
        """Undo the slide of the pitch: where in the image plane the surface point at height `y` appears."""
        wide, down = self.identity.head_width, y
        slide = self.sin_pitch * wide * max(1 - (across / wide) ** 2, 0.0)
        for _ in range(steps):  # Newton
            high = min(abs(down), 1.0)
            slope = -3 * high * high * slide * (1 if down > 0 else -1) if high < 1 else 0.0
            down -= (down + slide * (1 - high**3) - y) / (1 + slope)
        return down

    def outline(self, heights: np.ndarray) -> list[tuple[float, float, float]]:
        """Return (y, half width, forward) of the head at some heights, float [n]."""
        row = _rows(heights)
        return list(zip(heights.tolist(), self.radius[row].tolist(), self.forward[row].tolist(), strict=True))

    def place(self, across: float, down: float) -> tuple[float, float]:
        """Return the place in px of a point of the image plane given in head units, before roll."""
        return (
            self.centre[0] + self.scale * (across * self.cos_roll - down * self.sin_roll),
            self.centre[1] + self.scale * (across * self.sin_roll + down * self.cos_roll),
        )

    def frame(self, num_pixels: int) -> Frame:
        """Undo the projection for every pixel of a [num_pixels, num_pixels] grid over the picture."""
        px = self.size_px / num_pixels / self.scale
        axis = (np.arange(num_pixels, dtype=np.float32) + 0.5) * px
        body_x = np.broadcast_to(axis - self.centre[0] / self.scale, (num_pixels, num_pixels))
        body_y = np.broadcast_to((axis - self.centre[1] / self.scale)[:, None], (num_pixels, num_pixels))
        across = body_x * self.cos_roll + body_y * self.sin_roll
        down = body_y * self.cos_roll - body_x * self.sin_roll
        wide = self.identity.head_width
        high = np.minimum(np.abs(down), 1)
        high *= high * high
        level = np.maximum(1 - (across * (1 / wide)) ** 2, 0)
        y = down + (self.sin_pitch * wide) * (level * (1 - high))
        row = _rows(y)
        radius, forward = self.radius.take(row), self.forward.take(row)
        centred = across - forward * self.sin_yaw
        sine = np.minimum(np.maximum(centred / radius, -1), 1)
        cosine = np.sqrt(1 - sine * sine)
        depth = radius * cosine + forward * self.cos_yaw + y * self.sin_pitch
        x = radius * (sine * self.cos_yaw - cosine * self.sin_yaw)
        turn = 1 - (cosine * self.cos_yaw + sine * self.sin_yaw)
        angle = y / (np.abs(centred) + np.abs(y) + 1e-6)  # a monotonic stand-in for atan2, 10 times cheaper
        outline = self.polar.take(((angle + 1) * (TABLE_SIZE / 2 - 0.5)).astype(np.int32))
        inside = outline - np.sqrt(centred * centred + y * y)
        return Frame(x, y, turn, depth, inside, body_x, body_y, px)


def half_width(identity: Identity, y: np.ndarray) -> np.ndarray:
    """Return the outline's half width at each height y in (-1, 1), float [n]."""
    t = np.arcsin(np.clip(y, -1, 1))

    def bump(centre: float, spread: float) -> np.ndarray:
        return np.exp(-(((t - centre) / spread) ** 2))

    form = 1 + identity.temple * bump(-0.45, 0.35) + identity.cheekbone * bump(0.12, 0.28)
    form += (identity.jaw - 0.02) * bump(0.72, 0.24) + (identity.chin - 0.13) * bump(1.22, 0.26)
    form += identity.crown * bump(-1.05, 0.4)
    return identity.head_width * form * np.maximum(1 - y * y, 0) ** np.where(y < 0, 0.37, 0.45)


def _sin_cos(degrees: float) -> tuple[float, float]:
    return math.sin(math.radians(degrees)), math.cos(math.radians(degrees))


def _rows(y: np.ndarray) -> np.ndarray:
    place = (y - TABLE_LOW) * (TABLE_SIZE / (TABLE_HIGH - TABLE_LOW))
    return np.minimum(np.maximum(place, 0), TABLE_SIZE - 1).astype(np.int32)


@functools.lru_cache(maxsize=16)
def _tables(identity: Identity) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = TABLE_LOW + (np.arange(TABLE_SIZE) + 0.5) * ((TABLE_HIGH - TABLE_LOW) / TABLE_SIZE)
    # Floors keep the map smooth where the circles shrink to a point; the outline comes from `polar`.
    radius = np.maximum(half_width(identity, y), np.where(y < 0, 0.3, 0.1))
    front = identity.head_width * np.sqrt(np.maximum(1 - np.abs(y) ** 6, 0))
    forward = np.maximum(front - radius, 0) * np.where(y < 0, 0.3, 0.8)
    rim = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 721))
    width = half_width(identity, rim)
    angle = rim / (np.abs(width) + np.abs(rim))
    polar = np.interp(np.linspace(-1, 1, TABLE_SIZE), angle, np.hypot(width, rim))
    return radius.astype(np.float32), forward.astype(np.float32), polar.astype(np.float32)
