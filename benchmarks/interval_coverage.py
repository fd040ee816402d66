"""python benchmarks/interval_coverage.py: how often 95 % intervals hold the truth, on pairs that share persons.

Simulates scores whose true error rates are known: of a genuine pair of person i, gap + a_i + noise; of an impostor
pair, b_i + b_j + noise, all normal. Persons with a large a are easy to recognise, those with a large b resemble
everyone. Prints the share of simulated tests whose interval holds the truth, once with pairs taken as independent and
once as fastface does.
"""

from __future__ import annotations

import argparse
import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from fastface.metrics.curve import calibrate
from fastface.metrics.dependence import rate_interval
from fastface.metrics.intervals import wilson
from fastface.metrics.operating import curve_figures

TARGET = 1e-2


class Population(NamedTuple):
    """What pairs are drawn from; standard deviations."""

    gap: float = 4.0
    person: float = 1.0  # of a
    likeness: float = 0.5  # of b
    noise: float = 1.0

    @property
    def genuine_spread(self) -> float:
        return math.hypot(self.person, self.noise)

    @property
    def impostor_spread(self) -> float:
        return math.sqrt(2 * self.likeness**2 + self.noise**2)

    def fmr(self, threshold: float) -> float:
        return float(norm.sf(threshold / self.impostor_spread))

    def fnmr(self, threshold: float) -> float:
        return float(norm.cdf((threshold - self.gap) / self.genuine_spread))

    def truth(self, threshold: float) -> dict[str, float]:
        """Return every figure that is covered or not."""
        equal = brentq(lambda t: self.fmr(t) - self.fnmr(t), 0, self.gap)
        strict = float(norm.isf(TARGET)) * self.impostor_spread
        return {
            "FNMR at T": self.fnmr(threshold),
            "FMR at T": self.fmr(threshold),
            "accuracy at T": math.nan,  # depends on the mix of pairs, see `covered`
            f"TAR at FAR {TARGET:g}": 1 - self.fnmr(strict),
            "AUC": float(norm.cdf(self.gap / math.hypot(self.genuine_spread, self.impostor_spread))),
            "EER": self.fmr(float(equal)),
        }


def simulate(
    population: Population, num_persons: int, genuine_each: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw scores [P], same [P] and persons [2, P]: every couple of persons once, genuine_each of each person."""
    easy, alike = rng.normal(0, [[population.person], [population.likeness]], (2, num_persons))
    person = np.repeat(np.arange(num_persons), genuine_each)
    first, second = np.array(list(itertools.combinations(range(num_persons), 2))).T
    genuine = population.gap + easy[person] + rng.normal(0, population.noise, len(person))
    impostors = alike[first] + alike[second] + rng.normal(0, population.noise, len(first))
    persons = np.concatenate([np.stack([person, person]), np.stack([first, second])], axis=1)
    return np.concatenate([genuine, impostors]), np.arange(persons.shape[1]) < len(person), persons


def covered(
    population: Population, threshold: float, scores: np.ndarray, same: np.ndarray, persons: np.ndarray, draw: bool
) -> dict[str, tuple[bool | None, bool | None]]:
    """Say for each figure whether two intervals hold the truth: that of independent pairs (None: there is none), ours.

    `draw` False leaves out the figures whose intervals come from drawing persons.
    """
    truth, wrong = population.truth(threshold), (scores >= threshold) != same
    truth["accuracy at T"] = 1 - (truth["FNMR at T"] * same.mean() + truth["FMR at T"] * (1 - same.mean()))
    found: dict[str, tuple[bool | None, bool | None]] = {}
    for name, part, flip in (("FNMR at T", same, 0), ("FMR at T", ~same, 0), ("accuracy at T", same | True, 1)):
        plain = rate_interval(wrong[part], same[part], None)
        adjusted = rate_interval(wrong[part], same[part], persons[:, part])
        value = 1 - truth[name] if flip else truth[name]
        found[name] = (plain.low <= value <= plain.high, adjusted.low <= value <= adjusted.high)
    if not draw:
        return found
    details = curve_figures(scores, same, (TARGET,), persons=persons)[1]
    point = calibrate(scores, same, (TARGET,))[0]
    low, high = wilson(round(point.tar * point.genuine), point.genuine)
    name = f"TAR at FAR {TARGET:g}"
    found[name] = (low <= truth[name] <= high, _holds(details["tar_at_far"]["points"][0]["tar_interval"], truth[name]))
    for name, key in (("AUC", "auc"), ("EER", "eer")):
        found[name] = (None, _holds(details[key]["interval"], truth[name]))
    return found


def coverage(
    population: Population, num_persons: int, genuine_each: int, repeats: int, seed: int = 0, *, draw: bool = True
) -> dict[str, tuple[float | None, float]]:
    """Return the share of simulated tests whose intervals hold the truth, by figure, as `covered` lists them."""
    rng = np.random.default_rng(seed)
    threshold = float(norm.isf(TARGET)) * population.impostor_spread
    draws = (simulate(population, num_persons, genuine_each, rng) for _ in range(repeats))
    runs = [covered(population, threshold, *drawn, draw) for drawn in draws]
    shares: dict[str, tuple[float | None, float]] = {}
    for name in runs[0]:
        plain = [run[name][0] for run in runs]
        shares[name] = (
            None if None in plain else float(np.mean([bool(hit) for hit in plain])),
            float(np.mean([bool(run[name][1]) for run in runs])),
        )
    return shares


def _holds(interval: list[float] | None, value: float) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="simulated tests of each kind (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for persons, genuine in ((50, 10), (100, 10), (200, 4)):
        print(f"\n{persons} persons, {genuine} genuine pairs each, all {persons * (persons - 1) // 2:,} couples once")
        print(f"{'':18}{'independent':>12}{'fastface':>10}")
        for name, (plain, adjusted) in coverage(Population(), persons, genuine, options.repeats, options.seed).items():
            print(f"{name:18}{'-' if plain is None else f'{plain:.3f}':>12}{adjusted:>10.3f}")


if __name__ == "__main__":
    main()
