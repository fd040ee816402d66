"""What the steps of a check said -> one decision with its reasons, for people and for programs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastface.card import Calibration, Threshold

NAMES = ("read", "detect", "cut", "liveness", "temporal", "embed", "fuse", "match", "search")
"""Steps, in their order."""


class Step(NamedTuple):
    """One thing that was done for a decision."""

    name: str
    """One of NAMES."""
    subject: str
    """The photograph or clip; empty where it is about both."""
    ms: float
    said: str
    """What came out, in words."""
    score: float | None = None
    threshold: float | None = None
    passed: bool | None = None
    """None where a step decides nothing."""
    model: str | None = None

    def __str__(self) -> str:
        score = "" if self.score is None else f"score {self.score:.4f}"
        return f"{self.name:<9}{self.ms:8.1f} ms  {score:<13} {self.subject}: {self.said}".replace(" : ", " ")


def ms_since(began: float) -> float:
    """Return the ms since time.perf_counter() gave `began`."""
    return (time.perf_counter() - began) * 1000


class Comparison(NamedTuple):
    """Two embeddings, compared."""

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
        lines = [f"similarity {self.similarity:.4f}{matched}; {self.verdict()}"]
        if self.llr is not None:
            lines.append(
                f"log-likelihood ratio {self.llr:+.2f}: one person with probability {self.probability:.4f}, "
                f"where {self.prior:g} of pairs show one"
            )
        return "\n".join([*lines, *self.evidence()])

    def verdict(self) -> str:
        """Say what the threshold decides."""
        t = self.threshold
        if t is None:
            return "no decision: the model has no threshold, see export.py --calibrate"
        doubt = "" if t.supported else f", a guess: calibrated on {t.impostors:,} impostor pairs only"
        who = "same person" if self.same else "different people"
        return f"{who} (threshold {t.threshold:.4f} for FMR {t.target_fmr:g}{doubt})"

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


@dataclass(frozen=True)
class Decision:
    """Whether two photographs or clips are accepted as living faces of one person, and why."""

    steps: tuple[Step, ...]
    refusals: tuple[str, ...]
    """Why a subject is refused before it is compared: no face, not live."""
    comparison: Comparison | None
    """None where a subject is refused: nothing is compared then."""
    checked: bool
    """Whether anything was asked beyond a comparison: then the steps are shown."""

    @property
    def accepted(self) -> bool | None:
        """None where they were compared, and the model has no threshold."""
        return False if self.comparison is None else self.comparison.same

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the decision rests on; of one that accepts, the last step."""
        if self.comparison is None:
            return self.refusals
        c = self.comparison
        score = f"{'similarity' if c.score == c.similarity else 'matcher'} {c.score:.4f}"
        return (f"{score}; {c.verdict()}",)

    @property
    def similarity(self) -> float | None:
        """The cosine; None where nothing was compared."""
        return None if self.comparison is None else self.comparison.similarity

    @property
    def score(self) -> float | None:
        """What is decided by: the similarity, or a matcher's log-odds."""
        return None if self.comparison is None else self.comparison.score

    @property
    def same(self) -> bool | None:
        """Whether they show one person; None where nothing was compared or there is no threshold."""
        return None if self.comparison is None else self.comparison.same

    @property
    def llr(self) -> float | None:
        """See Comparison."""
        return None if self.comparison is None else self.comparison.llr

    @property
    def probability(self) -> float | None:
        """See Comparison."""
        return None if self.comparison is None else self.comparison.probability

    @property
    def not_run(self) -> tuple[str, ...]:
        """The steps that a refusal made superfluous."""
        return () if self.comparison is not None else ("embed", "match")

    def __str__(self) -> str:
        if not self.checked:
            return str(self.comparison)
        lines = [str(step) for step in self.steps]
        if self.comparison is not None:
            lines.append(str(self.comparison))
        if self.not_run:
            lines.append(f"not run: {', '.join(self.not_run)}")
        word = {True: "accepted", False: "refused", None: "no decision"}[self.accepted]
        lines.append("\n".join(f"{word}: {reason}" for reason in self.reasons))
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return what json.dumps takes."""
        c = self.comparison
        compared = None
        if c is not None:
            compared = {
                "similarity": c.similarity,
                "score": c.score,
                "same": c.same,
                "threshold": None if c.threshold is None else c.threshold.model_dump(mode="json"),
                "llr": c.llr,
                "probability": c.probability,
                "prior": c.prior,
            }
        return {
            "accepted": self.accepted,
            "reasons": list(self.reasons),
            "comparison": compared,
            "steps": [step._asdict() for step in self.steps],
            "not_run": list(self.not_run),
        }
