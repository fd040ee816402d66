"""What a sheet or a screen shows -> it in a room: border, edge, shadow, fingers, light and reflections."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from fastface.data.synthetic.attacks.placement import Placement, grid
from fastface.data.synthetic.attacks.recapture import light_over
from fastface.data.synthetic.colours import SKIN, Colour, along
from fastface.data.synthetic.draws import chance, uniform
from fastface.data.synthetic.paint import blend, cover, ramp
from fastface.data.synthetic.scene import backdrop

FAR = 9.0  # an edge that is never in the picture


@dataclass(frozen=True)
class Edges:
    """Where the shown picture ends (in the plane: left, top, right, bottom) and what is around it."""

    left: float
    top: float
    right: float
    bottom: float
    border: float
    """Width of the margin or the bezel."""
    colour: Colour


@dataclass(frozen=True)
class Room:
    """What is the same in all pictures taken of one sheet at one place."""

    behind: np.ndarray
    """float32 planes [3, n, n]: out of focus."""
    edges: Edges
    slope: float
    slope_angle: float
    glare: float
    """Brightness of a reflection."""
    glare_place: tuple[float, float]
    glare_size: tuple[float, float]
    glare_angle: float
    fingers: tuple[tuple[int, float, float], ...]
    """(side of the sheet, place along it, length) of each that holds it."""
    skin: Colour


def draw_edges(
    rng: np.random.Generator, shape: tuple[int, int], borders: tuple[float, float], colour: Colour, seen: float
) -> Edges:
    """Draw which edges are in the picture, any with probability `seen`; a border is between two widths."""
    any_seen = chance(rng, seen)
    half = [shape[1] / min(shape) / 2, shape[0] / min(shape) / 2] * 2
    insets = [uniform(rng, -0.02, 0.085) if chance(rng, 0.5) else -FAR for _ in range(4)]
    ends = [length - inset if any_seen else FAR for length, inset in zip(half, insets, strict=True)]
    return Edges(-ends[0], -ends[1], ends[2], ends[3], uniform(rng, *borders), colour)


def ending_with(shape: tuple[int, ...], edges: Edges) -> Edges:
    """Return the edges moved to where they show nothing beyond a source [h, w]."""
    across, down = (length / min(shape) / 2 for length in (shape[1], shape[0]))
    return dataclasses.replace(
        edges,
        left=max(edges.left, -across),
        top=max(edges.top, -down),
        right=min(edges.right, across),
        bottom=min(edges.bottom, down),
    )


def draw_room(rng: np.random.Generator, shape: tuple[int, int], edges: Edges, gloss: float) -> Room:
    """Draw the light, the background and who holds the sheet; `gloss` scales how often and how strongly it shines."""
    shown = [k for k, end in enumerate((edges.left, edges.top, edges.right, edges.bottom)) if abs(end) < FAR]
    holds = [side for side in shown if chance(rng, 0.35)]
    return Room(
        behind=backdrop(rng, max(shape)),
        edges=edges,
        slope=uniform(rng, 0.0, 0.35),
        slope_angle=uniform(rng, 0, 2 * math.pi),
        glare=gloss * uniform(rng, 0.15, 0.6) if chance(rng, min(0.2 + gloss * 0.5, 0.9)) else 0.0,
        glare_place=(uniform(rng, -0.45, 0.45), uniform(rng, -0.45, 0.45)),
        glare_size=(uniform(rng, 0.05, 0.14), uniform(rng, 0.12, 0.5)),
        glare_angle=uniform(rng, 0, math.pi),
        fingers=tuple((side, uniform(rng, -0.35, 0.35), uniform(rng, 0.07, 0.13)) for side in holds),
        skin=along(SKIN, uniform(rng, 0, 1)),
    )


def in_room(shown: np.ndarray, placement: Placement, room: Room) -> np.ndarray:
    """Compose what the sheet shows, float32 planes [3, H, W] as the camera sees them, with all around it."""
    shape = (shown.shape[1], shown.shape[2])
    side, edges = min(shape), room.edges
    u, v, _ = placement.to_plane(*grid(shape))
    px = 1.5 / side
    top, left = ((max(shape) - length) // 2 for length in shape)
    scene = room.behind[:, top : top + shape[0], left : left + shape[1]].copy()
    inside = np.minimum(
        np.minimum(u - edges.left, edges.right - u), np.minimum(v - edges.top, edges.bottom - v)
    )  # distance to the end of the shown picture, positive inside
    scene *= 1 - 0.35 * ramp(inside, -edges.border - 0.06, -edges.border)  # the shadow it throws
    blend(scene, cover(inside + edges.border, px), edges.colour)
    blend(scene, cover(inside, px), shown)
    scene *= light_over(shape, room.slope, room.slope_angle)
    if room.glare:
        sine, cosine = math.sin(room.glare_angle), math.cos(room.glare_angle)
        du, dv = u - room.glare_place[0], v - room.glare_place[1]
        across, down = du * cosine + dv * sine, dv * cosine - du * sine
        spot = np.maximum(1 - (across / room.glare_size[0]) ** 2 - (down / room.glare_size[1]) ** 2, 0)
        scene += room.glare * spot * spot * cover(inside + edges.border, px)
    for finger in room.fingers:
        _hold(scene, u, v, room, finger, px)
    return scene


def _hold(
    scene: np.ndarray, u: np.ndarray, v: np.ndarray, room: Room, finger: tuple[int, float, float], px: float
) -> None:
    where, place, length = finger
    edges = room.edges
    end = (edges.left, edges.top, edges.right, edges.bottom)[where] + edges.border * (-1 if where < 2 else 1)
    inward, beside = ((end - u, v), (end - v, u))[where % 2]
    inward = -inward if where < 2 else inward  # how far over the sheet
    across = (beside - place) * (1 / 0.042)
    tip = (inward - length * 0.2) * (1 / (0.8 * length))
    reach = np.sqrt(across * across + np.maximum(tip, 0) ** 2)
    tone = 0.92 - 0.38 * np.minimum(across * across, 1)
    nail = cover(0.5 - np.sqrt((across * 1.5) ** 2 + ((tip - 0.5) * 2.2) ** 2), 0.2)
    colour = np.asarray(room.skin, np.float32)[:, None, None] * (tone + 0.12 * nail)
    blend(scene, 0.45 * cover(1.25 - reach, 0.3), (0.1, 0.08, 0.08))
    blend(scene, cover((1 - reach) * 0.042, px), colour)
