"""An image and a detector -> the face in it, cut out as a model's card says."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from fastface.conversion.faces import CONTEXT, PICKS, Alignment, Face, choose, cut_face
from fastface.data.align import ALIGNMENTS, MARGIN
from fastface.data.context import Context
from fastface.data.images import ImageSpec, Rejected, cut_image
from fastface.detection import DetectorSpec
from fastface.spelling import nearest

WHOLE = "none"
"""Given as --align: the whole image."""


class Preprocessed(Protocol):
    """The part of a card that says what a model's pictures show."""

    @property
    def input_size(self) -> tuple[int, int]: ...

    @property
    def crop(self) -> float | str | None: ...


class Seen(NamedTuple):
    """What a detector sees in an image."""

    face: Face | None
    """The one that is taken."""
    num_faces: int
    """Of sufficient score."""


class FaceFinder:
    """A detector, and which of several faces is taken.

    Args:
        detector: NAME:FILE, as for make_shards.py --detector.
        pick: largest or centre.
    """

    def __init__(self, detector: str | DetectorSpec, pick: str = "largest") -> None:
        self.spec = detector if isinstance(detector, DetectorSpec) else DetectorSpec.parse(detector)
        if pick not in PICKS:
            raise ValueError(f"--pick {pick!r}{nearest(pick, PICKS)}; choose one of {', '.join(PICKS)}")
        self.rules = Alignment("crop", self.spec, pick=pick)
        self.detector = self.spec.open()

    def __call__(self, image: np.ndarray) -> Seen:
        """Find the face of an image, uint8 RGB [H, W, 3]."""
        found = self.detector.detect([image])[0]
        height, width = image.shape[:2]
        return Seen(choose(found, self.rules, width, height), int((found.scores >= self.rules.threshold).sum()))


class Cut(NamedTuple):
    """How a model wants its pictures."""

    size: tuple[int, int]
    """Width, height in px."""
    crop: float | str | None
    """Central fraction, "box", a name of ALIGNMENTS, the text of a Context; None: the whole image."""
    margin: float = MARGIN
    """By which a box is enlarged, where crop is crop or pad."""

    @property
    def needs_face(self) -> bool:
        """Whether a face must be found first."""
        return isinstance(self.crop, str)

    def __call__(self, image: np.ndarray, face: Face | None) -> np.ndarray:
        """Cut a picture out of an image, uint8 RGB [H, W, 3]. Raises Rejected where the face has no place in it."""
        if not isinstance(self.crop, str):
            return cut_image(image, ImageSpec(size=self.size, crop=self.crop))
        if face is None:
            raise Rejected("no-face", "no face was found")
        if self.crop == "box":
            return cut_image(image, ImageSpec(size=self.size), face.box)
        context = Context.parse(self.crop)
        align = Alignment(self.crop, margin=self.margin) if context is None else Alignment(CONTEXT, context=context)
        return cut_face(image, face, self.size, align)[0]

    def __str__(self) -> str:
        how = {None: "whole image", "box": "the face's box"}.get(self.crop, self.crop)  # type: ignore[arg-type]
        how = f"central {self.crop:g}" if isinstance(self.crop, float) else how
        return f"{how}, {self.size[0]}x{self.size[1]} px"


def cut_for(
    card: Preprocessed, model: str, finder: FaceFinder | None, align: str | None = None, *, flag: str = "--align"
) -> Cut:
    """Return how a model's card wants its pictures; where the card does not say, `align` does, an option called `flag`.

    Raises:
        ValueError: where nobody says it, or faces are needed and nobody finds them.
    """
    if align is not None and align not in (*ALIGNMENTS, WHOLE):
        known = (*ALIGNMENTS, WHOLE)
        raise ValueError(f"{flag} {align!r}{nearest(align, known)}; choose one of {', '.join(known)}")
    crop = card.crop
    if crop is None and align is not None:
        crop = None if align == WHOLE else align
    elif crop is None and finder is not None:
        raise ValueError(
            f"{model}: its card does not say how faces are cut out for it; give {flag} five-point (as public "
            "ArcFace networks want them), crop, pad, or none for the whole image"
        )
    if isinstance(crop, str) and crop != "box" and crop not in ALIGNMENTS and Context.parse(crop) is None:
        raise ValueError(f"{model} wants faces cut by {crop!r}, which this version does not know")
    if isinstance(crop, str) and finder is None:
        raise ValueError(
            f"{model} was trained on faces cut out by {crop!r}, and a photograph does not say where its face is: "
            "give --detector yunet:FILE, mtcnn:DIR or ssd:PROTOTXT,CAFFEMODEL"
        )
    if crop == "five-point" and finder is not None and not finder.spec.kind.landmarks:
        raise ValueError(f"{model} wants eyes, nose and mouth, and {finder.spec.name} finds boxes only: take another")
    margin = getattr(card, "margin", None)
    return Cut(card.input_size, crop, MARGIN if margin is None else margin)
