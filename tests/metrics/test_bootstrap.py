import numpy as np
import pytest

from benchmarks.interval_coverage import Population, simulate
from fastface.metrics.bootstrap import bootstrap, num_replicates
from fastface.metrics.curve import area, calibrate, curve, equal_error, tar_at


def test_a_draw_is_the_curve_of_the_pairs_whose_persons_were_drawn() -> None:
    scores, same, persons = simulate(Population(), 12, 3, np.random.default_rng(0))
    scores = np.round(scores, 1)  # ties
    scores[[3, 50]] = np.nan
    found = bootstrap(
        scores, same, persons, lambda c: [area(c[0]), equal_error(c[0])[0], tar_at(c[0], 0.1)], replicates=40, seed=7
    )
    rng = np.random.Generator(np.random.Philox(7))
    draws = []
    for _ in range(40):
        kept = rng.integers(0, 2, 12, dtype=np.int8)
        here = [p for p in range(len(same)) if kept[persons[0, p]] and kept[persons[1, p]]]
        points = curve(scores[here], same[here])
        draws.append([area(points), equal_error(points)[0], calibrate(scores[here], same[here], (0.1,))[0].tar])
    assert found == pytest.approx(np.quantile(np.array(draws), [0.025, 0.975], axis=0).T)


def test_the_draw_depends_on_the_seed_alone() -> None:
    scores, same, persons = simulate(Population(), 30, 2, np.random.default_rng(1))
    first, again, other = (
        bootstrap(scores, same, persons, lambda c: [area(c[0])], replicates=50, seed=seed) for seed in (0, 0, 1)
    )
    assert first is not None
    assert np.array_equal(first, again)  # type: ignore[arg-type]
    assert not np.array_equal(first, other)  # type: ignore[arg-type]


def test_models_are_drawn_together() -> None:
    """A model against itself differs in no draw, however far both vary."""
    scores, same, persons = simulate(Population(), 30, 2, np.random.default_rng(2))
    both = np.stack([scores, scores])
    found = bootstrap(both, same, persons, lambda c: [area(c[0]) - area(c[1]), area(c[0])], replicates=50)
    assert found is not None
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1, 1] > found[1, 0]


def test_too_few_persons_have_no_interval() -> None:
    scores, same, persons = simulate(Population(), 3, 4, np.random.default_rng(3))
    assert bootstrap(scores, same, persons, lambda c: [area(c[0])], replicates=50) is None


def test_long_lists_are_drawn_less_often() -> None:
    assert [num_replicates(n) for n in (10, 200_000, 400_000, 1_000_000, 8_010_270)] == [1000, 1000, 500, 200, 200]
