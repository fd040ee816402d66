"""A name and its parameters -> a margin: what makes the target's cosine worse before the softmax."""

from __future__ import annotations

from fastface.losses.margins.adaptive import AdaFace, CurricularFace, MagFace
from fastface.losses.margins.base import GRADIENTS, Margin, parameter_names
from fastface.losses.margins.fixed import ArcFace, Combined, CosFace, NormFace, Softmax
from fastface.spelling import nearest

__all__ = ["GRADIENTS", "MARGINS", "Margin", "build_margin"]

MARGINS: dict[str, type[Margin]] = {
    "arcface": ArcFace,
    "cosface": CosFace,
    "combined": Combined,
    "adaface": AdaFace,
    "curricularface": CurricularFace,
    "magface": MagFace,
    "normface": NormFace,
    "softmax": Softmax,
}


def build_margin(name: str, *, gradient: str = "exact", **parameters: float) -> Margin:
    """Build a margin by name; ValueError for an unknown name or parameter, or one that has no meaning.

    What is not given has the default that the margin was published with.
    """
    if name not in MARGINS:
        raise ValueError(f"margin {name!r} is unknown{nearest(name, MARGINS)}; known: {', '.join(MARGINS)}")
    known = parameter_names(MARGINS[name])
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(
                f"margin {name} has no parameter {parameter!r}{nearest(parameter, known)};"
                f" it has {', '.join(known) if known else 'none'}"
            )
    return MARGINS[name](gradient=gradient, **parameters)
