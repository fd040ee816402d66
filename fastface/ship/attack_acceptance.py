"""Scores of a narrower liveness model beside fp32's, same presentations -> accepted or refused, by what ACER it has."""

from typing import Any, NamedTuple

import numpy as np

from fastface.metrics.attacks import AttackFigures, presented_figures
from fastface.metrics.drop import Drop, change
from fastface.metrics.presentations import Presentations


class AttackVerdict(NamedTuple):
    """What the narrower model loses on the presentations, each model at the EER threshold of its own scores."""

    before: AttackFigures
    after: AttackFigures
    parts: list[Drop]
    """Right decisions of the live faces, then of each species of attack."""
    failed: int
    """Presentations without a score that have one in fp32."""
    max_drop: float
    about: str

    @property
    def rise(self) -> float:
        """Of the ACER."""
        return self.after.metrics["acer"] - self.before.metrics["acer"]

    @property
    def accepted(self) -> bool:
        return not self.failed and self.rise <= self.max_drop

    @property
    def reason(self) -> str:
        """What speaks against it, in a line."""
        if self.failed:
            return f"{self.failed:,} presentations of {self.about} have a score in fp32 only"
        return f"ACER rises by {self.rise:.4f} on {self.about}, and {self.max_drop:g} is accepted (--max-drop)"

    def report(self) -> str:
        """Return ACER, then a line for the live faces and for each species of attack."""
        before, after = (figures.metrics["acer"] for figures in (self.before, self.after))
        auc = f"AUC {self.before.metrics['auc']:.4f} -> {self.after.metrics['auc']:.4f}"
        lines = [f"  ACER: {before:.4f} -> {after:.4f}, rises by {self.rise:.4f}; {auc}"]
        for part in self.parts:
            changed, (low, high) = part.changed, part.changed.interval
            lines.append(
                f"  {part.figure}: {part.before:.4f} -> {part.after:.4f}, falls by {changed.drop:.4f} "
                f"[{low:.4f}, {high:.4f}]; of {changed.total:,} decisions {changed.lost:,} lost, {changed.gained:,} won"
            )
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the figures for a card."""
        acer = {"before": self.before.metrics["acer"], "after": self.after.metrics["acer"], "rise": self.rise}
        drops = [
            {
                "figure": part.figure,
                "before": part.before,
                "after": part.after,
                "drop": part.changed.drop,
                "interval": list(part.changed.interval),
                "p_value": part.changed.p_value,
                "presentations": part.changed.total,
            }
            for part in self.parts
        ]
        return {"presentations": self.about, "max_drop": self.max_drop, "acer": acer, "drops": drops}


def judge_attacks(before: Presentations, after: Presentations, *, max_drop: float, about: str) -> AttackVerdict:
    """Compare what fp32 and a narrower model make of the same presentations."""
    figures = [presented_figures(presented, None) for presented in (before, after)]
    right = [_right(p, f.details["threshold"]) for p, f in zip((before, after), figures, strict=True)]
    silent = [int((~np.isfinite(presented.scores)).sum()) for presented in (before, after)]
    parts = []
    for species, name in enumerate(["live accepted", *(f"{attack} refused" for attack in before.attacks)], start=-1):
        chosen = before.species == species
        old, new = (decided[chosen] for decided in right)
        parts.append(Drop(name, float(old.mean()), float(new.mean()), change(old, new), True))
    return AttackVerdict(figures[0], figures[1], parts, max(silent[1] - silent[0], 0), max_drop, about)


def _right(presented: Presentations, threshold: float) -> np.ndarray:
    """Say of each presentation whether it is decided rightly; bool [P]."""
    accepted = np.isfinite(presented.scores) & (presented.scores.astype(np.float64) >= threshold)
    return accepted == presented.live
