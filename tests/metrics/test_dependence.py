import itertools

import numpy as np
import pytest

from benchmarks.interval_coverage import Population, coverage
from fastface.metrics.dependence import (
    Errors,
    adjusted,
    count_errors,
    persons_of_pairs,
    rate_interval,
    variance,
)
from fastface.metrics.intervals import wilson


def drawn(seed: int, num_persons: int = 6, num_pairs: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw wrong [P], same [P] and persons [2, P]: few persons, so that all recur."""
    rng = np.random.default_rng(seed)
    persons = rng.integers(0, num_persons, (2, num_pairs))
    hard = rng.random(num_persons)
    wrong = rng.random(num_pairs) < 0.5 * hard[persons].mean(axis=0)
    return wrong, persons[0] == persons[1], persons


def by_pairs(wrong: np.ndarray, same: np.ndarray, persons: np.ndarray) -> float:
    """Sum deviations over all couples of pairs that share a person: the variance, from its definition."""
    means = {kind: wrong[same == kind].mean() for kind in set(same.tolist())}
    deviation = [w - means[s] for w, s in zip(wrong, same.tolist(), strict=True)]
    alone, shared = 0.0, 0.0
    for i, j in itertools.product(range(len(wrong)), repeat=2):
        a, b = set(persons[:, i].tolist()), set(persons[:, j].tolist())
        alone += deviation[i] * deviation[j] * (a == b)
        shared += deviation[i] * deviation[j] * (len(a & b) > 0 and a != b)
    return (alone + max(shared, 0.0)) / len(wrong) ** 2


@pytest.mark.parametrize("part", ["genuine", "impostor", "both"])
@pytest.mark.parametrize("seed", range(4))
def test_variance_is_that_of_pairs_that_share_a_person(seed: int, part: str) -> None:
    wrong, same, persons = drawn(seed)
    kept = {"genuine": same, "impostor": ~same, "both": same | True}[part]
    wrong, same, persons = wrong[kept], same[kept], persons[:, kept]
    kinds = [count_errors(persons[:, kind], wrong[kind], 6) for kind in (same, ~same) if kind.any()]
    assert variance(*kinds) == pytest.approx(by_pairs(wrong, same, persons), rel=1e-9)


def test_variance_is_the_papers_for_each_kind() -> None:
    """Var(FNMR) and Var(FMR) as Fogliato et al. sum them, over ordered persons i, j, k."""
    rng = np.random.default_rng(0)
    num = 7
    made = rng.integers(1, 5, (num, num))
    made = made + made.T
    missed = rng.binomial(made, 0.3)
    missed = np.triu(missed, 1) + np.triu(missed, 1).T + np.diag(np.diag(missed))
    total = sum(made[i, i] for i in range(num))
    fnmr = sum(missed[i, i] for i in range(num)) / total
    genuine = sum((missed[i, i] - made[i, i] * fnmr) ** 2 for i in range(num)) / total**2

    couples = [(i, j) for i in range(num) for j in range(num) if i != j]
    ordered = sum(made[i, j] for i, j in couples)
    fmr = sum(missed[i, j] for i, j in couples) / ordered
    y = {(i, j): missed[i, j] - made[i, j] * fmr for i, j in couples}
    triples = sum(y[i, j] * y[i, k] for i, j, k in itertools.permutations(range(num), 3))
    impostor = (2 * sum(value**2 for value in y.values()) + 4 * max(triples, 0)) / ordered**2

    def listed(cells: list[tuple[int, int]]) -> Errors:
        persons = np.array([cell for cell in cells for _ in range(made[cell])]).T
        wrong = np.concatenate([np.arange(made[cell]) < missed[cell] for cell in cells])
        return count_errors(persons, wrong, num)

    assert variance(listed([(i, i) for i in range(num)])) == pytest.approx(genuine)
    assert variance(listed([(i, j) for i, j in couples if i < j])) == pytest.approx(impostor)


def test_pairs_that_say_the_same_count_once() -> None:
    """Ten persons of ten pairs each, always all right or all wrong, are ten pairs."""
    person = np.repeat(np.arange(10), 10)
    wrong = person < 3
    found = adjusted(count_errors(np.stack([person, person]), wrong, 10))
    assert found[:2] == pytest.approx(wilson(3, 10))
    assert found.low <= 0.3 <= found.high


def test_persons_of_one_pair_each_change_nothing() -> None:
    person = np.arange(60)
    wrong = person < 7
    same = np.ones(60, dtype=bool)
    assert rate_interval(wrong, same, np.stack([person, person]))[:2] == pytest.approx(wilson(7, 60))
    assert rate_interval(wrong, same, None)[:2] == wilson(7, 60)


@pytest.mark.parametrize("wrong", [0, 40])
def test_none_or_all_wrong_leave_all_pairs_counting(wrong: int) -> None:
    persons = np.stack([np.arange(40) % 5, np.arange(40) % 5])
    found = rate_interval(np.arange(40) < wrong, np.ones(40, dtype=bool), persons)
    assert found[:2] == wilson(wrong, 40)


def test_dependent_pairs_never_count_more_than_there_are() -> None:
    """Each person is wrong in exactly every second pair: the estimated variance is 0."""
    person = np.repeat(np.arange(10), 2)
    found = adjusted(count_errors(np.stack([person, person]), np.arange(20) % 2 == 0, 10))
    assert found[:2] == wilson(10, 20)


def test_persons_are_known_where_nothing_contradicts_them() -> None:
    same = np.array([True, False, False])
    persons, unknown = persons_of_pairs(np.array([7, 7, 40]), np.array([7, 9, 9]), same)
    assert unknown == ""
    assert persons is not None
    assert persons.tolist() == [[0, 0, 2], [0, 1, 1]]
    for first, second, said in (([7, 7, 40], [8, 9, 9], "1 genuine"), ([7, 9, 40], [7, 9, 9], "1 impostor")):
        persons, unknown = persons_of_pairs(np.array(first), np.array(second), same)
        assert persons is None
        assert unknown.startswith(said)
    persons, unknown = persons_of_pairs(np.arange(3), np.arange(3, 6), np.zeros(3, dtype=bool))
    assert persons is None
    assert "each picture" in unknown


def test_adjusted_intervals_hold_the_truth_where_independent_ones_miss_it() -> None:
    """80 simulated tests: of 0.95 they leave 0.88 to 1 (3 standard errors)."""
    shares = coverage(Population(), 40, 10, 80, draw=False)
    for name, (plain, ours) in shares.items():
        assert plain is not None
        assert plain < 0.87 < 0.88 <= ours, name
