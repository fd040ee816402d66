"""Two photographs or clips -> a decision with its reasons: found, cut out, alive, one person."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface.capture import FRAMES, Capture
from fastface.card import Threshold
from fastface.comparator import LoadedMatcher, load_matcher
from fastface.decision import Comparison, Decision, Step, ms_since
from fastface.detection import DetectorSpec
from fastface.face_cut import FaceFinder
from fastface.live_check import load_clip_check, load_live_checks
from fastface.metrics.scores import unit
from fastface.recognition import Recognition
from fastface.spelling import nearest

LIVE = ("both", "second")
"""Which of two photographs must show a living person."""


class Verifier:
    """Compare two photographs or clips.

    >>> verifier = Verifier("runs/demo/20261122T170000Z")
    >>> verifier.compare("a.jpg", "b.jpg").similarity
    >>> verifier = Verifier("model.onnx", detector="yunet:yunet.onnx")
    >>> print(verifier.compare("a.jpg", "b.jpg"))

    Args:
        recognition: what embeds faces: a run or step folder or .onnx file, or several, for `fusion` or `match`.
        fusion: what makes one embedding of several models', a run or file of task fusion.
        match: what compares the embeddings, a run or file of task match; None: the cosine does.
        detector: what finds faces, NAME:FILE as for make_shards.py; None: the photographs show what the models saw.
        liveness: models by each of which a photograph must show a living person.
        temporal: a model of clips by which a clip must show a living person; then there are no photographs to judge.
        frames: of a clip that are looked at; `temporal` has its own number.
        fps: rate at which the pictures of a folder were taken.
        live: both; or second, where the first is a picture that is trusted, such as an enrolled or a passport's one.
        liveness_rule: which threshold of their cards, such as "bpcer=0.01"; None: the first.
        liveness_threshold: for all of them, instead of their cards'.
        liveness_align: as align, for them.
        align: how faces are cut out for models whose cards do not say: five-point, crop, pad, none.
        pick: which of several faces is taken, largest or centre.
        target_fmr: false match rate of the threshold.
        prior: share of pairs that show one person, where the probability is to hold.
    """

    def __init__(
        self,
        recognition: str | Path | Sequence[str | Path],
        *,
        fusion: str | Path | None = None,
        match: str | Path | None = None,
        detector: str | DetectorSpec | None = None,
        align: str | None = None,
        pick: str = "largest",
        liveness: Sequence[str | Path] = (),
        temporal: str | Path | None = None,
        frames: int = FRAMES,
        fps: float | None = None,
        live: str = "both",
        liveness_rule: str | None = None,
        liveness_threshold: float | None = None,
        liveness_align: str | None = None,
        target_fmr: float = 1e-2,
        prior: float = 0.5,
        device: str = "cpu",
    ) -> None:
        if not 0 < prior < 1:
            raise ValueError(f"the prior is {prior}: it is a share of pairs, between 0 and 1")
        models = [recognition] if isinstance(recognition, (str, Path)) else list(recognition)
        finder = None if detector is None else FaceFinder(detector, pick)
        self.recognition = Recognition(models, fusion=fusion, finder=finder, align=align, device=device)
        self.matcher: LoadedMatcher | None = None if match is None else load_matcher(match, device=device)
        if self.matcher is None and not self.recognition.one_space:
            raise ValueError(
                f"{len(models)} recognition models: give --fusion, which makes one embedding of theirs, or --match, "
                "which was trained on theirs side by side"
            )
        if self.matcher is not None:
            check_match(self.matcher, self.recognition)
        if live not in LIVE:
            raise ValueError(f"--live {live!r}{nearest(live, LIVE)}; choose one of {', '.join(LIVE)}")
        rules: dict[str, Any] = {
            "rule": liveness_rule,
            "threshold": liveness_threshold,
            "align": liveness_align,
            "device": device,
        }
        checks = load_live_checks(liveness, finder, **rules)
        clip_check = None if temporal is None else load_clip_check(temporal, finder, **rules)
        self.capture = Capture(self.recognition.cuts, finder, checks, clip_check, frames=frames, fps=fps)
        self.live = live
        self.checked = finder is not None or len(models) > 1 or bool(checks) or clip_check is not None
        self.prior = prior
        decides = self.recognition if self.matcher is None else self.matcher.card
        self.calibration = decides.calibration
        self.threshold = threshold_for(decides.thresholds, target_fmr, str(match or fusion or models[0]))

    def rows(self, path: str | Path) -> np.ndarray:
        """Return the embedding [1, D] of a photograph or clip, prepared as training images were, not of unit length."""
        captured = self.capture(path, live=False)
        if captured.refusals:
            raise ValueError("; ".join(captured.refusals))
        return self.recognition.embed(captured.pictures)[0][None]

    def embed(self, path: str | Path) -> np.ndarray:
        """Return the unit-length embedding [D] of one photograph, prepared as the training images were."""
        return unit(self.rows(path))[0]

    def compare(self, first: str | Path, second: str | Path) -> Decision:
        """Say whether two photographs or clips are accepted as one person, and why.

        Raises:
            ValueError: where one cannot be read.
        """
        captured = [self.capture(first, live=self.live == "both"), self.capture(second)]
        steps = [step for one in captured for step in one.steps]
        refusals = [reason for one in captured for reason in one.refusals]
        if refusals:
            return Decision(tuple(steps), tuple(refusals), None, self.checked)
        rows = []
        for one in captured:
            row, own = self.recognition.embed(one.pictures, one.subject)
            rows.append(row)
            steps += own
        began = time.perf_counter()
        comparison = self.match(*rows)
        passed = None if comparison.same is None else bool(comparison.same)
        ms = ms_since(began)
        wanted = None if self.threshold is None else self.threshold.threshold
        said = "cosine" if self.matcher is None else f"matcher {self.matcher.origin}"
        steps.append(Step("match", "", ms, said, comparison.score, wanted, passed))
        return Decision(tuple(steps), (), comparison, self.checked)

    def match(self, first: np.ndarray, second: np.ndarray) -> Comparison:
        """Compare two embeddings [D] as `recognition` gives them."""
        a, b = first[None], second[None]
        similarity = score = float(np.float32(unit(a)[0] @ unit(b)[0]))
        if self.matcher is not None:
            score = float(self.matcher.score(a.astype(np.float32), b.astype(np.float32))[0])
        same = None if self.threshold is None else score >= self.threshold.threshold
        return Comparison(similarity, same, self.threshold, score, self.calibration, self.prior)


def check_match(matcher: LoadedMatcher, recognition: Recognition) -> None:
    """Raise a ValueError where a matcher was trained on embeddings of other sizes."""
    if matcher.card.embedding_sizes != recognition.sizes:
        names, made = recognition.origin, " and ".join(map(str, recognition.sizes))
        raise ValueError(
            f"{matcher.origin} compares embeddings of {matcher.card.embedding_sizes} values, {names} makes {made}: "
            "give the models of its training embeddings, in their order"
        )


def threshold_for(thresholds: Sequence[Threshold], target_fmr: float, model: str) -> Threshold | None:
    """Return the threshold for a false match rate; None where there are none, ValueError where there are others."""
    found = next((t for t in thresholds if t.target_fmr == target_fmr), None)
    if found is None and thresholds:
        offered = [t.target_fmr for t in thresholds]
        raise ValueError(f"{model} has no threshold for FMR {target_fmr}; it was calibrated at {offered}")
    return found
