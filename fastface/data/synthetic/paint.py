"""Soft masks and small windows -> colour laid over float32 planes."""

import numpy as np

from fastface.data.synthetic.colours import Colour
from fastface.data.synthetic.draws import texture
from fastface.data.synthetic.pose import Frame, Pose


def cover(distance: np.ndarray, width: float) -> np.ndarray:
    """Turn a signed distance (positive inside) into coverage in [0, 1] over an edge `width` wide."""
    mask = distance * (1 / width)
    mask += 0.5
    return limit(mask)


def limit(values: np.ndarray) -> np.ndarray:
    """Clip to [0, 1] in place; np.clip takes a quarter longer on the small windows drawn here."""
    np.maximum(values, 0, out=values)
    return np.minimum(values, 1, out=values)


def ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = value - low
    t *= 1 / (high - low)
    limit(t)
    return t * t * (3 - 2 * t)


def blend(planes: np.ndarray, mask: np.ndarray, colour: Colour | np.ndarray) -> None:
    """Lay `colour` (three numbers or planes [3, h, w]) over `planes` [3, h, w] in place, by `mask` [h, w]."""
    if not isinstance(colour, np.ndarray):
        colour = np.array(colour, np.float32)[:, None, None]
    change = colour - planes
    change *= mask
    planes += change


def shade(planes: np.ndarray, mask: np.ndarray, gain: float) -> None:
    """Multiply `planes` by `gain` in place where `mask` is 1, by a share of it elsewhere."""
    planes *= 1 + mask * (gain - 1)


def toned(colour: Colour, tone: np.ndarray) -> np.ndarray:
    """Spread one colour over planes [3, h, w], scaled by `tone` [h, w]."""
    return np.array(colour, np.float32)[:, None, None] * tone


def noise(kind: str, x: np.ndarray, y: np.ndarray, per_unit: float, offset: int) -> np.ndarray:
    """Look up a tiling texture, `per_unit` texels a head unit; `offset` picks a place in it."""
    place = (y * per_unit + (4096.5 + offset % 64 * 91)).astype(np.int32)
    place <<= 8
    place += (x * per_unit + (4096.5 + offset % 64 * 37)).astype(np.int32) & 255
    place &= 0xFFFF
    return texture(kind).take(place)


class Patch:
    """A window of the face: `x`, `y` around its centre, and the planes under it."""

    def __init__(self, planes: np.ndarray, frame: Frame, window: tuple[slice, slice], at: tuple[float, float]) -> None:
        self.x = frame.x[window] - at[0]
        self.y = frame.y[window] - at[1]
        self.planes = planes[:, window[0], window[1]]
        self.px = frame.px
        self.window = window

    def lay(self, mask: np.ndarray, colour: Colour | np.ndarray) -> None:
        """Blend `colour` in."""
        blend(self.planes, mask, colour)

    def shade(self, mask: np.ndarray, gain: float) -> None:
        """Darken (gain < 1) or brighten."""
        shade(self.planes, mask, gain)


def window(
    pose: Pose, frame: Frame, at: tuple[float, float], reach: tuple[float, float], lift: float = 0.0
) -> tuple[slice, slice]:
    """Return the slices of the grid that hold all within `reach` head units of the surface point `at`."""
    wide = abs(pose.cos_roll) * reach[0] + abs(pose.sin_roll) * reach[1]
    high = abs(pose.sin_roll) * reach[0] + abs(pose.cos_roll) * reach[1]
    # A turned surface shows at most about a third more of itself than its front does.
    return _slices(
        frame,
        pose.size_px,
        pose.project(*at, lift, steps=1),
        (1.35 * wide / frame.px, 1.35 * high / frame.px),
    )


def _slices(frame: Frame, size_px: int, at: tuple[float, float], half: tuple[float, float]) -> tuple[slice, slice]:
    num_pixels = frame.x.shape[0]
    spans = []
    for axis in (1, 0):
        middle = at[axis] * num_pixels / size_px
        first = min(max(int(middle - half[axis] - 1), 0), num_pixels)
        spans.append(slice(first, min(max(int(middle + half[axis] + 2), first), num_pixels)))
    return spans[0], spans[1]


def plane_window(pose: Pose, frame: Frame, at: tuple[float, float], reach: float) -> tuple[slice, slice]:
    """Return the slices within `reach` head units of the image-plane point `at`, given before roll."""
    return _slices(frame, pose.size_px, pose.place(*at), (reach / frame.px + 1, reach / frame.px + 1))


def patch(pose: Pose, frame: Frame, planes: np.ndarray, at: tuple[float, float], reach: tuple[float, float]) -> Patch:
    """Open the window of `planes` around a point of the face."""
    return Patch(planes, frame, window(pose, frame, at, reach), at)


def ellipse(x: np.ndarray, y: np.ndarray, rx: float, ry: float) -> np.ndarray:
    """Return the approximate signed distance to an ellipse around the origin, positive inside."""
    k = np.sqrt((x * (1 / rx)) ** 2 + (y * (1 / ry)) ** 2)
    return (1 - k) * min(rx, ry)


def blob(x: np.ndarray, y: np.ndarray, rx: float, ry: float) -> np.ndarray:
    """Return a bell around the origin: 1 at its middle, 0 from 1.6 radii on (a cheap, compact Gaussian)."""
    k = np.maximum(1 - (x * x) * (1 / (2.56 * rx * rx)) - (y * y) * (1 / (2.56 * ry * ry)), 0)
    return k * k
