"""A picture and a person behind it -> a print with eyes cut out, a face cut out of paper, or a rigid mask, worn.

The wearer's own eyes show through holes, where the wearer's eyes are: a print blinks.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from fastface.data.synthetic.attacks.placement import Placement, grid, sample
from fastface.data.synthetic.draws import uniform
from fastface.data.synthetic.paint import blend, cover, ellipse, limit


@dataclass(frozen=True)
class Cut:
    """How a face is cut out, and where its eye holes are: lengths in distances of the eyes."""

    wide: float
    high: float
    centre: float
    """How far below the eyes."""
    ripple: float
    """Unsteadiness of the scissors."""
    waves: int
    hole_wide: float
    hole_high: float
    rim: float
    """Width of the edge of the paper or the mask."""


def draw_cut(rng: np.random.Generator) -> Cut:
    """Draw one pair of scissors."""
    return Cut(
        wide=uniform(rng, 1.02, 1.2),
        high=uniform(rng, 1.3, 1.48),
        centre=uniform(rng, 0.32, 0.45),
        ripple=uniform(rng, 0.0, 0.03),
        waves=int(rng.integers(3, 9)),
        hole_wide=uniform(rng, 0.27, 0.36),
        hole_high=uniform(rng, 0.13, 0.19),
        rim=uniform(rng, 0.008, 0.03),
    )


def onto(eyes: np.ndarray, wanted: np.ndarray) -> Placement:
    """Place a source so that its two eyes, [2, 2] in its plane, are seen where two others are."""
    own, other = eyes[1] - eyes[0], wanted[1] - wanted[0]
    zoom = math.hypot(*other) / math.hypot(*own)
    roll = math.atan2(other[1], other[0]) - math.atan2(own[1], own[0])
    turned = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]]) * zoom
    x, y = wanted.mean(axis=0) - turned @ eyes.mean(axis=0)
    return Placement(x=float(x), y=float(y), zoom=zoom, roll=math.degrees(roll))


def on_face(u: np.ndarray, v: np.ndarray, eyes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn places of the plane into across and down from the middle of the eyes, in distances of the eyes."""
    axis = eyes[1] - eyes[0]
    apart = float(math.hypot(*axis))
    cosine, sine = (axis / apart**2).tolist()
    du, dv = u - float(eyes[:, 0].mean()), v - float(eyes[:, 1].mean())
    return du * cosine + dv * sine, dv * cosine - du * sine


def through_holes(
    scene: np.ndarray, wearer: np.ndarray, across: np.ndarray, down: np.ndarray, cut: Cut, rim: tuple[float, ...]
) -> None:
    """Open the two eye holes in `scene`, float32 planes [3, H, W], onto the wearer, in place; `rim` is a colour."""
    px = 1.5 * float(np.abs(across[0, 1] - across[0, 0]) + np.abs(down[0, 1] - down[0, 0]))
    hole = ellipse(np.abs(across) - 0.5, down, cut.hole_wide, cut.hole_high)
    blend(scene, 0.8 * cover(hole + cut.rim, px), np.asarray(rim, np.float32)[:, None, None])
    deep = 1 - 0.45 * limit((-down + 0.3 * cut.hole_high) * (1 / cut.hole_high))  # the upper rim throws a shadow
    blend(scene, cover(hole, px), wearer * deep)


def around(
    scene: np.ndarray, layer: np.ndarray, across: np.ndarray, down: np.ndarray, cut: Cut, rim: tuple[float, ...]
) -> None:
    """Lay the cut out face, float32 planes [3, H, W], over the wearer's picture in place, with edge and shadow."""
    px = 1.5 * float(np.abs(across[0, 1] - across[0, 0]) + np.abs(down[0, 1] - down[0, 0]))
    below = down - cut.centre
    angle = np.arctan2(below, across)
    ripple = cut.ripple * (np.sin(cut.waves * angle) + 0.5 * np.sin((2 * cut.waves + 1) * angle + 1))
    narrow = 1 - 0.16 * limit(below * (1 / cut.high))  # a chin is narrower than a forehead
    inside = ellipse(across * (1 / narrow), below, cut.wide, cut.high) + ripple
    scene *= 1 - 0.5 * cover(inside + 0.08, 0.18)
    blend(scene, cover(inside, px), np.asarray(rim, np.float32)[:, None, None])
    blend(scene, cover(inside - cut.rim, px), layer)


@dataclass(frozen=True)
class Mask:
    """What a mask is made of."""

    smooth: float
    """Sigma of what the cast loses, in distances of the eyes."""
    steps: int
    """Shades the paint is mixed in."""
    paint: tuple[float, float, float]
    pale: float
    """Share of `paint` in every colour."""
    shine: float
    shine_size: float
    light: float
    """Depth of the shading of the rigid form."""


def draw_mask(rng: np.random.Generator, shiny: bool) -> Mask:
    """Draw one mask: of glossy plastic, or of matt resin."""
    return Mask(
        smooth=uniform(rng, 0.05, 0.09) if shiny else uniform(rng, 0.04, 0.07),
        steps=int(rng.integers(7, 13)) if shiny else int(rng.integers(12, 24)),
        paint=(uniform(rng, 0.72, 0.9), uniform(rng, 0.55, 0.7), uniform(rng, 0.42, 0.6)),
        pale=uniform(rng, 0.15, 0.35) if shiny else uniform(rng, 0.05, 0.2),
        shine=uniform(rng, 0.35, 0.7) if shiny else uniform(rng, 0.0, 0.12),
        shine_size=uniform(rng, 0.12, 0.25),
        light=uniform(rng, 0.2, 0.45),
    )


def moulded(
    source: np.ndarray, mask: Mask, placement: Placement, eyes: np.ndarray, shape: tuple[int, int], side: float
) -> np.ndarray:
    """Return the mask as the camera sees it: float32 planes [3, H, W] of a source's planes [3, h, w] in [0, 1].

    `eyes` are in its plane, `side` is where the light comes from, -1 (the picture's left) to 1.
    """
    apart = float(math.hypot(*(eyes[1] - eyes[0])))
    sigma = mask.smooth * apart * min(source.shape[1:])
    base = gaussian_filter(source, (0, sigma, sigma), truncate=2.5)
    detail = gaussian_filter(source, (0, 0.3 * sigma, 0.3 * sigma), truncate=2.5) - base
    painted = base + np.where(np.abs(detail) > 0.06, detail, 0.3 * detail)  # features are painted on, pores are not
    u, v, _ = placement.to_plane(*grid(shape))
    planes = sample(painted.astype(np.float32), u, v)
    planes = np.round(planes * mask.steps) * (0.5 / mask.steps) + 0.5 * planes
    planes += mask.pale * (np.asarray(mask.paint, np.float32)[:, None, None] - planes)
    across, down = on_face(u, v, eyes)
    slope, fall = across * (1 / 1.1), (down - 0.4) * (1 / 1.4)
    front = np.sqrt(np.maximum(1 - slope * slope - fall * fall, 0.02))
    planes *= 1 - mask.light + mask.light * (0.75 * front + 0.4 * side * slope - 0.25 * fall + 0.35)
    for place in ((0.15 * side, -0.6), (0.06 * side, 0.45), (0.55 * side, 0.35), (0.1 * side, 1.45)):
        dx, dy = (across - place[0]) * (1 / mask.shine_size), (down - place[1]) * (1 / (0.8 * mask.shine_size))
        spot = np.maximum(1 - dx * dx - dy * dy, 0)
        planes += (mask.shine * 0.8) * spot * spot
    return planes
