"""Scores of a narrower model beside fp32's on the same pairs -> accepted or refused, with the figures in words."""

from typing import Any, NamedTuple

from fastface.evaluation import Result
from fastface.evaluators import PairSet
from fastface.metrics.drop import Drop, drops
from fastface.metrics.folds import make_folds

MAX_DROP = 0.01
"""Accepted fall of accuracy and of each TAR, as a rate: one point in a hundred."""


class Verdict(NamedTuple):
    """What the narrower model loses on the pairs, and whether that is little enough."""

    found: list[Drop]
    max_drop: float
    failed: int
    """Images without a usable embedding that have one in fp32."""
    about: str
    """The pairs."""

    @property
    def judged(self) -> list[Drop]:
        """Accuracy, and the TARs that their impostors support; where they support none, the first of them."""
        tars = [drop for drop in self.found[1:] if drop.supported]
        return [self.found[0], *(tars or self.found[1:2])]

    @property
    def accepted(self) -> bool:
        return not self.failed and all(drop.changed.drop <= self.max_drop for drop in self.judged)

    @property
    def reason(self) -> str:
        """What speaks against it, in a line."""
        if self.failed:
            return f"{self.failed:,} images of {self.about} have a usable embedding in fp32 only"
        worst = max(self.judged, key=lambda drop: drop.changed.drop)
        return (
            f"{worst.figure} falls by {worst.changed.drop:.4f} on {self.about}, and {self.max_drop:g} is accepted "
            "(--max-drop)"
        )

    def report(self) -> str:
        """Return a line for each figure, then what the pairs leave open."""
        lines = [_line(drop, judged=drop in self.judged) for drop in self.found]
        highest = max(drop.changed.interval[1] for drop in self.judged)
        if self.accepted and highest > self.max_drop:
            lines.append(f"  ! {self.about} cannot exclude a fall of up to {highest:.4f}: more pairs would")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the figures for a card."""
        return {"pairs": self.about, "max_drop": self.max_drop, "drops": [self._as_json(drop) for drop in self.found]}

    def _as_json(self, drop: Drop) -> dict[str, Any]:
        changed = drop.changed
        figures = {"drop": changed.drop, "interval": list(changed.interval), "p_value": changed.p_value}
        return drop._asdict() | {"changed": changed._asdict()} | figures | {"judged": drop in self.judged}


def judge(before: Result, after: Result, pairs: PairSet, *, max_drop: float) -> Verdict:
    """Compare what fp32 and a narrower model make of the same pairs."""
    given = pairs.pairs.fold
    folds = make_folds(pairs.pairs, pairs.images.identities) if given is None else given
    failed = after.details["failed_images"]["number"] - before.details["failed_images"]["number"]
    return Verdict(drops(before.scores, after.scores, before.same, folds), max_drop, max(failed, 0), pairs.about)


def _line(drop: Drop, *, judged: bool) -> str:
    changed, (low, high) = drop.changed, drop.changed.interval
    line = (
        f"  {drop.figure}: {drop.before:.4f} -> {drop.after:.4f}, falls by {changed.drop:.4f} [{low:.4f}, {high:.4f}]; "
        f"of {changed.total:,} pairs {changed.lost:,} lost, {changed.gained:,} won, McNemar p {changed.p_value:.2g}"
    )
    if drop.supported:
        return line
    return f"{line}  ! {'' if judged else 'not judged: '}fewer than 30 errors expected"
