"""Match and liveness scores of attempts -> what a system lets in that wants both: FRR, FAR, IAPAR, RIAPAR.

An attempt compares a face before the camera with an enrolled reference. ISO/IEC 30107-3:2023 evaluates the whole
system: FRR, the share of genuine attempts that are refused, by whichever part; FAR, of zero-effort impostors accepted;
IAPAR, of attacks on the reference's person accepted, that of the worst species; RIAPAR = IAPAR + FRR, which neither
a system that accepts nobody nor one that accepts every photograph can make small. Attempts without one of both scores
are refused at every threshold.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastface.metrics.attack_intervals import DEPENDENT, INDEPENDENT, share_interval
from fastface.metrics.curve import RULE_OF_THIRTY, allowed_errors
from fastface.metrics.dependence import rate_interval
from fastface.metrics.intervals import Interval, wilson
from fastface.metrics.presentations import UNNAMED
from fastface.spelling import nearest

KINDS = ("genuine", "impostor", "attack")


class Attempts(NamedTuple):
    """Scored attempts; not finite where a part gave no answer."""

    match: np.ndarray  # float64 [N], more is more alike
    live: np.ndarray  # float64 [N], more is more live
    kind: np.ndarray  # int64 [N], a number into `kinds`: 0 genuine, 1 impostor, then the species of attack
    kinds: list[str]
    persons: np.ndarray | None  # int64 [2, N]: who is before the camera (or shown by the attack), who is enrolled;
    # [1, N] where only one of both is known; numbers from 0
    folds: np.ndarray | None = None  # int64 [N] from 0

    def take(self, chosen: np.ndarray) -> "Attempts":
        """Return the chosen attempts (bool or int64), persons numbered as before."""
        persons = None if self.persons is None else self.persons[:, chosen]
        folds = None if self.folds is None else self.folds[chosen]
        return self._replace(
            match=self.match[chosen], live=self.live[chosen], kind=self.kind[chosen], persons=persons, folds=folds
        )


def gather_attempts(
    match: np.ndarray,
    live: np.ndarray,
    kind: Sequence[str],
    attack: Sequence[str] | None = None,
    persons: np.ndarray | None = None,
) -> Attempts:
    """Check attempts; kind [N] is genuine, impostor or attack, attack [N] the species, persons int [1 or 2, N].

    Raises ValueError for unknown kinds, kinds that are missing, lists of different lengths, and persons who contradict
    a kind.
    """
    match, live = np.asarray(match, dtype=np.float64), np.asarray(live, dtype=np.float64)
    if not match.shape == live.shape == (len(kind),):
        raise ValueError(f"match {match.shape}, liveness {live.shape} and kind ({len(kind)},) must be of equal length.")
    for number, name in enumerate(kind, start=1):
        if name not in KINDS:
            raise ValueError(f"attempt {number} is of kind {name!r}{nearest(name, KINDS)}; kinds: {', '.join(KINDS)}")
    if missing := [name for name in KINDS if name not in set(kind)]:
        raise ValueError(f"there is no {missing[0]} attempt; a whole system is judged on {', '.join(KINDS)}")
    species = [UNNAMED] * len(kind) if attack is None else [name or UNNAMED for name in attack]
    names = [name if name != "attack" else one for name, one in zip(kind, species, strict=True)]
    attacks = sorted({one for name, one in zip(kind, species, strict=True) if name == "attack"})
    if clash := set(attacks) & set(KINDS[:2]):
        raise ValueError(f"an attack is called {clash.pop()!r}, which is a kind of attempt; rename it")
    kinds = [*KINDS[:2], *attacks]
    place = {name: number for number, name in enumerate(kinds)}
    numbers = np.array([place[name] for name in names])
    if persons is not None and len(persons) == 2:
        own = persons[0] == persons[1]
        if len(at := np.flatnonzero(own == (numbers == 1))):
            whom = "the person who is enrolled" if own[at[0]] else "another person than is enrolled"
            raise ValueError(f"attempt {at[0] + 1} is of kind {kind[at[0]]!r}, but of {whom} ({len(at):,} such)")
    return Attempts(match, live, numbers, kinds, persons)


class SystemRates(NamedTuple):
    """A system's errors at a decision."""

    frr: float
    far: float
    iapar: float  # of the worst species

    @property
    def riapar(self) -> float:
        return self.iapar + self.frr


def rates_of(attempts: Attempts, accepted: np.ndarray) -> SystemRates:
    """Return the error rates where these attempts (bool [N]) are accepted."""
    counts = np.bincount(attempts.kind, minlength=len(attempts.kinds))
    shares = np.bincount(attempts.kind, weights=accepted, minlength=len(attempts.kinds)) / np.maximum(counts, 1)
    return SystemRates(1 - float(shares[0]), float(shares[1]), float(shares[2:].max()))


def accept_both(attempts: Attempts, match_threshold: float, live_threshold: float) -> np.ndarray:
    """Accept where both scores reach their thresholds, bool [N]: AND fusion. -inf leaves a part out."""
    answered = np.isfinite(attempts.match) & np.isfinite(attempts.live)
    return answered & (attempts.match >= match_threshold) & (attempts.live >= live_threshold)


def detailed_rates(attempts: Attempts, accepted: np.ndarray) -> list[dict[str, Any]]:
    """Return FRR, FAR and IAPAR of each species with counts and intervals that allow for persons who recur."""
    found = []
    for number, name in enumerate(attempts.kinds):
        chosen = attempts.kind == number
        wrong = accepted[chosen] == (number > 0)
        interval = _interval(wrong, number, None if attempts.persons is None else attempts.persons[:, chosen])
        found.append(
            {
                "name": name,
                "rate_name": ("FRR", "FAR")[number] if number < 2 else "IAPAR",
                "rate": float(wrong.mean()),
                "errors": int(wrong.sum()),
                "attempts": len(wrong),
                "interval": [interval.low, interval.high],
                "interval_method": interval.method.replace("presentations", "attempts"),
                "supported": int(wrong.sum()) >= RULE_OF_THIRTY,
            }
        )
    return found


def _interval(wrong: np.ndarray, number: int, persons: np.ndarray | None) -> Interval:
    if persons is None:
        return Interval(*wilson(int(wrong.sum()), len(wrong)), INDEPENDENT)
    if number != 1 or len(persons) == 1:  # one person: whom the camera sees and who is enrolled
        return share_interval(wrong, np.unique(persons[-1], return_inverse=True)[1])
    return rate_interval(wrong, np.zeros(len(wrong), dtype=bool), persons)._replace(method=DEPENDENT)


class Limits(NamedTuple):
    """What a system may at most do wrong."""

    far: float
    iapar: float


def strictest_needed(attempts: Attempts, scores: np.ndarray, limits: Limits) -> float:
    """Return the lowest threshold of one score [N] (not finite: no answer) at which FAR and IAPAR keep their limits.

    Just above the highest score that has to be refused; -inf where everything with an answer may be accepted.
    """
    needed = -np.inf
    for number in range(1, len(attempts.kinds)):
        mine = scores[attempts.kind == number]
        if not len(mine):
            continue
        allowed = allowed_errors(limits.far if number == 1 else limits.iapar, len(mine))
        if allowed >= len(mine):
            continue
        barred = -np.partition(-np.where(np.isfinite(mine), mine, -np.inf), allowed)[allowed]
        if np.isfinite(barred):
            needed = max(needed, float(np.nextafter(barred, np.inf)))
    return needed


class Operating(NamedTuple):
    """Thresholds of AND fusion, and the errors there."""

    match_threshold: float
    live_threshold: float
    rates: SystemRates


def best_and(attempts: Attempts, limits: Limits, *, most: int = 200) -> Operating:
    """Find the pair of thresholds of AND fusion with the lowest FRR that keeps the limits.

    Tries every genuine match score as threshold, or `most` of them in even steps of FRR, with the lowest liveness
    threshold that each allows: exact but for the steps. Of equals, the lowest match threshold.
    """
    answered = np.isfinite(attempts.match) & np.isfinite(attempts.live)
    tried = np.unique(attempts.match[answered & (attempts.kind == 0)])
    if len(tried) > most:
        tried = tried[np.unique(np.linspace(0, len(tried) - 1, most).astype(int))]
    best: Operating | None = None
    for threshold in [-np.inf, *tried.tolist(), np.inf]:
        left = np.where(answered & (attempts.match >= threshold), attempts.live, -np.inf)
        needed = strictest_needed(attempts, left, limits)
        rates = rates_of(attempts, accept_both(attempts, threshold, needed))
        if best is None or rates.frr < best.rates.frr:
            best = Operating(threshold, needed, rates)
    assert best is not None
    return best
