"""A picture -> the same on paper: inks and their screens, paper, bend and gloss."""

import math
from dataclasses import dataclass

import numpy as np

from fastface.data.synthetic.attacks.placement import Placement, grid, pooled, sample
from fastface.data.synthetic.draws import texture, uniform

FINE = 2  # samples to a pixel: the dots of a screen are hardly larger
ANGLES = (15.0, 75.0, 0.0, 45.0)  # of the screens of cyan, magenta, yellow and black, as printers turn them
INKS = np.array([[0.05, 0.55, 0.82], [0.80, 0.12, 0.42], [0.97, 0.88, 0.14], [0.10, 0.10, 0.11]], np.float32)


@dataclass(frozen=True)
class Printer:
    """A printer with its paper."""

    screen: str
    """dots (laser), spray (inkjet) or none (photographic paper)."""
    period_px: float
    """Distance of the dots in pixels of the picture taken."""
    turn: float
    """Angle of the sheet's screens in degrees, beside each ink's own."""
    hardness: float
    """How sharply the dots end."""
    depth: float
    """Share of the ink that the screen places; the rest is even."""
    gain: float
    """Growth of the dots: prints come out darker than they should."""
    black: float
    """Share of the grey printed with black ink."""
    fade: float
    """How far the inks are from full: the reduced gamut."""
    banding: float
    """Depth of the lines that the moving head leaves."""
    fibre: float
    """Depth of the paper's texture."""
    gloss: float
    paper: tuple[float, float, float]
    shift_px: tuple[tuple[float, float], ...]
    """By how much each ink is out of register."""


def draw_printer(rng: np.random.Generator, screen: str) -> Printer:
    """Draw one printer with a screen of this kind."""
    dots, spray = screen == "dots", screen == "spray"
    yellow = uniform(rng, 0.0, 0.10)
    off = uniform(rng, 0.1, 0.6) if dots else 0.1
    angles = [uniform(rng, 0, 2 * math.pi) for _ in ANGLES]
    return Printer(
        screen=screen,
        period_px=uniform(rng, 2.0, 3.6) if dots else uniform(rng, 1.2, 1.8),
        turn=uniform(rng, 0, 90),
        hardness=uniform(rng, 1.3, 2.4),
        depth=uniform(rng, 0.25, 0.55) if dots else uniform(rng, 0.4, 0.9),
        gain=uniform(rng, 0.0, 0.12),
        black=uniform(rng, 0.3, 0.9),
        fade=uniform(rng, 0.05, 0.25),
        banding=uniform(rng, 0.03, 0.08) if spray else 0.0,
        fibre=uniform(rng, 0.02, 0.05) if screen != "none" else uniform(rng, 0.0, 0.012),
        gloss=uniform(rng, 0.0, 0.3) if screen != "none" else uniform(rng, 0.7, 1.0),
        paper=(0.95, 0.95 - 0.3 * yellow, 0.95 - yellow),
        shift_px=tuple((off * math.cos(angle), off * math.sin(angle)) for angle in angles),
    )


def printed(
    source: np.ndarray, printer: Printer, placement: Placement, shape: tuple[int, int], offset: int, span: float = 1.0
) -> np.ndarray:
    """Return the sheet as the camera sees it: float32 planes [3, H, W] of a source's planes [3, h, w] in [0, 1].

    `offset` says which piece of paper it is, `span` how much of the plane the source covers.
    """
    u, v, _ = placement.to_plane(*grid(shape, FINE))
    side = min(shape)
    inks = _separate(sample(source, u, v, span), printer)
    sheet = np.empty((3, *u.shape), np.float32)
    sheet[:] = np.asarray(printer.paper, np.float32)[:, None, None]
    strength = 1 - printer.fade
    for ink, angle, shift, colour in zip(inks, ANGLES, printer.shift_px, INKS, strict=True):
        if printer.screen == "dots":
            ink = _dots(ink, u * side + shift[0], v * side + shift[1], printer, angle)
        elif printer.screen == "spray":
            ink = _spray(ink, u * side, v * side, printer, offset + int(angle))
        sheet *= 1 - strength * ink * (1 - colour)[:, None, None]
    sheet = pooled(sheet, FINE)
    return sheet * _paper(printer, placement, shape, offset)


def _separate(colours: np.ndarray, printer: Printer) -> np.ndarray:
    """Turn red, green and blue into cyan, magenta, yellow and black: float32 [4, h, w], shares of covered paper."""
    cmy = 1 - colours
    black = printer.black * cmy.min(axis=0)
    inks = np.concatenate([(cmy - black) / np.maximum(1 - black, 0.05), black[None]])
    return np.clip(inks * (1 + printer.gain), 0, 1)


def _dots(ink: np.ndarray, x: np.ndarray, y: np.ndarray, printer: Printer, angle: float) -> np.ndarray:
    turn = math.radians(printer.turn + angle)
    wave = 2 * math.pi / printer.period_px
    along = x * (wave * math.cos(turn)) + y * (wave * math.sin(turn))
    across = y * (wave * math.cos(turn)) - x * (wave * math.sin(turn))
    threshold = 0.5 - 0.25 * (np.cos(along) + np.cos(across))
    dots = np.clip((ink - threshold) * printer.hardness + ink, 0, 1)
    return ink + printer.depth * (dots - ink)


def _spray(ink: np.ndarray, x: np.ndarray, y: np.ndarray, printer: Printer, offset: int) -> np.ndarray:
    grain = _texture("grain", x * (2.5 / printer.period_px), y * (2.5 / printer.period_px), offset)
    line = 1 + printer.banding * np.sin(y * (0.4 / printer.period_px) * 2 * math.pi + offset)
    return np.clip(ink * line + 0.7 * printer.depth * grain * ink * (1 - ink), 0, 1)


def _paper(printer: Printer, placement: Placement, shape: tuple[int, int], offset: int) -> np.ndarray:
    u, v, angle = placement.to_plane(*grid(shape))
    side = min(shape)
    tone = 1 + printer.fibre * _texture("grain", u * side, v * side, offset)
    tone += 0.6 * printer.fibre * _texture("cloud", u * side, v * side, offset + 7)
    if placement.bend:
        lit = np.cos(angle - 0.5)  # light from one side: the slopes towards it are brighter
        tone *= 1 + 0.7 * (lit - math.cos(0.5))
        shine = np.maximum(1 - ((angle - 0.12) / 0.16) ** 2, 0)
        tone += 0.3 * printer.gloss * shine * shine
    return tone


def _texture(kind: str, x: np.ndarray, y: np.ndarray, offset: int) -> np.ndarray:
    row = (y + (4096.5 + offset % 64 * 91)).astype(np.int32) & 255
    column = (x + (4096.5 + offset % 64 * 37)).astype(np.int32) & 255
    return texture(kind).take(row * 256 + column)
