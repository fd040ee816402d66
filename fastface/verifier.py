"""Two photographs -> their similarity, the decision, how likely they show one person, and what that rests on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.card import Calibration, Threshold
from fastface.comparator import LoadedMatcher, load_matcher
from fastface.data.images import ImageSpec, load_rgb
from fastface.metrics.scores import unit
from fastface.predictor import load_embedder


class Comparison(NamedTuple):
    similarity: float
    """The cosine."""
    same: bool | None
    """None where the model has no threshold."""
    threshold: Threshold | None
    score: float
    """What is decided by: the similarity, or a matcher's log-odds."""
    calibration: Calibration | None = None
    prior: float = 0.5

    @property
    def llr(self) -> float | None:
        """The log-likelihood ratio (natural logarithm); None where the model is not calibrated."""
        return None if self.calibration is None else self.calibration.llr(self.score)

    @property
    def probability(self) -> float | None:
        """That the two show one person, where a share `prior` of pairs does."""
        return None if self.calibration is None else self.calibration.probability(self.score, self.prior)

    def __str__(self) -> str:
        matched = "" if self.score == self.similarity else f", matcher {self.score:.4f}"
        t = self.threshold
        if t is None:
            decision = "no decision: the model has no threshold, see export.py --calibrate"
        else:
            doubt = "" if t.supported else f", a guess: calibrated on {t.impostors:,} impostor pairs only"
            decision = (
                f"{'same person' if self.same else 'different people'} "
                f"(threshold {t.threshold:.4f} for FMR {t.target_fmr:g}{doubt})"
            )
        lines = [f"similarity {self.similarity:.4f}{matched}; {decision}"]
        if self.llr is not None:
            lines.append(
                f"log-likelihood ratio {self.llr:+.2f}: one person with probability {self.probability:.4f}, "
                f"where {self.prior:g} of pairs show one"
            )
        return "\n".join([*lines, *self.evidence()])

    def evidence(self) -> list[str]:
        """Say what decision and probability rest on, in lines; nothing for cards that do not tell."""
        lines, t, c = [], self.threshold, self.calibration
        if t is not None and t.errors is not None and t.fmr_interval is not None:
            low, high = t.fmr_interval
            lines.append(
                f"threshold: {t.errors:,} of {t.impostors:,} impostor pairs accepted, FMR {t.fmr:.2e} "
                f"[{low:.2e}, {high:.2e}], TAR {t.tar:.4f} of {t.genuine:,} genuine pairs; {t.source}"
            )
        if c is not None:
            lines.append(
                f"calibration: {c.genuine:,} genuine and {c.impostors:,} impostor pairs, held-out Cllr {c.cllr:.4f} "
                f"bits, ECE {c.ece:.4f}; {c.source}"
            )
        return lines


class Verifier:
    """Compare two photographs.

    >>> verifier = Verifier("runs/demo/20261122T170000Z")
    >>> verifier.compare("a.jpg", "b.jpg").similarity

    Args:
        model: what embeds them.
        match: what compares the embeddings, a run or file of task match; None: the cosine does.
        target_fmr: false match rate of the threshold.
        prior: share of pairs that show one person, where the probability is to hold.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        match: str | Path | None = None,
        target_fmr: float = 1e-2,
        prior: float = 0.5,
        device: str = "cpu",
    ) -> None:
        if not 0 < prior < 1:
            raise ValueError(f"the prior is {prior}: it is a share of pairs, between 0 and 1")
        self.embedder = load_embedder(model, device=device)
        self.matcher: LoadedMatcher | None = None if match is None else load_matcher(match, device=device)
        self.prior = prior
        decides = self.embedder.card if self.matcher is None else self.matcher.card
        self.calibration = decides.calibration
        self.threshold = next((t for t in decides.thresholds if t.target_fmr == target_fmr), None)
        offered = [t.target_fmr for t in decides.thresholds]
        if self.threshold is None and offered:
            raise ValueError(f"{match or model} has no threshold for FMR {target_fmr}; it was calibrated at {offered}")

    def rows(self, path: str | Path) -> np.ndarray:
        """Return the embedding [1, D] of one photograph, prepared as the training images were, not of unit length."""
        card = self.embedder.card
        if isinstance(card.crop, str):
            raise ValueError(
                f"this model was trained on faces cut out by {card.crop!r}, and a photograph does not say where its "
                "face is: cut faces out the same way with tools/make_shards.py and evaluate on the shards"
            )
        crop = card.crop if isinstance(card.crop, float) else None
        image = load_rgb(Path(path).read_bytes(), ImageSpec(size=card.input_size, crop=crop))
        return self.embedder(image[None])

    def embed(self, path: str | Path) -> np.ndarray:
        """Return the unit-length embedding [D] of one photograph, prepared as the training images were."""
        return unit(self.rows(path))[0]

    def compare(self, first: str | Path, second: str | Path) -> Comparison:
        """Return the similarity of two photographs, the decision at the model's threshold, and the probability."""
        a, b = self.rows(first), self.rows(second)
        similarity = score = float(np.float32(unit(a)[0] @ unit(b)[0]))
        if self.matcher is not None:
            if self.matcher.card.embedding_sizes != (a.shape[1],):
                raise ValueError(
                    f"{self.matcher.origin} compares embeddings of {self.matcher.card.embedding_sizes} values, "
                    f"{self.embedder.origin} makes {a.shape[1]}: give the model of its training embeddings"
                )
            score = float(self.matcher.score(a.astype(np.float32), b.astype(np.float32))[0])
        same = None if self.threshold is None else score >= self.threshold.threshold
        return Comparison(similarity, same, self.threshold, score, self.calibration, self.prior)
