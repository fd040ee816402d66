"""Match and liveness scores -> one score to decide by, and what each way of deciding costs.

A genuine attempt is told from two things at once: from another person by the match, and from an attack by liveness.
With log-likelihood ratios L of both and attacks as likely as impostors, the ratio of "genuine" to "either" is
-ln((exp(-L_match) + exp(-L_live)) / 2): about the smaller of both, so that a perfect match never makes up for a mask.
A weighted sum (logistic regression) lets it, and is here to be compared with.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from fastface.metrics.calibration import Platt, fit_platt
from fastface.metrics.full_system import (
    Attempts,
    Limits,
    Operating,
    SystemRates,
    accept_both,
    best_and,
    rates_of,
    strictest_needed,
)

CLIP = 1e-7  # of probabilities of live, before their logit: float32 cannot tell them from 0 and 1
NUM_FOLDS = 10


class LlrFusion(NamedTuple):
    """The soft minimum of two calibrated log-likelihood ratios."""

    match: Platt  # genuine from impostor
    live: Platt  # bona fide from attack, of the evidence

    def scores(self, attempts: Attempts) -> np.ndarray:
        """Return one score for each attempt, float64 [N], NaN where a part gave no answer."""
        match, live = self.match.llr(attempts.match), self.live.llr(evidence(attempts.live))
        with np.errstate(invalid="ignore"):  # NaN beside a number
            return np.log(2) - np.logaddexp(-match, -live)


class SumFusion(NamedTuple):
    """A weighted sum of the match score and the evidence of liveness."""

    match: float
    live: float
    offset: float

    def scores(self, attempts: Attempts) -> np.ndarray:
        """Return one score for each attempt, float64 [N], NaN where a part gave no answer."""
        found = self.match * attempts.match + self.live * evidence(attempts.live) + self.offset
        return np.where(np.isfinite(attempts.match), found, np.nan)


def evidence(live: np.ndarray) -> np.ndarray:
    """Return the logit of probabilities of live, NaN for no answer; scores that leave 0..1 are taken as they are."""
    known = np.where(np.isfinite(live), live, np.nan)
    if np.nanmin(known, initial=0.0) < 0 or np.nanmax(known, initial=1.0) > 1:
        return known
    return logit(np.clip(known, CLIP, 1 - CLIP))


def fit_llr(attempts: Attempts) -> LlrFusion:
    """Fit both calibrations: of the match on genuine and impostor attempts, of liveness on all against attacks."""
    compared = attempts.kind < 2
    return LlrFusion(
        fit_platt(attempts.match[compared], attempts.kind[compared] == 0),
        fit_platt(evidence(attempts.live), compared),
    )


def fit_sum(attempts: Attempts) -> SumFusion:
    """Fit a logistic regression of genuine attempts against impostors and attacks, weighing 1/2, 1/4 and 1/4."""
    inputs = np.stack([attempts.match, evidence(attempts.live)], axis=1)
    known = np.isfinite(inputs).all(axis=1)
    group = np.minimum(attempts.kind[known], 2)
    weights = np.array([0.5, 0.25, 0.25]) / np.maximum(np.bincount(group, minlength=3), 1)
    centre, spread = inputs[known].mean(axis=0), inputs[known].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    # A weak ridge: attempts that are separated entirely have no finite fit.
    fit = LogisticRegression(C=100.0, tol=1e-9, max_iter=1000)
    fit.fit((inputs[known] - centre) / spread, group == 0, sample_weight=weights[group] * len(group))
    match, live = (np.asarray(fit.coef_)[0] / spread).tolist()
    offset = float(np.asarray(fit.intercept_).item() - match * centre[0] - live * centre[1])
    return SumFusion(match, live, offset)


FUSIONS: dict[str, Callable[[Attempts], LlrFusion | SumFusion]] = {"llr": fit_llr, "sum": fit_sum}


def person_folds(attempts: Attempts) -> np.ndarray:
    """Cut attempts into up to ten folds by the enrolled person, by turns where persons are not known; int64 [N]."""
    if attempts.persons is not None:
        enrolled = np.unique(attempts.persons[-1], return_inverse=True)[1]
        return enrolled % min(NUM_FOLDS, int(enrolled.max()) + 1)
    folds = np.zeros(len(attempts.kind), np.int64)
    for number in range(len(attempts.kinds)):
        mine = np.flatnonzero(attempts.kind == number)
        folds[mine] = np.arange(len(mine)) % NUM_FOLDS
    return folds


def fused_scores(attempts: Attempts, fusion: str, development: Attempts | None) -> np.ndarray:
    """Return the fused score of each attempt, fitted on a development set, else on the other folds; float64 [N].

    Raises ValueError where the attempts to fit on lack a kind.
    """
    fit = FUSIONS[fusion]
    if development is not None:
        return fit(development).scores(attempts)
    folds = person_folds(attempts)
    scores = np.full(len(folds), np.nan)
    for fold in np.unique(folds):
        rest = attempts.take(folds != fold)
        if set(np.minimum(rest.kind, 2).tolist()) != {0, 1, 2}:
            raise ValueError(
                "too few persons to fit a fusion on others than it is judged by; give a development set by --dev"
            )
        scores[folds == fold] = fit(rest).scores(attempts.take(folds == fold))
    return scores


def match_alone(attempts: Attempts, far: float) -> Operating:
    """Return the system without attack detection at the lowest match threshold with FAR <= far."""
    needed = strictest_needed(attempts, attempts.match, Limits(far, 1.0))
    accepted = np.isfinite(attempts.match) & (attempts.match >= needed)
    return Operating(needed, -np.inf, rates_of(attempts, accepted))


def trade_off(attempts: Attempts, far: float, fused: dict[str, np.ndarray]) -> dict[str, list[SystemRates]]:
    """Return, for each way of deciding, the lowest FRR at rising IAPAR, FAR being at most `far` everywhere.

    and: both thresholds free. and, match fixed: that of the match alone with FAR <= far, and only liveness free. Then
    one threshold of each fused score.
    """
    counts = np.bincount(attempts.kind)[2:]
    levels = [0.0, *np.unique(np.geomspace(1 / counts.max(), 1.0, 40)).tolist()]
    fixed = match_alone(attempts, far).match_threshold
    matched = np.where(np.isfinite(attempts.match) & (attempts.match >= fixed), attempts.live, -np.inf)
    found: dict[str, list[SystemRates]] = {name: [] for name in ("and", "and, match fixed", *fused)}
    for level in levels:
        limits = Limits(far, level)
        found["and"].append(best_and(attempts, limits).rates)
        needed = strictest_needed(attempts, matched, limits)
        found["and, match fixed"].append(rates_of(attempts, accept_both(attempts, fixed, needed)))
        for name, scores in fused.items():
            needed = strictest_needed(attempts, scores, limits)
            found[name].append(rates_of(attempts, np.isfinite(scores) & (scores >= needed)))
    return found
