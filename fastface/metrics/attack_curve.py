"""Presentations -> the exact curve of what is accepted as live at every threshold, by species of attack.

A presentation is accepted as live iff score >= threshold. Nothing here interpolates. APCER and BPCER are those of
ISO/IEC 30107-3: attack presentations (of one species of attack instrument) accepted, bona fide ones refused.
"""

from typing import NamedTuple

import numpy as np

from fastface.metrics.curve import Curve, allowed_errors, area, equal_error
from fastface.metrics.presentations import Presentations

TARGETS = {"bpcer10": 1 / 10, "bpcer20": 1 / 20, "bpcer100": 1 / 100}  # BPCER where APCER is at most this


class Ranked(NamedTuple):
    """Presentations in order of descending score, non-responses last."""

    scores: np.ndarray  # [P]
    species: np.ndarray  # int64 [P], -1 for live
    num_species: int


class AttackCurve(NamedTuple):
    """Presentations accepted as live at each threshold: at first none, then down through all distinct scores."""

    thresholds: np.ndarray  # float64 [K+1], descending
    live: np.ndarray  # int64 [K+1], live faces accepted
    attacks: np.ndarray  # int64 [S, K+1], attacks of each species accepted
    num_live: int
    num_attacks: np.ndarray  # int64 [S], all of them 1 or more

    @property
    def bpcer(self) -> np.ndarray:
        """Share of live faces refused at each threshold, float64 [K+1]."""
        return 1 - self.live / self.num_live

    @property
    def apcer(self) -> np.ndarray:
        """Share of attacks accepted at each threshold, that of the worst species, float64 [K+1]."""
        return (self.attacks / self.num_attacks[:, None]).max(axis=0)

    @property
    def pooled(self) -> Curve:
        """All attacks as one kind: FAR is `fmr`, and 1 - FRR is `tar`."""
        return Curve(self.thresholds, self.live, self.attacks.sum(axis=0), self.num_live, int(self.num_attacks.sum()))

    def place_of(self, threshold: float) -> int:
        """Return the place in the arrays where a threshold accepts what it accepts."""
        return int(np.count_nonzero(self.thresholds[1:] >= threshold))

    def place_of_apcer(self, target: float) -> int:
        """Return the last place where no species has an APCER above target."""
        allowed = [allowed_errors(target, num) for num in self.num_attacks.tolist()]
        counted = zip(self.attacks, allowed, strict=True)
        return min(int(np.searchsorted(accepted, most, side="right")) - 1 for accepted, most in counted)


def rank(presented: Presentations) -> Ranked:
    """Sort presentations by descending score."""
    order = np.argsort(-presented.scores, kind="stable")
    return Ranked(presented.scores[order], presented.species[order], len(presented.attacks))


def count_presentations(ranked: Ranked) -> AttackCurve:
    """Count those accepted at every distinct score, and at one threshold above them all; needs one finite score."""
    scores, species = ranked.scores, ranked.species
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True) & np.isfinite(scores))
    above = np.nextafter(scores[0], scores.dtype.type(np.inf))
    kinds = [k for k in range(ranked.num_species) if (species == k).any()]
    counts = np.stack([np.cumsum(species == k) for k in (-1, *kinds)])
    accepted = np.concatenate([np.zeros((len(counts), 1), np.int64), counts[:, last]], axis=1)
    thresholds = np.concatenate([[above], scores[last]]).astype(np.float64)
    return AttackCurve(thresholds, accepted[0], accepted[1:], int(counts[0, -1]), counts[1:, -1])


def figures_at(points: AttackCurve, threshold: float | None) -> dict[str, float]:
    """Return the flat figures of a curve at a threshold, that of its own EER where none is given."""
    pooled = points.pooled
    eer, own = equal_error(pooled)
    place = points.place_of(own if threshold is None else threshold)
    apcer, bpcer = float(points.apcer[place]), float(points.bpcer[place])
    far, accepted = float(pooled.fmr[place]), int(pooled.genuine[place])
    right = accepted + pooled.num_impostors - int(pooled.impostors[place])
    return {
        "acer": (apcer + bpcer) / 2,
        "apcer": apcer,
        "bpcer": bpcer,
        "auc": area(pooled),
        "eer": eer,
        "hter": (far + bpcer) / 2,
        "acc": right / (pooled.num_genuine + pooled.num_impostors),
        **{name: float(points.bpcer[points.place_of_apcer(target)]) for name, target in TARGETS.items()},
    }
