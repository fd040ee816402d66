"""Scores of pairs -> log-likelihood ratios that hold for any prior, and how far they can be trusted.

A log-likelihood ratio (LLR, natural logarithm) says how much a score speaks for one person; the log-odds at a prior p
are LLR + ln(p / (1 - p)). Both kinds of pair weigh the same in every fit, so that the mix of the calibration pairs
leaves no trace. Scores that are not finite are failures: they are left out of fits and have no LLR.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

ENOUGH_FOR_ISOTONIC = 10_000
"""Genuine pairs below which a step function fits the sample rather than the scores (our choice, an order of magnitude
above the 1,000 of Niculescu-Mizil and Caruana, ICML 2005, since low rates are what thresholds are about)."""
BINS = 15


class Fit(Protocol):
    """What turns scores into log-likelihood ratios."""

    def llr(self, scores: np.ndarray) -> np.ndarray: ...


class Platt(NamedTuple):
    """LLR = a * score + b."""

    a: float
    b: float
    genuine: int  # pairs it was fitted on
    impostors: int

    def llr(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-likelihood ratio of each score, float64 of their shape; NaN for a failure."""
        return self.a * np.where(np.isfinite(scores), scores, np.nan).astype(np.float64) + self.b


class Isotonic(NamedTuple):
    """LLR as a step function that never falls, straight between its knots."""

    scores: np.ndarray  # float64 [K], ascending
    llrs: np.ndarray  # float64 [K], finite
    genuine: int
    impostors: int

    def llr(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-likelihood ratio of each score, float64 of their shape; NaN for a failure."""
        found = np.interp(scores, self.scores, self.llrs)
        return np.where(np.isfinite(scores), found, np.nan)


class Bin(NamedTuple):
    """One bar of a calibration curve."""

    stated: float  # mean probability of its pairs, weighed
    observed: float  # share of genuine ones among them, weighed
    weight: float  # of all pairs
    pairs: int


def fit_platt(scores: np.ndarray, same: np.ndarray) -> Platt:
    """Fit LLR = a * score + b by logistic regression, genuine and impostor pairs weighing half each.

    Scores that separate the kinds entirely have no finite fit: then the targets are Platt's, (N + 1) / (N + 2) and
    1 / (N + 2) instead of 1 and 0 ("Probabilistic outputs for support vector machines", 1999, section 2.2). Not
    otherwise: of scores with a true slope of 50 and 500 pairs of each kind they make 29 to 34, plain fits 38 to 53.
    ValueError where a kind is missing or all scores are one.
    """
    values, kinds = _finite(scores, same)
    genuine, impostors = int(kinds.sum()), int((~kinds).sum())
    centre, spread = float(values.mean()), float(values.std())
    if not spread > 0:
        raise ValueError(f"All {len(values)} scores are {values[0]:g}: nothing can be calibrated by them.")
    apart = values[kinds].min() > values[~kinds].max() or values[kinds].max() < values[~kinds].min()
    doubt = np.where(kinds, 1 / (genuine + 2), 1 / (impostors + 2)) * apart  # that a pair is what it is said to be
    each = np.where(kinds, 0.5 / genuine, 0.5 / impostors) * len(values)
    inputs = (values - centre) / spread
    fit = LogisticRegression(C=np.inf, solver="lbfgs", tol=1e-9, max_iter=1000)
    fit.fit(  # every pair twice: as what it is, and as the other kind
        np.tile(inputs, 2)[:, None],
        np.concatenate([kinds, ~kinds]),
        sample_weight=np.concatenate([each * (1 - doubt), each * doubt]),
    )
    a = np.asarray(fit.coef_).item() / spread
    return Platt(a, np.asarray(fit.intercept_).item() - a * centre, genuine, impostors)


def fit_isotonic(scores: np.ndarray, same: np.ndarray) -> Isotonic:
    """Fit a non-decreasing LLR by pooling adjacent violators, both kinds weighing half.

    One pair of each kind is added at both ends (Bruemmer's "Laplace" rule), so that no LLR is infinite. Warns where
    fewer than 10,000 genuine pairs are there.
    """
    values, kinds = _finite(scores, same)
    genuine, impostors = int(kinds.sum()), int((~kinds).sum())
    if genuine < ENOUGH_FOR_ISOTONIC:
        warnings.warn(
            f"isotonic calibration on {genuine:,} genuine pairs follows their accidents; take at least "
            f"{ENOUGH_FOR_ISOTONIC:,}, or Platt's two parameters",
            stacklevel=2,
        )
    low, high = values.min(), values.max()
    ends = np.array([low, low, high, high])
    llrs = _pool(np.append(values, ends), np.append(kinds, [True, False] * 2))
    at, first = np.unique(np.append(values, ends), return_index=True)
    return Isotonic(at, llrs[first], genuine, impostors)


def cllr(llrs: np.ndarray, same: np.ndarray) -> float:
    """Return the cost of log-likelihood ratios, in bits: 0 for certainty, 1 for LLRs that are always 0.

    Source: Bruemmer and du Preez, "Application-independent evaluation of speaker detection", 2006, equation 16. A
    failure has LLR -inf, as at every threshold: a genuine one makes the cost infinite.
    """
    llrs, same = _given(llrs, same)
    return float((np.logaddexp(0, -llrs[same]).mean() + np.logaddexp(0, llrs[~same]).mean()) / (2 * np.log(2)))


def min_cllr(scores: np.ndarray, same: np.ndarray) -> float:
    """Return the cost of the best non-decreasing calibration of these very pairs: what their order alone loses."""
    values, same = _given(scores, same)
    return cllr(_pool(values, same), same)


def calibration_curve(llrs: np.ndarray, same: np.ndarray, *, prior: float = 0.5, bins: int = BINS) -> list[Bin]:
    """Compare stated with observed probabilities in `bins` intervals of equal width, empty ones left out.

    Pairs are weighed so that a share `prior` is genuine.
    """
    _check_prior(prior)
    llrs, same = _given(llrs, same)
    stated = expit(llrs + logit(prior))
    weight = np.where(same, prior / same.sum(), (1 - prior) / (~same).sum())
    place = np.minimum((stated * bins).astype(np.int64), bins - 1)
    total = np.bincount(place, weight, bins)
    sums = np.bincount(place, weight * stated, bins), np.bincount(place, weight * same, bins)
    counts = np.bincount(place, minlength=bins)
    return [
        Bin(float(sums[0][n] / total[n]), float(sums[1][n] / total[n]), float(total[n]), int(counts[n]))
        for n in np.flatnonzero(counts).tolist()
    ]


def ece(llrs: np.ndarray, same: np.ndarray, *, prior: float = 0.5, bins: int = BINS) -> float:
    """Return the expected calibration error: the mean of |stated - observed| over the bins of the curve."""
    return sum(b.weight * abs(b.stated - b.observed) for b in calibration_curve(llrs, same, prior=prior, bins=bins))


def held_out_llrs(
    scores: np.ndarray,
    same: np.ndarray,
    folds: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray], Fit] = fit_platt,
) -> np.ndarray:
    """Return the LLR of each pair by the fit to the other folds, float64 [P]; NaN for a failure.

    Folds that share no person (metrics.folds.make_folds) make this an estimate for people never seen. ValueError where
    the other folds of one lack a kind.
    """
    llrs = np.empty(len(scores))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        llrs[held] = fit(scores[~held], same[~held]).llr(scores[held])
    return llrs


def _pool(values: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Return for each pair the LLR of its pool, float64; +-inf where a pool is of one kind."""
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    # Ranks, because a failure's score is -inf, and only order matters.
    rank = np.unique(values, return_inverse=True)[1].astype(np.float64)
    share = IsotonicRegression(y_min=0, y_max=1).fit_transform(rank, same.astype(np.float64), sample_weight=weight)
    with np.errstate(divide="ignore"):
        return logit(np.asarray(share, np.float64))


def _finite(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, kinds = _given(scores, same)
    there = np.isfinite(values)
    values, kinds = values[there], kinds[there]
    if kinds.all() or not kinds.any():
        raise ValueError("Calibration needs genuine and impostor pairs with finite scores; one kind has none.")
    return values, kinds


def _given(values: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, same = np.asarray(values, np.float64), np.asarray(same, bool)
    if values.ndim != 1 or values.shape != same.shape or same.all() or not same.any():
        raise ValueError(f"values {values.shape} and same {same.shape} must be one list each, with both kinds of pair.")
    return np.where(np.isnan(values), -np.inf, values), same


def _check_prior(prior: float) -> None:
    if not 0 < prior < 1:
        raise ValueError(f"A prior lies between 0 and 1, not {prior}.")
