"""A photograph or a clip -> the face in it, cut out for every model and judged alive or not, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.clips import read_clip
from fastface.data.images import Rejected, load_rgb
from fastface.data.sources import nearest_path, read_file
from fastface.data.sources.video import VIDEOS
from fastface.decision import Step, ms_since
from fastface.face_cut import Cut, FaceFinder, Seen
from fastface.live_check import ClipCheck, LiveCheck

FRAMES = 8  # of a clip, where no model of clips says how many it looks at


class Captured(NamedTuple):
    """A subject, as the recognition models take it."""

    subject: str
    pictures: list[np.ndarray]
    """For each recognition model uint8 RGB [F, H, W, 3]; F is 1 for a photograph. Empty where it is refused."""
    steps: list[Step]
    refusals: list[str]
    """Why it goes no further."""
    num_faces: int = 1
    """The most that were found in one image."""


class Capture:
    """Read, detect, cut, judge.

    Args:
        cuts: how each recognition model wants its pictures.
        finder: what finds faces; None: the cuts need none.
        checks: what tells live faces from attacks; a subject must be live by each.
        clip_check: what tells clips of live faces from clips of attacks; then photographs cannot be judged.
        frames: of a clip that are looked at, evenly over its time; `clip_check` has its own number.
        fps: rate at which the pictures of a folder were taken, where `clip_check` looks at so many seconds.
    """

    def __init__(
        self,
        cuts: Sequence[Cut],
        finder: FaceFinder | None = None,
        checks: Sequence[LiveCheck] = (),
        clip_check: ClipCheck | None = None,
        *,
        frames: int = FRAMES,
        fps: float | None = None,
    ) -> None:
        self.cuts, self.finder, self.checks, self.clip_check = tuple(cuts), finder, tuple(checks), clip_check
        self.frames, self.fps = frames, fps

    def __call__(self, path: str | Path, *, live: bool = True) -> Captured:
        """Take in a photograph or a clip; it must show a living person where `live` is asked for.

        Raises:
            ValueError: where it cannot be read.
        """
        began = time.perf_counter()
        clip = is_clip(Path(path))
        if live and self.clip_check is not None and not clip:
            raise ValueError(
                f"--temporal judges clips, and {path} is none: give a video or a folder of frames (or --live second, "
                "where the first is a picture that is trusted)"
            )
        images = self._read_clip(Path(path)) if clip else [read_photograph(Path(path))]
        height, width = images[0].shape[:2]
        count = f"{len(images)} frames of " if clip else ""
        read = Step("read", str(path), ms_since(began), f"{count}{width}x{height} px")
        captured = self.take(str(path), images, live=live)
        return captured._replace(steps=[read, *captured.steps])

    def _read_clip(self, path: Path) -> list[np.ndarray]:
        check = self.clip_check
        if check is None:
            return list(read_clip(path, self.frames)[0])
        return list(read_clip(path, check.frames, duration_s=check.duration_s, fps=self.fps)[0])

    def take(self, subject: str, images: Sequence[np.ndarray], *, live: bool = True) -> Captured:
        """Take in the image, or the frames of a clip, uint8 RGB [H, W, 3]."""
        steps: list[Step] = []
        seen = [Seen(None, 1) for _ in images]
        if self.finder is not None:
            began = time.perf_counter()
            seen = [self.finder(image) for image in images]
            step, refusal = told(subject, seen, self.finder, ms_since(began))
            steps.append(step)
            if refusal is not None:
                return Captured(subject, [], steps, [refusal], 0)
        most = max(one.num_faces for one in seen)
        all_images, all_seen = images, seen
        if self.finder is not None:
            images = [image for image, one in zip(images, seen, strict=True) if one.face is not None]
            seen = [one for one in seen if one.face is not None]
        shown = [(image, one.face) for image, one in zip(images, seen, strict=True)]
        began = time.perf_counter()
        done: dict[Cut, np.ndarray] = {}
        try:
            for cut in self.cuts:
                if cut not in done:
                    done[cut] = np.stack([cut(image, face) for image, face in shown])
        except Rejected as error:
            return Captured(subject, [], steps, [f"{subject}: the face cannot be cut out: {error}"], most)
        steps.append(Step("cut", subject, ms_since(began), "; ".join(map(str, done))))
        judged = [check(subject, images, seen) for check in self.checks if live]
        if live and self.clip_check is not None:
            judged.append(self.clip_check(subject, all_images, all_seen))
        steps += [step for step, _ in judged]
        refusals = [reason for _, reason in judged if reason is not None]
        return Captured(subject, [] if refusals else [done[cut] for cut in self.cuts], steps, refusals, most)


def is_clip(path: Path) -> bool:
    """Tell a video, or a folder of frames, from a photograph."""
    return path.is_dir() or path.suffix.lower() in VIDEOS


def read_photograph(path: Path) -> np.ndarray:
    """Read an image, upright, uint8 RGB [H, W, 3]; ValueError says what is wrong with it."""
    if not path.exists():
        raise ValueError(f"there is no {path}{nearest_path(path)}")
    try:
        return load_rgb(read_file(path, follow=True))
    except Rejected as error:
        raise ValueError(f"{path} cannot be read as an image: {error.reason} ({error})") from None


def told(subject: str, seen: Sequence[Seen], finder: FaceFinder, ms: float) -> tuple[Step, str | None]:
    """Say what a detector saw of a subject, and why it is refused where it saw nobody."""
    name = finder.spec.name
    faces = [one.face for one in seen if one.face is not None]
    if not faces:
        step = Step("detect", subject, ms, "no face", None, finder.rules.threshold, False, name)
        return step, f"{subject}: no face found ({name}, score {finder.rules.threshold:g} or more)"
    if 2 * len(faces) < len(seen):
        said = f"a face in {len(faces)} of {len(seen)} frames only"
        step = Step("detect", subject, ms, f"{said} ({name})", None, finder.rules.threshold, False, name)
        return step, f"{subject}: {said} ({name})"
    most = max(one.num_faces for one in seen)
    which = "the largest was taken" if finder.rules.pick == "largest" else "the one nearest to the centre was taken"
    said = "one face" if most == 1 else f"{most} faces: {which}"
    said += f", in {len(faces)} of {len(seen)} frames" if len(seen) > 1 else ""
    score = float(np.mean([face.score for face in faces]))
    return Step("detect", subject, ms, f"{said} ({name})", score, finder.rules.threshold, True, name), None
