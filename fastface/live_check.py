"""Pictures of a subject, or a clip, and a model of live and spoof -> live or not, at the threshold of its card."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastface.clip_scorer import load_temporal
from fastface.data.images import Rejected
from fastface.decision import Step, ms_since
from fastface.face_cut import Cut, FaceFinder, Seen, cut_for
from fastface.liveness_scorer import load_liveness


class Scorer(Protocol):
    """What tells live faces from attacks."""

    card: Any
    origin: str

    def scores(self, pictures: np.ndarray, /) -> np.ndarray:
        """Return the probability of live, float32 [B], of uint8 RGB images [B, H, W, 3] of the card's size."""
        ...


class Limit(NamedTuple):
    """From which score on a subject is live."""

    threshold: float
    about: str
    """What it was chosen for, and on what."""


class LiveCheck:
    """A liveness model, how it wants its pictures, and its threshold."""

    def __init__(self, scorer: Scorer, name: str, cut: Cut, threshold: Limit) -> None:
        self.scorer, self.name, self.cut, self.threshold = scorer, name, cut, threshold

    def __call__(self, subject: str, images: Sequence[np.ndarray], seen: Sequence[Seen]) -> tuple[Step, str | None]:
        """Judge a photograph, or a clip by the mean of its frames' scores; return the step, and why it is refused.

        images: uint8 RGB [H, W, 3]; seen: the face of each.
        """
        began = time.perf_counter()
        wanted, about = self.threshold
        try:
            pictures = np.stack([self.cut(image, one.face) for image, one in zip(images, seen, strict=True)])
        except Rejected as error:
            said = f"{subject}: {Path(self.name).name} cannot judge it: {error}"
            return Step("liveness", subject, ms_since(began), str(error), None, wanted, False, self.name), said
        scores = np.asarray(self.scorer.scores(pictures), np.float64)
        score = float(scores.mean())
        live = score >= wanted  # a NaN is not
        frames = f", mean of {len(scores)} frames" if len(scores) > 1 else ""
        said = f"{'live' if live else 'not live'}{frames} ({Path(self.name).name}, {self.cut})"
        step = Step("liveness", subject, ms_since(began), said, score, wanted, live, self.name)
        if live:
            return step, None
        return step, f"{subject} is not live: {score:.4f} < {wanted:.4f} (threshold {about}; {Path(self.name).name})"


class ClipCheck:
    """A model of clips, how it wants their frames, and its threshold."""

    def __init__(self, scorer: Scorer, name: str, cut: Cut, threshold: Limit) -> None:
        self.scorer, self.name, self.cut, self.threshold = scorer, name, cut, threshold

    @property
    def frames(self) -> int:
        """How many frames it looks at."""
        return self.scorer.card.frames

    @property
    def duration_s(self) -> float | None:
        """Of what it looks at; None: all of a clip."""
        return self.scorer.card.duration_s

    def __call__(self, subject: str, images: Sequence[np.ndarray], seen: Sequence[Seen]) -> tuple[Step, str | None]:
        """Judge a clip of `frames` frames as LiveCheck does; one without a face is cut where the nearest's is."""
        began = time.perf_counter()
        there = np.array([i for i, one in enumerate(seen) if one.face is not None])
        faces = [seen[int(there[np.abs(there - i).argmin()])].face if len(there) else None for i in range(len(seen))]
        try:
            clip = np.stack([self.cut(image, face) for image, face in zip(images, faces, strict=True)])
        except Rejected as error:
            return self._judged(subject, began, None, str(error))
        return self._judged(subject, began, float(self.scorer.scores(clip[None])[0]), f"{len(clip)} frames")

    def _judged(self, subject: str, began: float, score: float | None, what: str) -> tuple[Step, str | None]:
        wanted, about = self.threshold
        live = score is not None and score >= wanted
        said = f"{'live' if live else 'not live'}, {what} ({Path(self.name).name}, {self.cut})"
        step = Step("temporal", subject, ms_since(began), said, score, wanted, live, self.name)
        if live:
            return step, None
        found = what if score is None else f"{score:.4f} < {wanted:.4f}"
        return step, f"{subject} is not a living person's clip: {found} (threshold {about}; {Path(self.name).name})"


def load_clip_check(
    model: str | Path,
    finder: FaceFinder | None,
    *,
    rule: str | None = None,
    threshold: float | None = None,
    align: str | None = None,
    device: str = "cpu",
) -> ClipCheck:
    """Load a model of clips with its threshold; the arguments are those of `load_live_checks`."""
    scorer = load_temporal(model, device=device)
    cut = cut_for(scorer.card, str(model), finder, align, flag="--liveness-align")
    return ClipCheck(scorer, str(model), cut, _threshold(scorer.card, str(model), rule, threshold))


def load_live_checks(
    models: Sequence[str | Path],
    finder: FaceFinder | None,
    *,
    rule: str | None = None,
    threshold: float | None = None,
    align: str | None = None,
    device: str = "cpu",
) -> list[LiveCheck]:
    """Load liveness models, each with its threshold.

    Args:
        models: run or step folders, or .onnx files.
        finder: what finds the faces.
        rule: which threshold of their cards, such as apcer=0.05; None: the first.
        threshold: for all of them, instead of their cards'.
        align: how faces are cut out for models whose cards do not say.
    """
    checks = []
    for name in models:
        scorer = load_liveness(name, device=device)
        cut = cut_for(scorer.card, str(name), finder, align, flag="--liveness-align")
        checks.append(LiveCheck(scorer, str(name), cut, _threshold(scorer.card, str(name), rule, threshold)))
    return checks


def _threshold(card: Any, name: str, rule: str | None, threshold: float | None) -> Limit:
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"--liveness-threshold {threshold} must lie in 0 to 1: a score is a probability of live")
        return Limit(threshold, "as given")
    known = {each.rule: each for each in card.thresholds}
    if not known:
        raise ValueError(
            f"{name}: its card has no threshold; calibrate it with export.py --calibrate, or give "
            "--liveness-threshold, such as 0.5"
        )
    if rule is not None and rule not in known:
        raise ValueError(f"{name} has no threshold for {rule!r}; it was calibrated for {', '.join(known)}")
    chosen = known[rule] if rule is not None else card.thresholds[0]
    return Limit(chosen.threshold, f"for {chosen.rule} on {chosen.source}")
