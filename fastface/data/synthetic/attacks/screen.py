"""A picture -> the same on a display: its grid and the moire with the camera's, colours, refresh and reflections."""

import math
from dataclasses import dataclass

import numpy as np
import simplejpeg

from fastface.data.synthetic.attacks.placement import Placement, grid, pooled, sample
from fastface.data.synthetic.draws import chance, uniform

FINE = 2


@dataclass(frozen=True)
class Display:
    """A display and what it shows with."""

    stripes: bool
    """Red, green and blue side by side (LCD), or on the corners of a diamond (OLED)."""
    pitch_px: float
    """Side of its pixels in pixels of the picture taken."""
    depth: float
    """Of the grid where the camera resolves it, and of the moire where it does not."""
    curve: float
    """How much a lens bends the grid, which bends the moire."""
    gamma: float
    black: float
    """Light where the picture is black."""
    white: tuple[float, float, float]
    contrast: float
    glow: float
    """Fall of the backlight to the edges."""
    gloss: float
    band: float
    """Depth of the band that the refresh leaves in the picture."""
    band_period: float
    band_speed: float
    """Periods a second that it moves by."""
    quality: int
    """JPEG quality of the file that is shown."""


def draw_display(rng: np.random.Generator, kind: str) -> Display:
    """Draw one display of a kind: phone, tablet or monitor."""
    near = 1.0 if chance(rng, 0.5) else 0.5  # whole shares of the camera's pixels beat slowly with it
    pitch = {
        "phone": near * (1 + (uniform(rng, 0.015, 0.07) if chance(rng, 0.5) else -uniform(rng, 0.015, 0.07))),
        "tablet": uniform(rng, 1.15, 1.75),
        "monitor": uniform(rng, 2.1, 3.4),
    }[kind]
    blue = uniform(rng, 0.03, 0.16)
    return Display(
        stripes=kind != "phone",
        pitch_px=pitch,
        depth=uniform(rng, 0.07, 0.16) if kind != "monitor" else uniform(rng, 0.10, 0.2),
        curve=uniform(rng, -0.03, 0.03),
        gamma=uniform(rng, 0.8, 1.3),
        black=uniform(rng, 0.02, 0.10),
        white=(1 - blue, 1 - 0.4 * blue + uniform(rng, -0.03, 0.03), 1.0),
        contrast=uniform(rng, 0.85, 1.2),
        glow=uniform(rng, 0.0, 0.25),
        gloss=uniform(rng, 0.4, 1.0) if kind != "monitor" else uniform(rng, 0.1, 0.5),
        band=uniform(rng, 0.04, 0.13) if kind != "phone" else uniform(rng, 0.0, 0.08),
        band_period=uniform(rng, 0.3, 1.4),
        band_speed=uniform(rng, -0.8, 0.8),
        quality=int(rng.integers(50, 92)),
    )


def shown(
    source: np.ndarray, display: Display, placement: Placement, shape: tuple[int, int], phase: float, span: float = 1.0
) -> np.ndarray:
    """Return the display as the camera sees it: float32 planes [3, H, W] of a source's planes [3, h, w] in [0, 1].

    `phase` in [0, 1) is where the refresh stands, `span` how much of the plane the source covers.
    """
    x, y = grid(shape, FINE)
    u, v, _ = placement.to_plane(x, y)
    light = pooled(sample(_stored(source, display.quality), u, v, span), FINE)
    light = np.clip((light - 0.5) * display.contrast + 0.5, 0, 1) ** np.float32(display.gamma)
    x, y = grid(shape)
    far = x * x + y * y
    bent = 1 + display.curve * far
    u, v, _ = placement.to_plane(x * bent, y * bent)
    light *= _grid(u * min(shape), v * min(shape), display)
    light *= np.asarray(display.white, np.float32)[:, None, None] * (1 - display.glow * far)
    light = display.black + (1 - display.black) * light
    wave = np.cos((y[:, :1] / display.band_period + phase) * (2 * math.pi))
    return light * (1 - display.band * np.clip(1.5 * wave, -1, 1))


def _grid(x: np.ndarray, y: np.ndarray, display: Display) -> np.ndarray:
    """Return the light of the display's pixels at the camera's, which is not averaged over them: float32 [3, H, W].

    A camera's pixel sees a part of its square, so a display's grid finer than the camera's comes back as coarse waves,
    each colour's with its own phase.
    """
    wave = 2 * math.pi / display.pitch_px
    planes = np.empty((3, *x.shape), np.float32)
    for channel in range(3):
        if display.stripes:
            across = np.cos(x * wave + channel * (2 * math.pi / 3))
            planes[channel] = across + 0.6 * np.cos(y * wave)
        else:
            turn = 0 if channel == 1 else math.pi
            planes[channel] = np.cos((x + y) * wave + turn) + np.cos((x - y) * wave)
    return 1 + display.depth * planes


def _stored(source: np.ndarray, quality: int) -> np.ndarray:
    image = np.ascontiguousarray((np.clip(source, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
    data = simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="420")
    return simplejpeg.decode_jpeg(data, colorspace="RGB").transpose(2, 0, 1).astype(np.float32) / 255
