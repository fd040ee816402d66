import numpy as np
import pytest
from scipy.stats import norm

from fastface.metrics.attack_curve import count_presentations, figures_at, rank
from fastface.metrics.attack_intervals import (
    BY_PERSON,
    DEPENDENT,
    INDEPENDENT,
    draw_figures,
    limits_of,
    share_interval,
)
from fastface.metrics.attacks import attack_figures
from fastface.metrics.bootstrap import LEAST_USABLE
from fastface.metrics.intervals import wilson
from fastface.metrics.presentations import Presentations, gather_presentations

NAMES = ("acer", "apcer", "bpcer", "auc", "eer", "hter", "acc", "bpcer10", "bpcer20", "bpcer100")


def test_nobody_recurs() -> None:
    wrong = np.array([True, False, False, True, False])
    for persons in (None, np.array([4, 2, 0, 1, 3])):
        assert share_interval(wrong, persons) == (*wilson(2, 5), INDEPENDENT)


def test_persons_who_recur_by_the_cluster_variance() -> None:
    """The variance of a ratio of sums: sum over persons of (errors - rate * presentations)^2 / N^2."""
    rng = np.random.default_rng(0)
    persons = rng.integers(0, 6, 60)
    wrong = rng.random(60) < np.linspace(0, 0.9, 6)[persons]
    rate = sum(wrong.tolist()) / 60
    variance = 0.0
    for one in range(6):
        mine = wrong[persons == one].tolist()
        variance += (sum(mine) - rate * len(mine)) ** 2 / 60**2
    effective = rate * (1 - rate) / variance
    low, high, method = share_interval(wrong, persons)
    assert method == DEPENDENT
    assert (low, high) == pytest.approx(wilson(rate * effective, effective))
    assert high - low > np.subtract(*wilson(int(wrong.sum()), 60)[::-1])


@pytest.mark.parametrize("wrong", [False, True])
def test_without_errors_each_person_counts_once(wrong: bool) -> None:
    low, high, method = share_interval(np.full(300, wrong), np.arange(300) % 5)
    assert method == BY_PERSON
    assert (low, high) == wilson(5 if wrong else 0, 5)


def of_persons(rng: np.random.Generator, num: int = 60, each: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Draw refusals of live faces: a person's inclination and noise, both standard normal, over a threshold."""
    persons = np.repeat(np.arange(num), each)
    latent = rng.normal(size=num)[persons] + rng.normal(size=num * each)
    return latent > 1.2, persons


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    truth = float(norm.sf(1.2 / 2**0.5))  # 0.198
    rng = np.random.default_rng(0)
    held, naive = 0, 0
    for _ in range(400):
        wrong, persons = of_persons(rng)
        low, high, _ = share_interval(wrong, persons)
        held += low <= truth <= high
        low, high = wilson(int(wrong.sum()), len(wrong))
        naive += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.985
    assert naive / 400 < 0.80  # what persons taken as independent presentations would promise


def population(rng: np.random.Generator, num: int = 40, each: int = 3) -> Presentations:
    persons = np.repeat(np.arange(num), 2 * each)
    live = np.tile(np.repeat([True, False], each), num)
    scores = rng.normal(size=num)[persons] + 2.0 * live + rng.normal(size=len(live))
    return gather_presentations(scores, live, None, None, persons)


def drawn_eer(made: Presentations) -> list[float]:
    found = limits_of(draw_figures(made, None, replicates=100), NAMES)
    assert found is not None
    return found["eer"]


def test_draws_hold_the_true_equal_error_rate() -> None:
    truth, held = float(norm.sf(1 / 2**0.5)), 0  # both kinds have a variance of 2 and lie 2 apart
    rng = np.random.default_rng(1)
    for _ in range(40):
        low, high = drawn_eer(population(rng))
        held += low <= truth <= high
    assert held >= 33  # of a binomial with 95 %, less than 1 in 500 is below


def test_draws_are_the_figures_of_the_persons_drawn() -> None:
    made = population(np.random.default_rng(2), num=12)
    assert made.persons is not None
    rng = np.random.Generator(np.random.Philox(5))
    values, replicates = [], 50
    for _ in range(replicates):
        there = set(np.flatnonzero(rng.integers(0, 2, 12, dtype=np.int8)).tolist())
        chosen = np.array([one in there for one in made.persons.tolist()])
        if chosen.any():
            part = made.take(chosen)
            values.append(figures_at(count_presentations(rank(part)), 0.7))
    assert len(values) >= LEAST_USABLE * replicates
    draws = draw_figures(made, 0.7, replicates=replicates, seed=5)
    np.testing.assert_array_equal(draws[~np.isnan(draws).any(axis=1)], [list(one.values()) for one in values])
    found = limits_of(draws, NAMES)
    assert found is not None
    for name, limits in found.items():
        assert limits == pytest.approx(np.quantile([one[name] for one in values], [0.025, 0.975]).tolist())


def test_too_few_persons_have_no_draws() -> None:
    scores, live = np.array([0.9, 0.1]), np.array([True, False])
    found = attack_figures(scores, live, person=np.array([0, 1]), draw=True)
    assert found.details["intervals"] is None
