"""(seed, number) -> Identity: everything about a drawn person that stays the same from picture to picture.

Lengths are in head units: half the height from crown (y = -1) to chin (y = +1); x points to the image's
right, z to the camera. One unit is about 11.5 cm, so an eye centre lies near x = 0.28 (pupils 6.3 cm apart).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastface.data.synthetic.colours import HAIR, IRIS, SKIN, Colour, along, mix, tint
from fastface.data.synthetic.draws import ANATOMY, chance, choose, generator, normal, uniform


@dataclass(frozen=True)
class Identity:
    """One person: geometry in head units, colours in [0, 1]."""

    seed: int
    number: int
    age: float
    """0 young to 1 old."""
    masculine: float
    """0 to 1; leans the other traits, decides none."""
    head_width: float
    temple: float
    cheekbone: float
    jaw: float
    chin: float
    crown: float
    skin: Colour
    hair: Colour
    hair_colour: str
    hair_style: str
    hairline: float
    """y of the hair's edge above the nose."""
    recession: float
    part: float
    volume: float
    hair_length: float
    sideburn: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    eye_fold: float
    eye_depth: float
    lash: float
    iris: Colour
    brow_y: float
    """Height of the brow's centre above the eye."""
    brow_width: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    brow: Colour
    nose_y: float
    """y of the nose tip."""
    nose_width: float
    nose_bridge: float
    nose_lift: float
    nose_ball: float
    nose_hook: float
    mouth_y: float
    mouth_width: float
    lip_upper: float
    lip_lower: float
    lip_bow: float
    lip: Colour
    ear_size: float
    ear_out: float
    moustache: float
    """Opacity of the hair over the lip; 0 where there is none."""
    beard: float
    beard_reach: float
    freckles: float
    cheeks: float
    wrinkles: float
    moles: tuple[tuple[float, float, float], ...]
    """(x, y, radius) of each."""
    glasses_habit: float
    """Probability of glasses in a picture."""
    glasses_round: float
    glasses_width: float
    glasses_thick: float
    glasses_colour: Colour

    @classmethod
    def draw(cls, seed: int, number: int) -> "Identity":
        """Draw person `number` of the population `seed`."""
        rng = generator(seed, number, -1, ANATOMY)
        age, masculine = float(rng.random()) ** 1.3, uniform(rng, 0, 1)
        skin_place = uniform(rng, 0, 1)
        skin = tint(along(SKIN, skin_place), *(normal(rng, 1, s, 1.8) for s in (0.02, 0.03, 0.05)))
        traits = _head(rng, masculine) | _hair(rng, age, masculine, skin_place)
        traits |= _eyes(rng, skin_place, masculine)
        traits |= _brows(rng, traits["hair"], masculine) | _nose(rng) | _mouth(rng, skin, masculine, age)
        traits |= _skin_marks(rng, age, masculine, skin_place) | _glasses(rng, age)
        return cls(seed=seed, number=number, age=age, masculine=masculine, skin=skin, **traits)


def _head(rng: np.random.Generator, masculine: float) -> dict[str, Any]:
    return {
        "head_width": uniform(rng, 0.60, 0.78),
        "temple": normal(rng, 0, 0.03),
        "cheekbone": uniform(rng, -0.03, 0.09),
        "jaw": uniform(rng, -0.12, 0.12) + 0.05 * masculine,
        "chin": uniform(rng, -0.16, 0.22) + 0.06 * masculine,
        "crown": uniform(rng, 0.0, 0.12),
        "ear_size": uniform(rng, 0.8, 1.25),
        "ear_out": uniform(rng, 0.0, 0.09),
    }


def _hair(rng: np.random.Generator, age: float, masculine: float, skin_place: float) -> dict[str, Any]:
    fair = 1.0 - skin_place
    colours = {
        "black": 0.5 + 2.5 * skin_place, "brown": 1.0, "chestnut": 0.2 + 0.8 * fair, "blond": 1.2 * fair**1.5,
        "red": 0.5 * fair**2, "grey": 2.2 * max(0.0, age - 0.45) ** 1.2, "dyed": 0.04,
    }  # fmt: skip
    name = choose(rng, colours)
    long_hair = 1.15 - masculine
    styles = {
        "bald": 0.9 * masculine * (0.3 + age), "buzz": 0.7 * masculine, "short": 1.3 * masculine + 0.1,
        "side": 0.9 * masculine + 0.2, "fringe": 0.6, "bob": 0.8 * long_hair, "long": 1.1 * long_hair,
        "wavy": 0.8 * long_hair, "curly": 0.25 + 0.6 * skin_place, "tied": 0.7 * long_hair,
    }  # fmt: skip
    style = choose(rng, styles)
    volume = {"bald": 0.0, "buzz": 0.015, "curly": uniform(rng, 0.12, 0.34), "tied": 0.04}
    length = {"bob": uniform(rng, 0.55, 0.95), "long": uniform(rng, 1.3, 1.9), "wavy": uniform(rng, 1.0, 1.8)}
    hairline = uniform(rng, -0.74, -0.50) - 0.08 * age * masculine
    if style == "fringe":
        hairline = uniform(rng, -0.42, -0.24)
    return {
        "hair": tint(HAIR[name], *(normal(rng, 1, 0.12),) * 3),
        "hair_colour": name,
        "hair_style": style,
        "hairline": hairline,
        "recession": uniform(rng, 0, 0.28) * (0.3 + masculine * age),
        "part": uniform(rng, -0.35, 0.35),
        "volume": volume.get(style, uniform(rng, 0.05, 0.15)),
        "hair_length": length.get(style, 0.0),
        "sideburn": uniform(rng, -0.1, 0.35),
    }


def _eyes(rng: np.random.Generator, skin_place: float, masculine: float) -> dict[str, Any]:
    fair = 1.0 - skin_place
    colours = {
        "brown": 0.5 + skin_place * 3,
        "hazel": 0.4,
        "green": 0.35 * fair,
        "blue": fair,
        "grey": 0.3 * fair,
    }
    colour = choose(rng, colours)
    return {
        "eye_x": uniform(rng, 0.235, 0.325),
        "eye_y": uniform(rng, -0.06, 0.08),
        "eye_width": uniform(rng, 0.105, 0.160),
        "eye_open": uniform(rng, 0.038, 0.085),
        "eye_tilt": uniform(rng, -0.22, 0.12),
        "eye_fold": uniform(rng, 0, 1),
        "eye_depth": uniform(rng, 0, 1),
        "lash": uniform(rng, 0.2, 0.6) + 0.4 * (1 - masculine),
        "iris": tint(IRIS[colour], *(normal(rng, 1, 0.1),) * 3),
    }


def _brows(rng: np.random.Generator, hair: Colour, masculine: float) -> dict[str, Any]:
    return {
        "brow_y": uniform(rng, 0.13, 0.25),
        "brow_width": uniform(rng, 0.14, 0.215),
        "brow_thickness": uniform(rng, 0.012, 0.034) + 0.016 * masculine,
        "brow_arch": uniform(rng, 0.0, 0.09),
        "brow_tilt": uniform(rng, -0.22, 0.22),
        "brow": mix(mix(hair, (0.12, 0.09, 0.07), uniform(rng, 0.2, 0.8)), hair, 0.2),
    }


def _nose(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "nose_y": uniform(rng, 0.27, 0.46),
        "nose_width": uniform(rng, 0.105, 0.21),
        "nose_bridge": uniform(rng, 0.045, 0.10),
        "nose_lift": uniform(rng, 0.13, 0.27),
        "nose_ball": uniform(rng, 0, 1),
        "nose_hook": uniform(rng, -0.03, 0.05),
    }


def _mouth(rng: np.random.Generator, skin: Colour, masculine: float, age: float) -> dict[str, Any]:
    painted = chance(rng, 0.45 * (1 - masculine))
    rose = (0.72, 0.12, 0.18) if painted else (0.70, 0.33, 0.32)
    strength = uniform(rng, 0.45, 0.85) if painted else uniform(rng, 0.2, 0.55)
    natural = tint(skin, 0.90, 0.72, 0.72)
    return {
        "mouth_y": uniform(rng, 0.575, 0.685),
        "mouth_width": uniform(rng, 0.165, 0.285),
        "lip_upper": uniform(rng, 0.022, 0.068) * (1.1 - 0.3 * age),
        "lip_lower": uniform(rng, 0.036, 0.095) * (1.1 - 0.3 * age),
        "lip_bow": uniform(rng, 0, 1),
        "lip": mix(natural, rose, strength),
    }


def _skin_marks(rng: np.random.Generator, age: float, masculine: float, skin_place: float) -> dict[str, Any]:
    hairy = masculine > 0.45
    count = int(rng.poisson(0.7))
    return {
        "moustache": uniform(rng, 0.35, 0.95) if hairy and chance(rng, 0.35) else 0.0,
        "beard": uniform(rng, 0.2, 0.95) if hairy and chance(rng, 0.45) else 0.0,
        "beard_reach": uniform(rng, 0.0, 1.0),
        "freckles": uniform(rng, 0.3, 1.0) if chance(rng, 0.22 * (1 - skin_place)) else 0.0,
        "cheeks": uniform(rng, 0.0, 1.0),
        "wrinkles": max(0.0, age - 0.3) * uniform(rng, 0.4, 1.4),
        "moles": tuple(
            (uniform(rng, -0.45, 0.45), uniform(rng, -0.3, 0.85), uniform(rng, 0.016, 0.034)) for _ in range(count)
        ),
    }


def _glasses(rng: np.random.Generator, age: float) -> dict[str, Any]:
    metal, dark, bright = (0.32, 0.30, 0.27), (0.06, 0.05, 0.06), (0.45, 0.12, 0.10)
    return {
        "glasses_habit": uniform(rng, 0.75, 0.97) if chance(rng, 0.2 + 0.2 * age) else uniform(rng, 0, 0.06),
        "glasses_round": uniform(rng, 0, 1),
        "glasses_width": uniform(rng, 0.175, 0.235),
        "glasses_thick": uniform(rng, 0.015, 0.036),
        "glasses_colour": mix(metal if chance(rng, 0.3) else dark, bright, uniform(rng, 0, 0.5)),
    }
