"""An image's bytes, and how its face is found and cut -> the prepared image, and where that face lies in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastface.data.align import (
    ALIGNMENTS,
    MARGIN,
    enlarged,
    fitted,
    similarity,
    template,
    warp,
)
from fastface.data.context import Context, cut_context
from fastface.data.geometry import cut_matrix, move_boxes, move_points
from fastface.data.images import ImageSpec, Prepared, Rejected, encode, load_rgb, prepare
from fastface.detection import Detector, DetectorSpec
from fastface.detection.cache import Known, key_of
from fastface.detection.found import Found
from fastface.spelling import nearest

if TYPE_CHECKING:
    from fastface.data.sources import Source

PICKS = ("largest", "centre")
NO_FACE = ("whole", "reject")
LEAST = 0.5  # score of a face, where the user sets none
FACE_COLUMNS = {"box": 4, "landmarks": 10, "detection_score": 1}  # float32 each, NaN where not known
WIDTH = sum(FACE_COLUMNS.values())
CONTEXT = "context"  # a method beside ALIGNMENTS: --crop box --context, the box with its surroundings
SAVE_EVERY = 1000  # images between two files of the cache: 1 to 30 s of work


@dataclass(frozen=True)
class Alignment:
    """How faces are found and cut; the command line of tools/make_shards.py explains each."""

    method: str  # one of ALIGNMENTS, or CONTEXT
    detector: DetectorSpec | None = None  # None: the boxes or landmarks of the source
    least: float | None = None  # smallest score of a face; None: 0.5, or the smallest that the detector reports
    pick: str = "largest"
    no_face: str = "whole"
    margin: float = MARGIN
    context: Context | None = None  # of method CONTEXT
    steady: bool = False  # one place for all frames of a clip: see steady.py

    def __post_init__(self) -> None:
        assert (self.method == CONTEXT) == (self.context is not None)
        if self.context is not None and not 0.1 <= self.context.scale <= 20:
            raise ValueError(f"--context {self.context.scale:g} must lie in 0.1 to 20 times the box; 2.7 is usual")
        for flag, value, known in (
            ("--align", self.method, (*ALIGNMENTS, CONTEXT)),
            ("--pick", self.pick, PICKS),
            ("--no-face", self.no_face, NO_FACE),
        ):
            if value not in known:
                raise ValueError(f"{flag} {value!r}{nearest(value, known)}; choose one of {', '.join(known)}")
        if not 0 <= self.margin <= 10:
            raise ValueError(f"--margin {self.margin} must lie in 0 to 10: 0.25 makes each side a quarter longer")
        if self.least is not None and not 0 <= self.least <= 1:
            raise ValueError(f"--detect-min {self.least} must lie in 0 to 1")
        if self.detector is None:
            return
        kind = self.detector.kind
        if self.method == "five-point" and not kind.landmarks:
            raise ValueError(
                f"--align five-point: {self.detector.name} finds boxes only; use crop, pad or a detector with landmarks"
            )
        if self.least is not None and self.least < kind.least:
            raise ValueError(f"--detect-min {self.least}: {self.detector.name} reports no face below {kind.least}")

    @property
    def threshold(self) -> float:
        """The smallest score of a face."""
        assert self.detector is not None
        return max(LEAST, self.detector.kind.least) if self.least is None else self.least

    @property
    def needs(self) -> str:
        """What a source must tell where there is no detector."""
        return "landmarks" if self.method == "five-point" else "boxes"

    @property
    def named(self) -> str:
        """What asks for it on the command line."""
        return f"--align {self.method}" if self.context is None else f"--crop box --context {self.context.scale:g}"

    @property
    def crop(self) -> str:
        """What images show, as meta.json and cards remember it."""
        return self.method if self.context is None else str(self.context)

    def check_source(self, source: Source, what: str) -> None:
        """Raise a ValueError where nobody tells where faces are, or a column of the source would be written over."""
        if own := sorted(FACE_COLUMNS.keys() & source.columns.keys()):
            raise ValueError(f"{self.named} writes a column {own[0]!r}, and {what} has one of that name: rename it")
        if self.steady and "clip" not in source.columns:
            raise ValueError(f"--steady is for the frames of clips, and {what} has none: leave it out, or give --fps")
        if self.detector is None and getattr(source, self.needs) is None:
            raise ValueError(f"{self.named}: {what} has no {self.needs}; add --detector to find the faces")

    def essence(self) -> dict[str, Any]:
        """Return what decides the bytes of the output, as plain values."""
        plain: dict[str, Any] = {"method": self.method, "no_face": self.no_face, "steady": self.steady}
        if self.context is not None:
            plain |= self.context._asdict()
        elif self.method != "five-point":
            plain["margin"] = self.margin
        if self.detector is not None:
            plain |= {"detector": self.detector.essence(), "least": self.threshold, "pick": self.pick}
        return plain


class Face(NamedTuple):
    """A face of one image."""

    box: np.ndarray  # [4] x0 y0 x1 y1, in px from the edges of the image
    landmarks: np.ndarray  # [5, 2], the same
    score: float

    def row(self) -> np.ndarray:
        """Return float32 [15]: box, landmarks, score, as FACE_COLUMNS has them."""
        return np.concatenate([self.box, self.landmarks.ravel(), [self.score]]).astype(np.float32)


NOBODY = Face(np.full(4, np.nan), np.full((5, 2), np.nan), np.nan)


class Finder:
    """A detector in a worker process, and what it found in earlier conversions.

    Made in the parent, where only the cache is read; the detector, and with it torch, is loaded in the worker
    that first needs it. Images are looked at one by one, as a batch moves the last bits of a result, and these
    may depend on nothing but the image.
    """

    def __init__(self, spec: DetectorSpec, folder: Path) -> None:
        self.spec, self.known = spec, Known(folder, spec)
        self._new: dict[bytes, Found] = {}
        self._detector: Detector | None = None

    def find(self, data: bytes, image: np.ndarray) -> Found:
        """Return the faces of an image, given as its bytes and as its pixels."""
        key = key_of(data)
        faces = self.known.find(key) or self._new.get(key)
        if faces is None:
            self._detector = self._detector or self._open()
            faces = self._new[key] = self._detector.detect([image])[0]
            if len(self._new) >= SAVE_EVERY:
                self.save()
        return faces

    def may_fork(self) -> bool:
        """Tell whether workers may be forked: a torch that has worked in the parent hangs in them (2.15)."""
        return "torch" not in sys.modules or "torch" not in self.spec.kind.packages

    def _open(self) -> Detector:
        os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded: a process per core is enough
        detector = self.spec.open()
        if "torch" in self.spec.kind.packages:
            sys.modules["torch"].set_num_threads(1)  # where the program loads it at its start, as in a spawned worker
        return detector

    def save(self) -> None:
        """Keep what was found since the last time for later conversions."""
        self.known.add(self._new)
        self._new.clear()


def choose(faces: Found, align: Alignment, width: int, height: int) -> Face | None:
    """Pick the largest face of an image, or the one nearest to its centre, among those that score enough."""
    real = (faces.boxes[:, 2:] > faces.boxes[:, :2]).all(axis=1)
    good = np.flatnonzero(real & (faces.scores >= align.threshold))
    if not len(good):
        return None
    boxes = faces.boxes[good].astype(np.float64)
    if align.pick == "largest":
        best = int((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).argmax())
    else:
        best = int(np.abs((boxes[:, :2] + boxes[:, 2:]) @ [1, 1j] - complex(width, height)).argmin())
    chosen = good[best]
    # half a pixel: see fastface.data.align
    return Face(boxes[best], faces.landmarks[chosen].astype(np.float64) + 0.5, float(faces.scores[chosen]))


def face_of_source(source: Source, record: int, align: Alignment) -> Face | None:
    """Return the face that the source itself tells of; None where what is needed of it is not a number."""
    known = {"boxes": np.full(4, np.nan), "landmarks": np.full((5, 2), np.nan)}
    for name, nothing in known.items():
        if (column := getattr(source, name)) is not None:
            known[name] = np.asarray(column[record], np.float64).reshape(nothing.shape)
    return None if np.isnan(known[align.needs]).any() else Face(known["boxes"], known["landmarks"], np.nan)


def prepare_face(data: bytes, spec: ImageSpec, align: Alignment, find: Callable[[np.ndarray], Face | None]) -> Prepared:
    """Decode an image, find its face, cut it out as `align` says and encode it.

    Where there is none the whole image is taken: the largest centred part of the target's aspect, or with pad
    all of it (and where it fits its bytes are kept). Raises Rejected, with no-face where that is wanted.
    """
    image = load_rgb(data)
    height, width = image.shape[:2]
    face = find(image)
    if face is None:
        if align.no_face == "reject":
            raise Rejected("no-face", "no face was found")
        if align.method != "pad" or spec.size is None or width * spec.size[1] == height * spec.size[0]:
            return prepare(data, spec)._replace(face=NOBODY.row())
    picture, matrix = cut_face(image, face, spec.size, align)
    face = face or NOBODY
    moved = Face(move_boxes(face.box, matrix), move_points(face.landmarks, matrix), face.score)
    return encode(picture, spec)._replace(face=moved.row(), matrix=tuple(matrix.ravel().tolist()))


def cut_face(
    image: np.ndarray, face: Face | None, size: tuple[int, int] | None, align: Alignment
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture of a face, or with pad of a whole image, and the map from the image to it.

    size: (width, height) of the picture; with a context, None keeps the pixels of the image as they are.
    Raises Rejected where the box is not in the image, or the landmarks span no face.
    """
    if align.context is not None and face is not None:
        _check_inside(face.box, image)
        picture, part = cut_context(image, face.box, align.context, size)
        return picture, np.array(cut_matrix(part.tolist(), picture.shape[1], picture.shape[0])).reshape(2, 3)
    assert size is not None
    if align.method == "five-point" and face is not None:
        try:
            matrix = similarity(face.landmarks, template(size))
        except ValueError as error:
            raise Rejected("bad-box", str(error)) from None
        return warp(image, matrix, size), matrix
    whole = np.array([0, 0, *image.shape[1::-1]], np.float64)
    box = whole if face is None else face.box
    _check_inside(box, image)
    if align.method == "crop":
        matrix = fitted(enlarged(box, align.margin, size[0] / size[1]), size)
        return warp(image, matrix, size), matrix
    if face is not None:
        box = enlarged(box, align.margin)
    left, top, right, bottom = (
        np.concatenate([np.maximum(box[:2], 0), np.minimum(box[2:], whole[2:])]).round().astype(int)
    )
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    matrix = fitted(np.array([0, 0, right - left, bottom - top], np.float64), size)
    picture = warp(part, matrix, size)
    matrix[:, 2] -= matrix[:, :2] @ [left, top]
    return picture, matrix


def _check_inside(box: np.ndarray, image: np.ndarray) -> None:
    """Raise Rejected where no part of a box is in the image."""
    edges = image.shape[1::-1]
    if not np.isfinite(box).all() or (np.maximum(box[:2], 0) >= np.minimum(box[2:], edges)).any():
        raise Rejected("bad-box", f"the box {box.tolist()} of the face is not in the image, {edges} px")


def chosen_columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Divide float32 [N, 15] into the columns of the index."""
    ends = np.cumsum(list(FACE_COLUMNS.values()))[:-1]
    parts = np.split(rows, ends, axis=1)
    return {
        name: np.ascontiguousarray(part if wide > 1 else part[:, 0])
        for (name, wide), part in zip(FACE_COLUMNS.items(), parts, strict=True)
    }
