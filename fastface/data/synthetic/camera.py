"""Face + Shot -> JPEG bytes: lens blur, motion blur, sensor noise and compression."""

import math

import numpy as np
import simplejpeg
from scipy.ndimage import gaussian_filter

from fastface.data.synthetic.draws import SENSOR, generator
from fastface.data.synthetic.render import Face
from fastface.data.synthetic.shot import Shot


def photograph(face: Face, shot: Shot) -> bytes:
    """Take the picture: blur, noise and JPEG of the shot's quality; landmarks and box stay valid."""
    pixels = through_lens(face.image.astype(np.float32), shot.blur, shot.motion, shot.motion_angle)
    rng = generator(shot.seed, shot.identity, shot.image, SENSOR)
    return compress(on_sensor(pixels, shot.noise, rng), shot.quality)


def through_lens(pixels: np.ndarray, blur: float, motion: float, motion_angle: float) -> np.ndarray:
    """Blur a picture, float32 [H, W, 3]; sigma and length in thousandths of the shorter side, the angle in degrees."""
    side = min(pixels.shape[:2])
    if motion:
        pixels = _smear(pixels, motion * side / 1000, math.radians(motion_angle))
    sigma = blur * side / 1000
    if sigma > 0.2:  # narrower kernels fall between the pixels
        pixels = gaussian_filter(pixels, (sigma, sigma, 0), truncate=2.5)
    return pixels


def on_sensor(pixels: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise of standard deviation `noise` at mid-grey, in 8-bit steps, and round: uint8 [H, W, 3]."""
    # Photon noise grows with the root of the signal; after demosaicing the three colours share a part of it.
    grain = rng.standard_normal((*pixels.shape[:2], 4), dtype=np.float32)
    gain = np.sqrt(np.maximum(pixels, 8) * (1 / 128)) * (noise * math.sqrt(0.5))
    pixels = pixels + gain * (grain[..., :3] + grain[..., 3:])
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def compress(image: np.ndarray, quality: int) -> bytes:
    """Encode uint8 [H, W, 3] as a JPEG."""
    return simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="420")


def _smear(pixels: np.ndarray, length: float, angle: float) -> np.ndarray:
    (high, wide), reach = pixels.shape[:2], int(length / 2) + 1
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(pixels)
    for (row, column), weight in _smear_kernel(length, angle).items():
        total += weight * padded[reach + row : reach + row + high, reach + column : reach + column + wide]
    return total


def _smear_kernel(length: float, angle: float) -> dict[tuple[int, int], float]:
    kernel: dict[tuple[int, int], float] = {}
    num_taps = 2 * int(length) + 3
    for tap in range(num_taps):
        along = (tap / (num_taps - 1) - 0.5) * length
        y, x = along * math.sin(angle), along * math.cos(angle)
        row, column = math.floor(y), math.floor(x)
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            share = abs(1 - down - y + row) * abs(1 - right - x + column) / num_taps
            if share > 0:
                kernel[row + down, column + right] = kernel.get((row + down, column + right), 0.0) + share
    return kernel
