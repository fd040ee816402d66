"""A picture and the name of an attack -> the attack, photographed; the same picture live, photographed alike."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastface.data.synthetic.attacks.placement import Placement, grid, in_plane, sample
from fastface.data.synthetic.attacks.printing import Printer, draw_printer, printed
from fastface.data.synthetic.attacks.recapture import draw_camera, take
from fastface.data.synthetic.attacks.screen import Display, draw_display, shown
from fastface.data.synthetic.attacks.sheet import Room, draw_edges, draw_room, ending_with, in_room
from fastface.data.synthetic.attacks.worn import around, draw_cut, draw_mask, moulded, on_face, onto, through_holes
from fastface.data.synthetic.draws import DEVICE, PRESENTATION, SENSOR, chance, generator, normal, uniform
from fastface.data.synthetic.render import Face
from fastface.spelling import nearest

NUM_DEVICES = 2  # of each variant at a site
SCREENS = {"print-laser": "dots", "print-inkjet": "spray", "print-photo": "none"}
DISPLAYS = {"replay-phone": "phone", "replay-tablet": "tablet", "replay-monitor": "monitor"}
CUTS = {"cut-eyes": "a sheet with eye holes", "cut-outline": "a face cut out of it, with eye holes"}
MASKS = {"mask-plastic": True, "mask-resin": False}  # whether it shines
VARIANTS = (*SCREENS, *DISPLAYS, *CUTS, *MASKS)
MIN_SIDE_PX = 24


class Key(NamedTuple):
    """What a picture is drawn from; two pictures with equal keys are taken alike."""

    seed: int
    identity: int
    image: int


def present(
    image: np.ndarray,
    variant: str,
    key: Key,
    *,
    site: int = 0,
    shape: tuple[int, int] | None = None,
    landmarks: np.ndarray | None = None,
    wearer: Face | None = None,
) -> np.ndarray:
    """Attack with a picture, uint8 [h, w, 3] RGB: uint8 [H, W, 3] of `shape`, by default that of `image`.

    A source larger than `shape` keeps the attack as sharp as a live picture. Sites have devices of their own.
    Cuts and masks need `landmarks`, [5, 2] in px of the image, and a live `wearer` of `shape`, whose eyes show through
    their holes; where there is none, the person of the picture wears it.
    """
    if variant not in VARIANTS:
        raise ValueError(f"attack {variant!r}{nearest(variant, VARIANTS)}; choose from {', '.join(VARIANTS)}")
    source, shape = to_planes(image), shape or (image.shape[0], image.shape[1])
    rng, camera = generator(*key, PRESENTATION), draw_camera(*key, site)
    if variant in CUTS or variant in MASKS:
        if landmarks is None:
            raise ValueError(f"attack {variant!r} needs the landmarks of the face; give them, or a print or a replay")
        eyes = in_plane(landmarks, image.shape)[:2]
        if wearer is None:
            behind, wanted = sample(source, *grid(shape)), eyes
        else:
            behind, wanted = to_planes(wearer.image), in_plane(wearer.landmarks, wearer.image.shape)[:2]
        scene = _worn(source, eyes, behind, wanted, variant, rng, key.seed, site)
    else:
        instrument = draw_instrument(rng, variant, key.seed, site, shape)
        scene = instrument.show(source, draw_placement(rng, bends=variant in SCREENS))
    return take(scene, camera, generator(*key, SENSOR))


def _worn(
    source: np.ndarray,
    eyes: np.ndarray,
    behind: np.ndarray,
    wanted: np.ndarray,
    variant: str,
    rng: np.random.Generator,
    seed: int,
    site: int,
) -> np.ndarray:
    """Return the wearer with the attack before the face, as the camera sees it: float32 planes [3, H, W]."""
    shape = (behind.shape[1], behind.shape[2])
    placement, cut = onto(eyes, wanted), draw_cut(rng)
    across, down = on_face(*placement.to_plane(*grid(shape))[:2], eyes)
    if variant in MASKS:
        mask = draw_mask(_device(rng, variant, seed, site), MASKS[variant])
        scene, layer = behind.copy(), moulded(source, mask, placement, eyes, shape, uniform(rng, -1, 1))
        rim = tuple(0.55 * channel for channel in mask.paint)
        around(scene, layer, across, down, cut, rim)
    else:
        screens = list(SCREENS)
        instrument = draw_instrument(rng, screens[int(rng.integers(len(screens)))], seed, site, shape)
        assert isinstance(instrument.device, Printer)
        rim = tuple(0.9 * channel for channel in instrument.device.paper)
        if variant == "cut-eyes":
            # Fitted to the wearer's eyes it may be smaller than the picture: then its own edges are seen.
            edges = ending_with(source.shape[1:], instrument.room.edges)
            room = dataclasses.replace(instrument.room, edges=edges)
            scene = dataclasses.replace(instrument, room=room).show(source, placement)
        else:
            scene = behind.copy()
            around(
                scene, printed(source, instrument.device, placement, shape, instrument.offset), across, down, cut, rim
            )
    through_holes(scene, behind, across, down, cut, rim)
    return scene


def retake(image: np.ndarray, key: Key, *, site: int = 0) -> np.ndarray:
    """Photograph a picture, uint8 [H, W, 3] RGB, as if it were the scene itself: the live class."""
    return take(to_planes(image), draw_camera(*key, site), generator(*key, SENSOR))


@dataclass(frozen=True)
class Instrument:
    """A printed sheet or a display, in its room; it may show one picture or the frames of a clip."""

    device: Printer | Display
    room: Room
    shape: tuple[int, int]
    offset: int
    """Which piece of paper."""
    phase: float
    """Where the refresh of the display stands at the beginning."""

    def show(self, source: np.ndarray, placement: Placement, span: float = 1.0, seconds: float = 0.0) -> np.ndarray:
        """Return what is before the camera, float32 planes [3, H, W], of a source's planes [3, h, w]."""
        if isinstance(self.device, Printer):
            layer = printed(source, self.device, placement, self.shape, self.offset, span)
        else:
            phase = self.phase + seconds * self.device.band_speed
            layer = shown(source, self.device, placement, self.shape, phase, span)
        return in_room(layer, placement, self.room)


def draw_instrument(rng: np.random.Generator, variant: str, seed: int, site: int, shape: tuple[int, int]) -> Instrument:
    """Draw one of a site's devices of this variant, and the room around it."""
    devices = _device(rng, variant, seed, site)
    if variant in SCREENS:
        device = draw_printer(devices, SCREENS[variant])
        edges = draw_edges(rng, shape, (0.0, 0.06), device.paper, seen=0.5)
    else:
        device = draw_display(devices, DISPLAYS[variant])
        edges = draw_edges(rng, shape, (0.01, 0.06), (0.03, 0.03, 0.035), seen=0.5)
    room = draw_room(rng, shape, edges, device.gloss)
    return Instrument(device, room, shape, int(rng.integers(64)), uniform(rng, 0, 1))


def _device(rng: np.random.Generator, variant: str, seed: int, site: int) -> np.random.Generator:
    number = NUM_DEVICES * site + int(rng.integers(NUM_DEVICES))
    return generator(seed, 64 * number + VARIANTS.index(variant), -1, DEVICE)


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


def to_planes(image: np.ndarray) -> np.ndarray:
    """Turn uint8 [H, W, 3] into float32 planes [3, H, W] in [0, 1]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE_PX:
        raise ValueError(
            f"a picture must be uint8 [H, W, 3] RGB with sides of at least {MIN_SIDE_PX} px, not {image.dtype} "
            f"{list(image.shape)}"
        )
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) * np.float32(1 / 255)
