"""(seed, identity, image) -> Shot: everything about one picture that says nothing about who is on it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.colours import Colour
from fastface.data.synthetic.draws import SHOT, chance, choose, generator, normal, uniform

HATS = {"none": 0.94, "cap": 0.025, "beanie": 0.025, "hood": 0.01}
OCCLUDERS = {"none": 0.88, "hand": 0.035, "mask": 0.02, "scarf": 0.03, "strand": 0.035}


@dataclass(frozen=True)
class Shot:
    """One picture: angles in degrees, lengths in shares of the picture's side unless said otherwise."""

    seed: int
    identity: int
    image: int
    yaw: float
    """Positive turns the face towards the image's right."""
    pitch: float
    """Positive lifts the face."""
    roll: float
    """Positive turns the head clockwise in the image."""
    scale: float
    """Picture sides per head unit (half a head's height)."""
    x: float
    y: float
    smile: float
    mouth_open: float
    eye_closure: float
    brow_raise: float
    gaze_x: float
    gaze_y: float
    light_x: float
    """Direction of the main light, times its slant: -1 from the image's left, +1 from its right."""
    light_y: float
    ambient: float
    exposure: float
    cast: Colour
    """Channel gains of the light's colour."""
    contrast: float
    shadow: float
    """Depth of a shadow cast over part of the scene; 0 for none."""
    shadow_angle: float
    shadow_place: float
    mess: float
    """How far the hair lies from its usual place."""
    hair_shine: float
    tied: bool
    cloth: Colour
    hat: str
    hat_colour: Colour
    occluder: str
    occluder_colour: Colour
    glasses: bool
    sunglasses: bool
    blur: float
    """Gaussian sigma in thousandths of the side."""
    motion: float
    """Length of the motion blur in thousandths of the side."""
    motion_angle: float
    noise: float
    """Standard deviation of the sensor noise at mid-grey, in 8-bit steps."""
    quality: int
    """JPEG quality."""

    @classmethod
    def draw(cls, seed: int, identity: Identity, image: int) -> "Shot":
        """Draw picture number `image` of `identity`."""
        rng = generator(seed, identity.number, image, SHOT)
        parts = _pose(rng) | _expression(rng) | _light(rng) | _wear(rng, identity) | _camera(rng)
        return cls(seed=seed, identity=identity.number, image=image, **parts)


def _pose(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "yaw": normal(rng, 0, 12, 2.5),
        "pitch": normal(rng, 0, 6, 2.5),
        "roll": normal(rng, 0, 6, 2.5),
        "scale": uniform(rng, 0.375, 0.445),
        "x": normal(rng, 0.5, 0.02, 2),
        "y": normal(rng, 0.5, 0.02, 2),
    }


def _expression(rng: np.random.Generator) -> dict[str, Any]:
    smiling = chance(rng, 0.5)
    return {
        "smile": uniform(rng, 0.3, 1.0) if smiling else uniform(rng, -0.25, 0.2),
        "mouth_open": uniform(rng, 0.15, 1.0) if chance(rng, 0.35) else 0.0,
        "eye_closure": 1.0 if chance(rng, 0.04) else uniform(rng, -0.15, 0.45),
        "brow_raise": normal(rng, 0, 0.4),
        "gaze_x": normal(rng, 0, 0.35, 2),
        "gaze_y": normal(rng, 0, 0.2, 2),
    }


def _light(rng: np.random.Generator) -> dict[str, Any]:
    warmth, green = normal(rng, 0, 0.07), normal(rng, 0, 0.02)
    return {
        "light_x": uniform(rng, -1, 1),
        "light_y": uniform(rng, -0.9, 0.35),
        "ambient": uniform(rng, 0.35, 0.75),
        "exposure": float(np.exp(normal(rng, 0, 0.18, 2))),
        "cast": (1 + warmth, 1 + green, 1 - warmth),
        "contrast": uniform(rng, 0.85, 1.15),
        "shadow": uniform(rng, 0.25, 0.65) if chance(rng, 0.12) else 0.0,
        "shadow_angle": uniform(rng, 0, 360),
        "shadow_place": uniform(rng, -0.6, 0.6),
    }


def _wear(rng: np.random.Generator, identity: Identity) -> dict[str, Any]:
    glasses, sunglasses = chance(rng, identity.glasses_habit), chance(rng, 0.03)
    return {
        "mess": normal(rng, 0, 1, 2),
        "hair_shine": uniform(rng, 0, 1),
        "tied": chance(rng, 0.15),
        "cloth": _cloth(rng),
        "hat": choose(rng, HATS),
        "hat_colour": _cloth(rng),
        "occluder": choose(rng, OCCLUDERS),
        "occluder_colour": _cloth(rng),
        "glasses": glasses or sunglasses,
        "sunglasses": sunglasses,
    }


def _cloth(rng: np.random.Generator) -> Colour:
    value, colourful = uniform(rng, 0.05, 0.95), uniform(rng, 0, 0.8) ** 1.5
    red, green, blue = (value * (1 - colourful * float(share)) for share in rng.random(3))
    return (red, green, blue)


def _camera(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "blur": uniform(rng, 2, 12) if chance(rng, 0.4) else 2.0,
        "motion": uniform(rng, 15, 45) if chance(rng, 0.06) else 0.0,
        "motion_angle": uniform(rng, 0, 180),
        "noise": uniform(rng, 0.5, 5),
        "quality": int(rng.integers(40, 96)),
    }


def attributes(identity: Identity, shot: Shot) -> dict[str, str]:
    """Describe a picture in words and numbers, one column of a table each; angles in degrees."""
    yes = {True: "1", False: "0"}
    return {
        "yaw": f"{shot.yaw:.2f}",
        "pitch": f"{shot.pitch:.2f}",
        "roll": f"{shot.roll:.2f}",
        "smile": f"{shot.smile:.2f}",
        "mouth_open": f"{shot.mouth_open:.2f}",
        "eye_closure": f"{max(shot.eye_closure, 0):.2f}",
        "glasses": yes[shot.glasses],
        "sunglasses": yes[shot.sunglasses],
        "hat": shot.hat,
        "occluder": shot.occluder,
        "exposure": f"{shot.exposure:.3f}",
        "blur": f"{shot.blur:.2f}",
        "quality": str(shot.quality),
        "age": f"{identity.age:.2f}",
        "hair_style": identity.hair_style,
        "hair_colour": identity.hair_colour,
        "beard": yes[identity.beard > 0],
        "moustache": yes[identity.moustache > 0],
        "freckles": yes[identity.freckles > 0],
        "skin": "{:02x}{:02x}{:02x}".format(*(round(255 * value) for value in identity.skin)),
    }
