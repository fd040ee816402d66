"""A picture and the name of an attack -> the attack, photographed; the same picture live, photographed alike."""

from typing import NamedTuple

import numpy as np

from fastface.data.synthetic.attacks.placement import Placement
from fastface.data.synthetic.attacks.printing import draw_printer, printed
from fastface.data.synthetic.attacks.recapture import draw_camera, take
from fastface.data.synthetic.attacks.screen import draw_display, shown
from fastface.data.synthetic.attacks.sheet import draw_edges, draw_room, in_room
from fastface.data.synthetic.draws import DEVICE, PRESENTATION, SENSOR, chance, generator, normal, uniform
from fastface.spelling import nearest

NUM_DEVICES = 2  # of each variant at a site
SCREENS = {"print-laser": "dots", "print-inkjet": "spray", "print-photo": "none"}
DISPLAYS = {"replay-phone": "phone", "replay-tablet": "tablet", "replay-monitor": "monitor"}
VARIANTS = (*SCREENS, *DISPLAYS)
MIN_SIDE_PX = 24


class Key(NamedTuple):
    """What a picture is drawn from; two pictures with equal keys are taken alike."""

    seed: int
    identity: int
    image: int


def present(
    image: np.ndarray, variant: str, key: Key, *, site: int = 0, shape: tuple[int, int] | None = None
) -> np.ndarray:
    """Attack with a picture, uint8 [h, w, 3] RGB: uint8 [H, W, 3] of `shape`, by default that of `image`.

    A source larger than `shape` keeps the attack as sharp as a live picture. Sites have devices of their own.
    """
    if variant not in VARIANTS:
        raise ValueError(f"attack {variant!r}{nearest(variant, VARIANTS)}; choose from {', '.join(VARIANTS)}")
    source, shape = _planes(image), shape or image.shape[:2]
    rng = generator(*key, PRESENTATION)
    device = generator(
        key.seed, (NUM_DEVICES * site + int(rng.integers(NUM_DEVICES))) * 64 + VARIANTS.index(variant), -1, DEVICE
    )
    placement = draw_placement(rng, bends=variant in SCREENS)
    if variant in SCREENS:
        printer = draw_printer(device, SCREENS[variant])
        edges = draw_edges(rng, shape, (0.0, 0.06), printer.paper, seen=0.5)
        layer = printed(source, printer, placement, shape, int(rng.integers(64)))
        room = draw_room(rng, shape, edges, printer.gloss)
    else:
        display = draw_display(device, DISPLAYS[variant])
        edges = draw_edges(rng, shape, (0.01, 0.06), (0.03, 0.03, 0.035), seen=0.4)
        layer = shown(source, display, placement, shape, uniform(rng, 0, 1))
        room = draw_room(rng, shape, edges, display.gloss)
    return _photographed(in_room(layer, placement, room), key, site)


def retake(image: np.ndarray, key: Key, *, site: int = 0) -> np.ndarray:
    """Photograph a picture, uint8 [H, W, 3] RGB, as if it were the scene itself: the live class."""
    return _photographed(_planes(image), key, site)


def draw_placement(rng: np.random.Generator, *, bends: bool) -> Placement:
    """Draw how a sheet or a screen is held: so that its face is where a live one would be."""
    bent = bends and chance(rng, 0.6)
    return Placement(
        x=normal(rng, 0, 0.012, 2),
        y=normal(rng, 0, 0.012, 2),
        zoom=uniform(rng, 0.97, 1.06),
        roll=normal(rng, 0, 2.5, 2),
        tilt=normal(rng, 0, 7, 2),
        lean=normal(rng, 0, 7, 2),
        bend=uniform(rng, 0.25, 1.0) if bent else 0.0,
        bend_axis=uniform(rng, -25, 25) if chance(rng, 0.7) else uniform(rng, 65, 115),
    )


def _photographed(planes: np.ndarray, key: Key, site: int) -> np.ndarray:
    camera = draw_camera(*key, site)
    return take(planes, camera, generator(*key, SENSOR))


def _planes(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE_PX:
        raise ValueError(
            f"a picture must be uint8 [H, W, 3] RGB with sides of at least {MIN_SIDE_PX} px, not {image.dtype} "
            f"{list(image.shape)}"
        )
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) * np.float32(1 / 255)
