"""A name or a list -> operators in the order in which they are applied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter

from fastface.data.augment.blur import GaussianBlur, MotionBlur
from fastface.data.augment.cover import CropPad, Cutout, Erase
from fastface.data.augment.geometry import Affine, RandomResizedCrop
from fastface.data.augment.jpeg import Jpeg
from fastface.data.augment.light import Colour, Gamma, Grey
from fastface.data.augment.noise import Noise
from fastface.data.augment.operator import Operator
from fastface.data.augment.resolution import LowResolution
from fastface.spelling import nearest

OPERATORS: dict[str, type[Operator]] = {
    kind.model_fields["name"].default: kind
    for kind in (
        CropPad,
        RandomResizedCrop,
        Affine,
        LowResolution,
        GaussianBlur,
        MotionBlur,
        Jpeg,
        Colour,
        Gamma,
        Grey,
        Noise,
        Erase,
        Cutout,
    )
}
AnyOperator = Annotated[
    CropPad
    | RandomResizedCrop
    | Affine
    | LowResolution
    | GaussianBlur
    | MotionBlur
    | Jpeg
    | Colour
    | Gamma
    | Grey
    | Noise
    | Erase
    | Cutout,
    Field(discriminator="name"),
]

# Lists to start from; each is what it would be in a YAML. Light comes first, then lens, sensor and network, then
# what aligns and hides, so that what is black because nothing was there stays black.
PRESETS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    # AdaFace's three (crop_pad, colour, low_resolution), each for a fifth of the images (Kim et al., CVPR 2022,
    # section 4.1), and more rarely what else cameras, networks and hands do to faces.
    "recognition": [
        {"name": "colour", "p": 0.2, "brightness": [0.5, 1.5], "contrast": [0.5, 1.5], "saturation": [0.5, 1.5]},
        {"name": "grey", "p": 0.02},
        {"name": "gaussian_blur", "p": 0.05, "sigma_px": [0.4, 1.5]},
        {"name": "motion_blur", "p": 0.05, "length_px": [2, 7]},
        {"name": "low_resolution", "p": 0.2, "side": [0.2, 1.0]},
        {"name": "noise", "p": 0.05, "sigma": [2, 8]},
        {"name": "jpeg", "p": 0.1, "quality": [20, 95]},
        {"name": "affine", "p": 0.2, "angle_degrees": [-5, 5], "scale": [0.95, 1.05], "shift": [-0.03, 0.03]},
        {"name": "crop_pad", "p": 0.2, "area": [0.2, 1.0]},
        {"name": "erase", "p": 0.05},
    ],
    # Light and one resampling, the ranges near those MiniFASNet is trained with: nothing here wipes out moire,
    # print dots or the edge of a screen, which tell a spoof.
    "liveness": [
        {
            "name": "colour",
            "p": 0.8,
            "brightness": [0.6, 1.4],
            "contrast": [0.6, 1.4],
            "saturation": [0.6, 1.4],
            "hue_degrees": [-18, 18],
        },
        {"name": "gamma", "p": 0.3, "gamma": [0.6, 1.6667]},
        {
            "name": "affine",
            "p": 0.8,
            "angle_degrees": [-10, 10],
            "scale": [0.95, 1.15],
            "aspect": [0.9, 1.1111],
            "shift": [-0.05, 0.05],
        },
    ],
    # The same, wider, and what other cameras and messengers do: mild, and for few images each, so that about half
    # keep every cue.
    "liveness_aggressive": [
        {
            "name": "colour",
            "p": 0.8,
            "brightness": [0.5, 1.5],
            "contrast": [0.5, 1.5],
            "saturation": [0.3, 1.7],
            "hue_degrees": [-25, 25],
        },
        {"name": "gamma", "p": 0.3, "gamma": [0.5, 2.0]},
        {"name": "gaussian_blur", "p": 0.15, "sigma_px": [0.4, 1.2]},
        {"name": "motion_blur", "p": 0.1, "length_px": [2, 5]},
        {"name": "noise", "p": 0.2, "sigma": [2, 8]},
        {"name": "jpeg", "p": 0.25, "quality": [50, 95]},
        {
            "name": "affine",
            "p": 0.8,
            "angle_degrees": [-20, 20],
            "scale": [0.9, 1.3],
            "aspect": [0.85, 1.1765],
            "shift": [-0.08, 0.08],
        },
        {"name": "cutout", "p": 0.2, "holes": 2, "side": [0.1, 0.3]},
    ],
    # For boxes and landmarks: faces are moved and scaled much, hidden little.
    "detection": [
        {"name": "colour", "p": 0.5, "brightness": [0.6, 1.4], "contrast": [0.6, 1.4], "saturation": [0.5, 1.5]},
        {"name": "gamma", "p": 0.2, "gamma": [0.6, 1.6667]},
        {"name": "grey", "p": 0.05},
        {"name": "gaussian_blur", "p": 0.1, "sigma_px": [0.4, 1.5]},
        {"name": "noise", "p": 0.1, "sigma": [2, 10]},
        {"name": "jpeg", "p": 0.2, "quality": [30, 95]},
        {"name": "affine", "p": 0.5, "angle_degrees": [-10, 10], "scale": [0.7, 1.3], "shift": [-0.1, 0.1]},
        {"name": "erase", "p": 0.1, "area": [0.01, 0.08]},
    ],
}
_LIST = TypeAdapter(tuple[AnyOperator, ...])


def operators(augment: str | Sequence[Operator]) -> tuple[Operator, ...]:
    """Return the operators of a preset by its name, or those given. ValueError: no such preset."""
    return _LIST.validate_json(json.dumps(PRESETS[known(augment)])) if isinstance(augment, str) else tuple(augment)


def known(preset: str) -> str:
    """Return the name of a preset. ValueError: there is none of this name."""
    if preset not in PRESETS:
        raise ValueError(
            f"no preset {preset!r}{nearest(preset, PRESETS)}; known: {', '.join(PRESETS)}; "
            "or give a list of operators, each with its name"
        )
    return preset


# What a configuration may say: the tags make pydantic's errors speak of the one that was meant.
AnyAugment = Annotated[
    Annotated[str, AfterValidator(known), Tag("preset")] | Annotated[tuple[AnyOperator, ...], Tag("list")],
    Discriminator(lambda value: "preset" if isinstance(value, str) else "list"),
]
