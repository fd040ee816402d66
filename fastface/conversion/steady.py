"""The faces of a clip's frames -> one place for all of them: what moves in the pictures is the face, not the cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fastface.conversion.faces import Face

if TYPE_CHECKING:
    from fastface.data.sources import Source


class ClipFaces:
    """Remembers the clip that was asked for last: frames come clip by clip."""

    def __init__(self) -> None:
        self._clip: int | None = None
        self._face: Face | None = None

    def of(self, source: Source, record: int, find: Callable[[int], Face | None]) -> Face | None:
        """Return the median of the faces in the frames of a record's clip; None where `find` finds none in any.

        It is that of every frame of the clip, in this shard or not, so it does not depend on how frames are divided.
        """
        clips = source.columns["clip"]
        if clips[record] != self._clip:
            frames = np.flatnonzero(clips == clips[record]).tolist()
            faces = [face for frame in frames if (face := find(frame)) is not None]
            self._face = _median(faces) if faces else None
            self._clip = int(clips[record])
        return self._face


def _median(faces: list[Face]) -> Face:
    box, landmarks = (np.median([getattr(face, what) for face in faces], axis=0) for what in ("box", "landmarks"))
    return Face(box, landmarks, float(np.median([face.score for face in faces])))
