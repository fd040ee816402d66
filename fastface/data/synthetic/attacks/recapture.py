"""What stands before the camera -> the picture of it, taken in one and the same way whether it is live or not.

Exposure, contrast and white are metered, as every phone's camera does, towards values that are drawn without a look at
the class. So brightness and colour of a whole picture, which a print or a screen would shift, tell next to nothing.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg

from fastface.data.synthetic.camera import compress, on_sensor, through_lens
from fastface.data.synthetic.draws import PHONE, RECAPTURE, chance, generator, normal, uniform

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
METERED, STRETCHED, BALANCED = 0.9, 0.85, 0.85  # shares of the way to what is metered for
NUM_PHONES = 2  # at a site


@dataclass(frozen=True)
class Camera:
    """How one picture is taken; what a phone leaves open differs from picture to picture."""

    level: float
    """Mean brightness metered for, in [0, 1]."""
    spread: float
    """Standard deviation of the brightness metered for."""
    cast: tuple[float, float, float]
    """Channel gains that the white balance leaves."""
    vignette: float
    """Share of the light lost in the corners."""
    blur: float
    """Gaussian sigma in thousandths of the shorter side."""
    motion: float
    """Length of the motion blur, likewise."""
    motion_angle: float
    noise: float
    """Standard deviation at mid-grey in 8-bit steps."""
    quality: int
    """Of the JPEG the phone writes."""


def draw_camera(seed: int, identity: int, image: int, site: int) -> Camera:
    """Draw one of the phones of a site, and what it leaves open for this picture."""
    rng = generator(seed, identity, image, RECAPTURE)
    phone = generator(seed, NUM_PHONES * site + int(rng.integers(NUM_PHONES)), -1, PHONE)
    noise, blur, quality = uniform(phone, 0.6, 2.2), uniform(phone, 1.8, 4.0), int(phone.integers(80, 95))
    warmth, level = normal(phone, 0, 0.03), uniform(phone, 0.42, 0.54)
    leaning = warmth + normal(rng, 0, 0.025)
    return Camera(
        level=level + uniform(rng, -0.07, 0.07),
        spread=uniform(rng, 0.19, 0.28),
        cast=(1 + leaning, 1 + normal(rng, 0, 0.012), 1 - leaning),
        vignette=uniform(rng, 0, 0.15),
        blur=blur * uniform(rng, 0.9, 1.8),
        motion=uniform(rng, 10, 25) if chance(rng, 0.06) else 0.0,
        motion_angle=uniform(rng, 0, 180),
        noise=noise * uniform(rng, 0.7, 1.6),
        quality=quality + int(rng.integers(0, 5)),
    )


class Exposure(NamedTuple):
    """What the camera has metered: of the first picture of a clip, and kept for all of it."""

    gains: np.ndarray
    """Of the channels, float32 [3]."""
    mean: float
    stretch: float
    level: float


def take(planes: np.ndarray, camera: Camera, rng: np.random.Generator, exposure: Exposure | None = None) -> np.ndarray:
    """Take the picture of float32 planes [3, H, W] in [0, 1]: uint8 [H, W, 3]; `rng` is the sensor's noise."""
    pixels = _expose(planes, camera, exposure or meter(planes, camera)).transpose(1, 2, 0)
    pixels = through_lens(pixels * np.float32(255), camera.blur, camera.motion, camera.motion_angle)
    image = on_sensor(pixels, camera.noise, rng)
    return simplejpeg.decode_jpeg(compress(np.ascontiguousarray(image), camera.quality), colorspace="RGB")


def steady(camera: Camera) -> Camera:
    """Return the camera without motion blur, which is not the same in all frames of a clip."""
    return dataclasses.replace(camera, motion=0.0)


def meter(planes: np.ndarray, camera: Camera) -> Exposure:
    """Look at a scene, float32 planes [3, H, W], and choose white, exposure and contrast."""
    means = planes.mean(axis=(1, 2))
    white = float(LUMA @ means)
    gains = np.clip((white / np.maximum(means, 0.02)) ** BALANCED * np.asarray(camera.cast, np.float32), 0.5, 2)
    luma = np.tensordot(LUMA * gains, planes, 1)
    mean, spread = float(luma.mean()), max(float(luma.std()), 0.03)
    stretch = min((camera.spread / spread) ** STRETCHED, 3.0)
    return Exposure(gains.astype(np.float32), mean, stretch, mean + METERED * (camera.level - mean))


def _expose(planes: np.ndarray, camera: Camera, exposure: Exposure) -> np.ndarray:
    y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in planes.shape[1:])
    fall = 1 - camera.vignette * 0.5 * (x * x + (y * y)[:, None])
    balanced = planes * exposure.gains[:, None, None]
    small = ((balanced - exposure.mean) * exposure.stretch + exposure.level) * fall
    small = np.where(small > 0.85, 1 - 0.15 * np.exp(-(small - 0.85) / 0.15), small)  # a shoulder, no hard clipping
    small = np.where(small < 0.06, 0.06 * np.exp((np.minimum(small, 0.06) - 0.06) / 0.06), small)
    return small.astype(np.float32)


def light_over(shape: tuple[int, int], strength: float, angle: float) -> np.ndarray:
    """Return a slope of light over a picture [H, W], 1 at its middle: float32."""
    y, x = (np.linspace(-0.5, 0.5, length, dtype=np.float32) for length in shape)
    return 1 + strength * (math.cos(angle) * x + math.sin(angle) * y[:, None])
